"""A common protocol: every set by one evaluation, next to random images and coresets."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd import config, nets
from jdd.augment import views
from jdd.data import Dataset, Split, normalisation, transform
from jdd.errors import BadInput
from jdd.evaluation.predict import outputs
from jdd.matching import selection
from jdd.product.distilled_set import DistilledSet, make_recipe
from jdd.run import pipeline
from jdd.schema.protocols import COMMON
from jdd.soft_labels import teacher as labeller
from jdd.soft_labels.store import LabelStore
from jdd.stages import labelling, protocol, protocol_nets, protocol_rows
from jdd.stages.protocol_nets import ProtocolTeacher

NAMES, SHAPE = ("a", "b", "c"), (4, 4, 1)
TINY = dataclasses.replace(
    COMMON["common-small"], net="MLP", large="MLP", width=0, epochs=2, teacher_epochs=2, early=1
)


@pytest.fixture
def data():
    """Thirty images of 8 bits, in the space of a mean and a deviation."""
    draw = np.random.default_rng(0)
    labels = np.arange(30, dtype=np.int32) % 3
    pixels = draw.integers(0, 256, (30, *SHAPE)) / 255
    own = normalisation(np.array([0.4]), np.array([0.3]))
    split = Split(own.forward(pixels), labels)
    return Dataset("toy", NAMES, split, None, split, own, "none", "x")


def a_set(images, labels, transform, kind="hard"):
    recipe = make_recipe(class_names=list(NAMES), ipc=2)
    return DistilledSet(images, labels, kind, None, recipe, transform)


@pytest.fixture(scope="module")
def teacher():
    net = nets.make("MLP", SHAPE, 3)
    variables = [jax.device_get(net.init(jax.random.key(i))) for i in (0, 1)]
    return ProtocolTeacher(net, *variables, {"digest": "d"})


def test_views_mirror_only_where_the_dataset_allows_it(data):
    for name, dsa, flip in (
        ("digits", "none", 0.0), ("svhn", "color_flip", 0.0), ("cifar10", "none", 0.5),
        ("own", "color_crop", 0.0), ("own", "color_flip", 0.5),
    ):  # fmt: skip
        found = protocol_nets.spec(COMMON["common"], data._replace(name=name, dsa=dsa))
        assert (found.flip, found.mix, found.crop, found.scale[0]) == (
            flip,
            "cutmix",
            "resized",
            0.08,
        )
    own = data._replace(name="own", dsa="none")
    colour = own._replace(train=Split(np.zeros((1, 4, 4, 3)), np.zeros(1, np.int32)))
    assert protocol_nets.flips(colour) and not protocol_nets.flips(own)


def test_students_follow_the_table(data, teacher):
    found = protocol_rows.Material(np.zeros((1, 120, *SHAPE)), np.zeros((1, 120), np.int32))
    for name, stretch in (("common", 1), ("common-small", 2)):
        planned = protocol.plan(COMMON[name], found, 3, "soft", "views", teacher)
        assert planned.steps == 400 * 3 and planned.recipe.optimizer == "adam"
        epoch = np.arange(1200) // 3
        wanted = 1e-3 * (1 + np.cos(np.pi * epoch / (stretch * 400))) / 2
        np.testing.assert_allclose(planned.rates, wanted, rtol=1e-5, atol=1e-10)
        loss = planned.recipe.distillation
        assert (loss.recipe.loss, loss.recipe.temperature, loss.online) == ("kl", 20.0, False)
    hard = protocol.plan(COMMON["common"], found, 3, "hard", "online", teacher).recipe.distillation
    soft = protocol.plan(COMMON["common"], found, 3, "soft", "online", teacher).recipe.distillation
    assert hard.recipe.loss == "hard" and not hard.teachers and soft.teachers == (teacher.net,)


def test_rows_are_of_equal_images_and_of_equal_bytes(data):
    draw = np.random.default_rng(1)
    learned = draw.standard_normal((6, *SHAPE)).astype(np.float32)
    soft = np.eye(3, dtype=np.float32)[np.arange(6) % 3]
    found = protocol_rows.rows(a_set(learned, soft, data.transform, "probabilities"), data, 4)
    named = {row.name: row for row in found}
    # Two images of 16 numbers in float32 and two classes; one real image takes 16 + 4 bytes.
    assert named["set"][1:] == (2, 2 * 16 * 4 + 2 * 4, 1)
    assert named["random"][1:] == (2, 40, 4) and named["el2n"][1:] == (2, 40, 1)
    assert named["random_bytes"][1:] == (6, 120, 4)
    real = a_set(data.train.images[:6], data.train.labels[:6], data.transform)
    assert [row.name for row in protocol_rows.rows(real, data, 0)] == [
        "set", "herding", "kcenter", "el2n",
    ]  # fmt: skip


def test_a_whitened_set_is_shown_as_normalised_pixels(data):
    pixels = np.random.default_rng(2).random((200, *SHAPE)).astype(np.float32)
    white = transform.whitening(*transform.fit_zca(pixels), 1)
    dset = a_set(white.forward(pixels[:6]), np.arange(6) % 3, white)
    found = protocol_rows.in_space(dset.images, dset, data)
    np.testing.assert_allclose(found, data.transform.forward(pixels[:6]), atol=1e-4)
    plain = a_set(data.train.images[:6], np.arange(6) % 3, data.transform)
    assert protocol_rows.in_space(plain.images, plain, data) is plain.images


def test_coresets_are_of_the_teachers_features_and_early_errors(data, teacher):
    split, row = data.train, protocol_rows.Row("", 2, 40)

    def shown(name):
        found = protocol_rows.material(row._replace(name=name), None, data, teacher, 0)
        assert found.labels.tolist() == [[0, 0, 1, 1, 2, 2]]
        return found.images[0]

    features = outputs(teacher.net, teacher.variables, split.images).features
    errors = selection.error_norms(
        outputs(teacher.net, teacher.early, split.images).logits, split.labels
    )
    for c in range(3):
        own = np.flatnonzero(split.labels == c)
        for name, rows in (
            ("herding", selection.herding(features[own], 2)),
            ("kcenter", selection.kcenter(features[own], 2)),
            ("el2n", np.argsort(errors[own])[:2]),
        ):
            np.testing.assert_array_equal(shown(name)[2 * c : 2 * c + 2], split.images[own[rows]])


def test_labels_of_a_generator_are_of_the_images_of_their_epoch(teacher, tmp_path):
    """The store's labels are the teacher's for its views of each epoch's own images."""
    spec = views.Spec(crop="padded", pad=1, flip=0.0, mix="cutmix")
    made = [
        np.random.default_rng(e).standard_normal((6, *SHAPE)).astype(np.float32) for e in (0, 1)
    ]
    label = labelling.Labeller(
        labelling.Rule(spec, "views"),
        [(teacher.net, teacher.variables)],
        made[0],
        4,
        jax.devices()[:1],
    )
    settings = {"form": "logits", "classes": 3, "epochs": 2}
    store = LabelStore(tmp_path / "labels", settings)

    class Quiet:
        workdir = tmp_path

        def check(self): ...

        def bar(self, *args, **more):
            return self

        update = close = lambda *args: None

    labelling.fill(store, label, 2, 6, 4, 0, Quiet(), "label", lambda e: jnp.asarray(made[e]))
    for epoch in (0, 1):
        index, packed, found = store.read(epoch)
        view = views.unpack({k: a[1] for k, a in packed.items()})
        x = labeller.show(jnp.asarray(made[epoch]), jnp.asarray(index[1]), view)
        logits = teacher.net.apply(teacher.variables, x, train=False).logits
        np.testing.assert_allclose(found["logits"][1], logits, atol=2e-3)


