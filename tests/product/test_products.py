"""Products of every kind: written, read, refused."""

from __future__ import annotations

import chex
import jax
import numpy as np
import pytest

from jdd import rng
from jdd.data.transform import normalisation
from jdd.errors import BadInput
from jdd.nets import generators
from jdd.product import files, pairs
from jdd.product.arrays import as_read
from jdd.product.distilled_set import DistilledSet, make_recipe
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet, Similarity
from tests.tiny_distilled import make as tiny

DRAW = np.random.default_rng(0)
PLAIN = normalisation(np.full(1, 0.5, np.float32), np.full(1, 0.25, np.float32))


def pair_set(**changes) -> PairSet:
    n, rank = 4, 2
    similarity = Similarity(
        np.ones(n, np.float32),
        DRAW.normal(size=(n, rank)).astype(np.float32),
        np.zeros((n, rank), np.float32),
        3.0,
    )
    images = DRAW.normal(size=(n, 8, 8, 1)).astype(np.float32)
    text = DRAW.normal(size=(n, 16)).astype(np.float32)
    recipe = make_recipe(task="retrieval", captions=[f"caption {i}" for i in range(n)])
    found = PairSet(images, text, recipe, PLAIN, {"image": 0.1, "text": 0.2}, similarity)
    return found._replace(**changes)


def generator_set(**changes) -> GeneratorSet:
    described = {"name": "gaussian", "shape": [4, 4, 1], "classes": 3, "latent": 2}
    net = generators.make(described)
    recipe = make_recipe(class_names=["a", "b", "c"])
    params = jax.tree.map(np.asarray, net.init(rng.key(0, "test")))
    return GeneratorSet(described, params, 5, recipe, PLAIN)._replace(**changes)


def test_a_generator_takes_another_number_of_images():
    own = generator_set()
    of_images = own.with_recipe(own.recipe | {"ipc": own.per_class}).with_per_class(7)
    assert of_images.per_class == of_images.recipe["ipc"] == 7
    of_bytes = own.with_recipe(own.recipe | {"ipc": 2}).with_per_class(7)
    assert of_bytes.per_class == 7 and of_bytes.recipe["ipc"] == 2
    with pytest.raises(BadInput, match="with_per_class: 0"):
        own.with_per_class(0)


@pytest.mark.parametrize("made", [pair_set, generator_set, tiny], ids=["pairs", "generator", "set"])
def test_a_product_comes_back_as_it_was_saved(tmp_path, made):
    product = made()
    path = product.save(tmp_path / "distilled.npz")
    again = files.load(path)
    assert type(again) is type(product) and again.kind == product.kind
    assert again.size == product.size
    jax.tree.map(np.testing.assert_array_equal, _arrays(again), _arrays(product))
    assert again.recipe == as_read(product.recipe)
    assert again.save(tmp_path / "again.npz").read_bytes() == path.read_bytes()


def _arrays(product):
    if product.kind == "generator":
        return product.params
    if product.kind == "pairs":
        return [product.images, product.text, list(product.rates.values()), *product.similarity]
    return [product.images, product.labels]


def test_fixed_sets_stay_schema_1_but_for_weights(tmp_path):
    plain, n = tiny(), tiny().size
    with np.load(plain.save(tmp_path / "a.npz")) as found:
        assert int(found["schema_version"]) == 1 and "kind" not in found.files
    weights = np.arange(n, dtype=np.float32)
    weighted = plain._replace(weights=weights)
    with np.load(weighted.save(tmp_path / "b.npz")) as found:
        assert int(found["schema_version"]) == 2 and str(found["kind"]) == "images"
    again = DistilledSet.load(tmp_path / "b.npz").weights
    np.testing.assert_allclose(again, weights / weights.mean(), rtol=1e-6)


