"""NCFM: the order of an iteration, its optimiser, the mix of nets, and sets with a factor."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdd
from jdd import methods
from jdd.data import class_indices
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.methods import ncfm
from jdd.methods.base import Problem
from jdd.pretrained import expert_training
from jdd.product.distilled_set import DistilledSet
from jdd.specs.ncfm import SPEC
from tests import runs

KEYS = {
    "method": "ncfm",
    "net.depth": 1,
    "ipc": 2,
    "batch_real": 30,
    "num_freqs": 32,
    "experts.epochs": 3,
    "data.dsa": "color_cutout",
}
UNUSED = (
    "syn_steps", "expert_epochs", "max_start_epoch", "lr_img", "lr_lr", "lr_student",
)  # fmt: skip


class Nets:
    """Experts whose weights are all 1 untrained and all 3 after training."""

    trained, settings = True, {}

    def __init__(self, net):
        self._net, self.read_at = net, []

    def read(self, expert, epoch):
        self.read_at.append((expert, epoch))
        like = jax.eval_shape(self._net.init, jax.random.key(0))
        return jax.tree.map(lambda x: np.full(x.shape, 3.0 if epoch else 1.0, np.float32), like)


@pytest.fixture
def made(tiny, tmp_path):
    keys = {k: v for k, v in tiny.items() if k not in UNUSED} | KEYS
    context = runs.context(keys, tmp_path)
    nets = Nets(context.net)
    problem = Problem(context.data, {"student": context.net}, nets, context.config)
    return methods.make(context.config, problem), context, problem


def test_an_iteration_matches_every_class_and_then_calibrates_every_class(made):
    method, context, problem = made
    steps = [method.sample(0, step) for step in range(12)]
    assert [int(s["class"][0]) for s in steps] == [0, 1, 2] * 4
    assert [bool(s["calibrates"][0]) for s in steps] == ([False] * 3 + [True] * 3) * 2
    nets = [(s["snapshots"]["initial"][0], float(s["mix"][0])) for s in steps]
    assert len(set(nets[:6])) == len(set(nets[6:])) == 1 and nets[0][1] != nets[6][1]
    for s in steps:
        (expert, first), (same, last) = (s["snapshots"][n][0] for n in ("initial", "trained"))
        assert expert == same and 0 <= expert < 2 and (first, last) == (0, 3)
        own = class_indices(context.data.train.labels, 3)[int(s["class"][0])]
        # 20 images a class, so a batch of 30 is each of them once.
        assert sorted(s["real"][0].tolist()) == sorted(own.tolist())
        np.testing.assert_allclose(s["real_weight"][0], 1 / 20)
    assert problem.gather(steps[0])["mix"].shape == (1,)


def test_theta_is_between_the_untrained_and_the_trained_net(made, monkeypatch):
    method, context, problem = made
    seen = []
    monkeypatch.setattr(
        ncfm._Matching,
        "features",
        lambda self, theta, x: seen.append(theta) or jnp.ones((len(x), 2)),
    )
    item = jax.tree.map(lambda x: x[0], problem.gather(method.sample(0, 0)))
    item["real"]["images"] = np.asarray(item["real"]["images"])
    item["mix"] = np.float32(0.25)
    own = ncfm._Matching(context.config, problem)
    own.matching(method.init(0).variables["images"], {}, item, jax.random.key(0))
    for leaf in jax.tree.leaves(seen[0]):
        np.testing.assert_allclose(leaf, 0.25 * 1 + 0.75 * 3)


def test_images_are_pixels_clipped_after_an_iteration(made):
    method, context, _ = made
    state = method.init(0)
    images = state.variables["images"]
    assert images.shape == (6, 8, 8, 3) and 0 <= images.min() and images.max() <= 1
    # Every tile is another real image of the class, made small.
    pixels = context.data.transform.inverse(context.data.train.images)
    small = pixels[:, ::2, ::2]
    for i, image in enumerate(np.asarray(images)):
        for tile in (image[:4, :4], image[:4, 4:], image[4:, :4], image[4:, 4:]):
            near = np.abs(small - tile).max((1, 2, 3))
            assert near.min() < 1e-5 and context.data.train.labels[near.argmin()] == i // 2
    state = state._replace(variables={"images": images + 2})
    for step in range(6):
        assert float(state.variables["images"].max()) > 1
        state = method.advance(state, jax.random.key(step))
    assert float(state.variables["images"].max()) == 1 and int(state.aux["at"]) == 0


def test_the_optimiser_is_adamw_with_all_images_in_every_step():
    config = SimpleNamespace(
        optimizer="adamw", lr_img=0.01, img_decay=0.1, img_momentum=0.5, calibration=1, plateau=0
    )
    ours, theirs = ncfm.optimizer(config, 2), optax.adamw(0.01, weight_decay=0.1)
    x = y = {"images": jnp.asarray([1.0, -2.0])}
    s, t = ours.init(x), theirs.init(y)
    for step in range(7):  # the gradient of one class at a time
        grads = {"images": jnp.asarray([1.0, 0.0]) if step % 2 else jnp.asarray([0.0, 3.0 - step])}
        moves, s = ours.update(grads, s, x, value=jnp.float32(step))
        x = optax.apply_updates(x, moves)
        moves, t = theirs.update(grads, t, y)
        y = optax.apply_updates(y, moves)
        np.testing.assert_allclose(x["images"], y["images"], rtol=1e-6)
    assert float(s.factor) == 1


def test_the_published_rows_are_those_of_the_shipped_configs():
    row = {key: found["values"] for key, found in SPEC.published.items()}
    assert row["cifar10", 1]["steps"] == 20000 * 20 and row["cifar10", 1]["img_decay"] == 5e-4
    sgd = row["cifar100", 10]  # their SGD has no weight decay
    assert (sgd["optimizer"], sgd["lr_img"], sgd["img_decay"]) == ("sgd", 0.01, 0.0)
    assert [row["tiny_imagenet", ipc]["eval.epochs"] for ipc in (1, 10, 50)] == [2000, 300, 40]


def test_the_rate_is_halved_where_the_loss_of_an_iteration_stays():
    # 2 classes, 1 pass of calibration: 4 steps, whose sum over 2 counts. Patience 2.
    tx = ncfm.plateau(optax.identity(), 1.0, 2, 4, 2)
    x, losses = {"images": jnp.ones(1)}, [5.0, 4.0, 4.0, 4.5, 3.99999, 3.0, 3.0, 3.0, 3.0]
    state, factors = tx.init(x), []
    for at, loss in enumerate(losses):
        matched = loss / (2 + at % 2)  # what calibration adds counts alike
        for own in (matched - 1, matched + 1, loss - matched - 2, loss - matched + 2):
            moves, state = tx.update(x, state, x, value=jnp.float32(own))
        factors.append(float(state.factor))
        assert float(moves["images"][0]) == -([1.0, *factors][len(factors) - 1])
    # 4.5 and what is smaller by less than 1e-4 are no new minimum: more than 2 in a row halve.
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_the_nets_of_the_pool_are_trained_as_published(made, tmp_path):
    _, context, _ = made
    recipe, experts, n = context.recipe(), context.config.experts, context.data.train.size
    rates = expert_training.rates(recipe, experts, n)
    assert (recipe.augment, recipe.strategy, recipe.cutmix) == ("idc", "color_crop", 0.5)
    # Of 3 epochs both steps of the rate, after 2/3 and 5/6 rounded down, come after the second.
    per_epoch = recipe.steps_per_epoch(n)
    expected = np.repeat([1, 1, 0.04], per_epoch) * experts.lr
    np.testing.assert_allclose(rates, expected)
    long = dataclasses.replace(experts, epochs=10)
    rates = expert_training.rates(recipe, long, n)[::per_epoch]
    factors = np.float64([1] * 6 + [0.2] * 2 + [0.04] * 2)
    np.testing.assert_allclose(rates, factors * long.lr)
    own = context.settings(2)
    assert own["schedule"] == "multistep" and own["epochs"] == 3
    assert (own["augment"], own["cutmix"]) == ("color_crop", 0.5)
    # The whole training set is trained plainly.
    plain = context.recipe(flat=False)
    assert (plain.augment, plain.strategy, plain.cutmix) == ("dsa", "color_cutout", 0.0)
    assert not {"schedule", "augment", "cutmix", "epochs"} & set(context.settings(1, flat=False))


def test_a_pool_trained_by_steps_of_its_rate_is_the_one_of_its_keys(tiny, tmp_path):
    keys = {k: v for k, v in tiny.items() if k not in UNUSED} | KEYS
    plain = {"experts.schedule": "constant", "experts.augment": "", "experts.cutmix": 0.0}
    context = runs.context(keys | plain, tmp_path)
    experts = context.config.experts
    assert expert_training.rates(context.recipe(), experts, 60) == experts.lr
    assert context.recipe() == context.recipe(flat=False)
    assert not {"schedule", "augment", "cutmix", "epochs"} & set(context.settings(2))
    with pytest.raises(BadInput, match="^config.experts.augment: unknown operation 'sepia'"):
        runs.context(keys | {"experts.augment": "color_sepia"}, tmp_path / "b").settings(2)


def test_the_sampling_net_ascends(tiny, tmp_path):
    keys = {k: v for k, v in tiny.items() if k not in UNUSED} | KEYS | {"sampling_net": True}
    context = runs.context(keys, tmp_path)
    problem = Problem(context.data, {"student": context.net}, Nets(context.net), context.config)
    own = ncfm._Matching(context.config, problem)
    params, grads = [{"kernel": jnp.asarray([2.0])}], [{"kernel": jnp.asarray([3.0])}]
    aux = {"sampler": params, "velocity": [{"kernel": jnp.asarray([1.0])}]}
    new = own.ascended(aux, grads)
    velocity = 0.5 * 1 - 3 + 5e-4 * 2
    np.testing.assert_allclose(new["velocity"][0]["kernel"], velocity, rtol=1e-6)
    np.testing.assert_allclose(new["sampler"][0]["kernel"], 2 - 1e-3 * velocity, rtol=1e-6)


def test_a_set_with_a_factor_is_decoded_where_nets_are_trained(made, tmp_path):
    method, context, _ = made
    dset = method.distilled(method.init(0), 0)
    assert dset.images.shape == (6, 8, 8, 3) and dset.recipe["train"]["factor"] == 2
    assert dset.recipe["augment"] == {
        "name": "idc", "strategy": "pad_color", "align_corners": False,
    }  # fmt: skip
    train = dset.recipe["train"]
    assert (train["optimizer"], train["weight_decay"], train["cutmix"]) == ("adamw", 0.01, 0.5)
    assert train["passes"] == train["epochs"] and train["schedule"]["gamma"] == 0.5
    read = jdd.load(dset.save(tmp_path / "set.npz"))
    assert isinstance(read, DistilledSet)
    whole = train_eval.formed(read)
    assert whole.images.shape == (24, 8, 8, 3) and "factor" not in (
        {k: v for k, v in whole.recipe["train"].items() if v != 1}
    )
    np.testing.assert_array_equal(whole.labels, np.repeat([0, 1, 2], 8))
    # A corner of a decoded image is the corner of its tile.
    np.testing.assert_allclose(whole.images[1, 0, 0], read.images[0, 0, 4], rtol=1e-5)
    assert train_eval.formed(whole) is whole
    with pytest.raises(ValueError, match="decoded first"):
        train_eval.trained(context.net, train_eval.plan(read), read.images, read.labels, 0)
    odd = read.with_recipe(read.recipe | {"train": train | {"factor": 3}})
    with pytest.raises(BadInput, match="factor is 3, of images of 8x8; a divisor"):
        train_eval.plan(odd)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"factor": 3}, "config.factor: 3, of images of 8x8"),
        ({"ipc": 6}, "config.pix_init: mix of 24 images of a class, of which there are 20"),
        ({"data.zca": "kornia"}, "config.data.zca: kornia"),
        ({"sampling_net": True, "num_freqs": 16}, "config.num_freqs: 16 with sampling_net=true"),
        ({"augment": "colour"}, "config.augment: unknown operation 'colour'"),
        ({"eval.cutmix": 2.0}, "config.eval.cutmix"),
    ],
)
def test_what_cannot_be_is_refused(tiny, tmp_path, keys, words):
    given = {k: v for k, v in tiny.items() if k not in UNUSED} | KEYS | keys
    with pytest.raises(BadInput, match=words.split(":")[0]) as error:
        runs.context(given, tmp_path)
    assert words in str(error.value)