KEYS = {
    "nets": "MLP", "net.name": "MLP", "eval.n": 2, "eval.epochs": 1, "eval.curve": 0, "ipc": 2,
    "baselines.random": 2, "baselines.full": False, "eval.protocol": "common-small",
    "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with a run, 'a', by a small protocol."""
    place = tmp_path_factory.mktemp("protocol")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMMON, "common-small", TINY)
        keys = KEYS | {"data.cache_dir": str(place / "cache")}
        pipeline.run(config.load("random:digits", keys), str(place / "a"), "all")
        yield place


def test_a_run_has_both_columns_of_every_row(runs):
    found = json.loads((runs / "a/result.json").read_text())
    ours = found["protocol"]
    assert list(ours["rows"]) == ["set", "random", "herding", "kcenter", "el2n"]
    for name, row in ours["rows"].items():
        assert row["soft"]["n"] == row["hard"]["n"] == 2
        assert row["images_per_class"] == 2 and row["bytes_per_class"] == 2 * (64 + 4), name
    # Students of real images and of the set are alike, and the set is real images here.
    assert ours["rows"]["set"]["own"] == found["accuracy"]["MLP"]
    assert ours["rows"]["random"]["own"]["mean"] == found["baselines"]["random"]["mean"]
    assert (ours["flip"], ours["student"], ours["teacher"]["epochs"]) == (0.0, "MLP", 2)
    assert not (runs / "a/protocol").exists()
    page = (runs / "a/report.html").read_text(encoding="utf-8")
    assert "By one protocol" in page and "k-center" in page and "136" in page