def test_similarity_is_the_diagonal_and_a_product_of_factors():
    s = pair_set().similarity
    np.testing.assert_array_equal(s.matrix(), np.eye(4))  # R is 0
    right = DRAW.normal(size=(4, 2)).astype(np.float32)
    wanted = np.eye(4) + 1.5 * sum(np.outer(s.left[:, k], right[:, k]) for k in range(2))
    np.testing.assert_allclose(s._replace(right=right).matrix(), wanted, rtol=1e-5, atol=1e-6)


def test_a_generator_gives_other_images_each_epoch_and_the_same_for_a_key():
    made = generator_set()
    first, second = (np.asarray(made.images(rng.key(0, "epoch", i))) for i in range(2))
    assert first.shape == (15, 4, 4, 1) and np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(first, made.images(rng.key(0, "epoch", 0)))
    assert made.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    # x = mean + z F, by hand
    z = np.asarray(jax.random.normal(rng.key(0, "epoch", 0), (15, 2)))
    by_hand = z[7] @ made.params["factors"][1] + made.params["mean"][1]
    np.testing.assert_allclose(first[7].ravel(), by_hand, rtol=1e-5, atol=1e-6)


def broken_params():
    made = generator_set()
    return made._replace(params={"mean": made.params["mean"]})


@pytest.mark.parametrize(
    "product, words",
    [
        (lambda: pair_set(text=np.zeros((3, 16), np.float32)), "4 images and 3 texts"),
        (lambda: pair_set(rates={"image": -1.0}), "rate image is -1"),
        (lambda: pair_set(rates={"sound": 1.0}), "rates image and text"),
        (lambda: pair_set(images=np.full((4, 8, 8, 1), np.nan, np.float32)), "NaN"),
        (
            lambda: pair_set(similarity=pair_set().similarity._replace(w=np.ones(3, np.float32))),
            "similarity of shapes",
        ),
        (broken_params, "params/factors is missing"),
        (lambda: generator_set(per_class=0), "per_class 0"),
        (lambda: generator_set(recipe=make_recipe(class_names=["a"])), "a name for every class"),
        (
            lambda: generator_set(
                architecture={"name": "gausian", "shape": [4, 4, 1], "classes": 3, "latent": 2}
            ),
            "did you mean gaussian",
        ),
        (lambda: tiny()._replace(weights=np.zeros(tiny().size, np.float32)), "one is above 0"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, product, words):
    with pytest.raises(BadInput, match=words):
        product().save(tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"kind": np.asarray("sound")}, "kind 'sound'"),
        ({"schema_version": np.asarray(4)}, "install a newer one"),
        ({"text_embeddings": None}, "has no array text_embeddings"),
        ({"similarity/L": None}, "has no array similarity/L"),
        ({"rates/image": np.asarray("fast")}, "not one number"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, changes, words):
    with np.load(pair_set().save(tmp_path / "a.npz")) as found:
        arrays = {**found, **changes}
    np.savez(tmp_path / "b.npz", **{k: a for k, a in arrays.items() if a is not None})
    with pytest.raises(BadInput, match=words):
        files.load(tmp_path / "b.npz")


def test_a_fixed_set_is_asked_for_and_pairs_are_found(tmp_path):
    path = pair_set().save(tmp_path / "a.npz")
    with pytest.raises(BadInput, match="kind 'pairs'"):
        DistilledSet.load(path)


def test_types_at_the_border():
    """What a file may hold in other floats is float32 once it is read."""
    wide = pair_set(images=DRAW.normal(size=(4, 8, 8, 1)), text=DRAW.normal(size=(4, 16)))
    found = pairs.validate(wide, "x")
    chex.assert_type([found.images, found.text, found.similarity.w], np.float32)
    chex.assert_equal_shape_prefix([found.images, found.text, found.similarity.left], 1)
    drawn = generator_set().images(rng.key(0, "border"))
    chex.assert_shape(drawn, (15, 4, 4, 1))
    chex.assert_type(drawn, np.float32)