def test_the_saved_set_has_the_same_figures_by_the_same_teacher(runs):
    whole = jdd.evaluate(
        runs / "a", runs / "b", nets=["MLP"], baselines={"random": 2}, progress=False,
        eval={"n": 2, "epochs": 1, "protocol": "common-small"},
        data={"cache_dir": str(runs / "cache")},
    )  # fmt: skip
    a = json.loads((runs / "a/result.json").read_text())["protocol"]
    assert whole["protocol"]["teacher"] == a["teacher"]
    assert {
        name: (row["soft"], row["hard"]) for name, row in whole["protocol"]["rows"].items()
    } == {name: (row["soft"], row["hard"]) for name, row in a["rows"].items()}
    assert "Protocol common-small: 2 epochs" in whole["summary"]
    assert len(list((runs / "cache/protocol-teachers").iterdir())) == 2  # and the early net


def test_random_images_of_fewer_than_the_set_have_no_figure_by_its_recipe(data, monkeypatch):
    """The run's own baseline repeats the images of a small class; the protocol's row does not."""
    measured = ({"MLP": {"mean": 0.9}}, {"MLP": {"random": {"mean": 0.5}}})
    monkeypatch.setattr(protocol.evaluate, "results", lambda context: measured)
    context = SimpleNamespace(config=config.load("random", KEYS).config, baseline_nets=("MLP",))
    dset = a_set(data.train.images[:12], data.train.labels[:12], data.transform)
    few = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2], np.int32)
    small = data._replace(train=Split(data.train.images[: len(few)], few))
    for source, each, own in ((data, 4, {"mean": 0.5}), (small, 1, None)):
        rows = {row.name: row for row in protocol_rows.rows(dset, source, 2)}
        assert rows["random"].each == each
        assert protocol._own(context, rows["random"], dset) == own
        assert protocol._own(context, rows["set"], dset) == {"mean": 0.9}
        assert protocol._own(context, rows["herding"], dset) is None


@pytest.mark.slow
def test_a_generator_is_measured_by_its_images_of_each_epoch(runs):
    keys = KEYS | {"per_class": 2, "quality.images": 0, "baselines.random": 0}
    keys["data.cache_dir"] = str(runs / "cache")
    pipeline.run(config.load("gaussian:digits", keys), str(runs / "g"), "all")
    a, g = (json.loads((runs / x / "result.json").read_text())["protocol"] for x in "ag")
    assert list(g["rows"]) == ["set", "herding", "kcenter", "el2n"]
    assert g["rows"]["herding"]["soft"] == a["rows"]["herding"]["soft"]
    assert g["rows"]["set"]["bytes_per_class"] == 4 * 2 * 64


def test_refusals(tmp_path):
    pairs = config.load("random_pairs:digits_captions", {"eval.protocol": "common"})
    with pytest.raises(BadInput, match="own, or for pairs --config.protocol=vl or lors"):
        pipeline.run(pairs, str(tmp_path / "pairs"))
    with pytest.raises(BadInput, match="eval.protocol.*common-small"):
        config.load("random:digits", {"eval.protocol": "comon"})
    assert not (tmp_path / "pairs").exists()
