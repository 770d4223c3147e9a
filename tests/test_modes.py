"""Whole runs that label students not view by view: by image, by map, or while they learn."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd import config
from jdd.errors import BadInput, Interrupted
from jdd.evaluation import train_eval
from jdd.pretrained import patch_selection
from jdd.product.distilled_set import DistilledSet
from jdd.soft_labels import maps
from jdd.soft_labels import teacher as labeller
from jdd.soft_labels.store import LabelStore
from jdd.stages import baselines, costs, label_stores, labelling, relabel
from tests import runs

OWN = {
    "method": "rded", "ipc": 2, "steps": 0, "factor": 2, "candidates": 4, "crops": 2,
    "net.name": "ConvNetBN", "nets": "ConvNetBN", "squeeze.nets": "ConvNetBN", "squeeze.width": 4,
    "net.depth": 1, "squeeze.epochs": 3, "squeeze.batch": 16, "squeeze.lr": 0.05, "eval.epochs": 4,
    "eval.batch": 4, "eval.lr": 0.01, "eval.curve": 0, "quantise": "round", "baselines.full": False,
    "baselines.random": 0, "baselines.hard": False,
}  # fmt: skip


def keys_of(tiny, mode, **more):
    schema = config.schema("rded")
    found = {**tiny, **OWN, "relabel.mode": mode, **more}
    return {name: value for name, value in found.items() if name in schema}


@pytest.fixture(scope="module", autouse=True)
def told_to_be_good():
    """Let teachers pass that nobody has trained, and take whole images: squeezing and the choice
    of crops are tested in test_decoupled.py.
    """
    plain = patch_selection.select
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patch_selection, "select", lambda t, *a: plain(t._replace(store=None), *a))
        patched.setattr("jdd.stages.squeeze.right", lambda *a: 0.9)
        yield


def run(keys, place, mode="all"):
    """Run with teachers of fresh weights."""
    for teacher in runs.context(keys, place).teachers:
        if not teacher.trained:
            fresh = teacher.net.init(jax.random.key(len(place.name)))
            teacher.store.create()
            teacher.store.write(0, teacher.epochs, jax.tree.map(lambda a: a[None], fresh))
    return runs.run(keys, place, mode)


def foretold(context):
    """Return what the stage would cost, and try what a student's cost is measured on."""
    dset = costs.example(context)
    planned, labels, shared = label_stores.blank(context, train_eval.plan(dset), dset.labels, 10)
    view = planned.recipe.distillation.view
    assert jax.eval_shape(view, dset.images, labels | shared, 0)[1]["soft"].shape == (4, 3)
    return relabel.STAGE.estimate(context)


@pytest.fixture(scope="module")
def static(tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("static")
    keys = keys_of(tiny, "static", **{"baselines.random": 1})
    return place, keys, run(keys, place)


def test_static_labels_are_the_teachers_answer_to_each_image(static):
    place, keys, result = static
    assert DistilledSet.load(place / "distilled.npz").recipe["labels"]["mode"] == "static"
    assert result["baselines"]["random"]["n"] == 1
    assert "mode static" in (place / "report.html").read_text(encoding="utf-8")
    context = runs.context(keys, place)
    teacher, dset = context.teachers[0], context.load_set(0)
    said = labeller.compiled_answer((teacher.frozen,), "eval", "mean", False)
    variables = [jax.tree.map(jnp.asarray, teacher.variables())]
    random = baselines.random_sets(context, dset, 1)[0][0]
    for name, images in (("set", dset.images), ("random-0", random)):
        store = LabelStore.open(place / "labels" / name)
        found = store.read_images()["logits"]
        assert store.mode == "static" and store.read(0)[2] == {} and np.ptp(found, axis=0).max() > 0
        rows = labelling.order(0, 0, 6, 4)
        for again in (rows[1], rows[0]):  # two images come twice: the first answer counts
            logits = np.asarray(said(variables, jnp.asarray(images)[again]))
            np.testing.assert_allclose(found[again], logits, rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(found[again], logits.astype(np.float16))
    told = foretold(context)
    assert told.seconds > 0 and "mode static" in told.note and told.disk > 0
    with pytest.raises(BadInput, match="relabel.mode was static, now online"):
        runs.run({**keys, "relabel.mode": "online"}, place)


def test_a_cut_stage_goes_on_to_the_same_labels(static, tmp_path, monkeypatch):
    place, keys, _ = static
    again, plain = tmp_path / "again", LabelStore.write
    shutil.copytree(place, again)
    shutil.rmtree(again / "labels")

    def cut(store, epoch, *arrays):
        plain(store, epoch, *arrays)
        if epoch == 1:
            raise Interrupted("now")

    with monkeypatch.context() as patched:
        patched.setattr(LabelStore, "write", cut)
        with pytest.raises(Interrupted):
            runs.run(keys, again, "relabel")
    store = LabelStore.open(again / "labels/set")
    assert store.epochs() == 2 and store.has_images() and not store.has(4)
    whole = store.images_path.read_bytes()
    store.images_path.write_bytes(whole[:100])
    runs.run(keys, again)
    assert store.has(4) and store.images_path.read_bytes() == whole
    for name in ("set", "random-0"):
        ours, theirs = (LabelStore.open(p / "labels" / name) for p in (again, place))
        assert ours.digest() == theirs.digest()


@pytest.mark.slow
def test_online_teachers_say_what_would_have_been_stored(tiny, static, tmp_path):
    place, _, _ = static
    own = {"relabel.bn": "batch"}
    for mode in ("online", "views"):
        # The teachers lie beside the set; it is evaluated on one device here, elsewhere on two.
        shutil.copytree(place / "squeeze", tmp_path / mode / "squeeze")
    result = run(keys_of(tiny, "online", **own), tmp_path / "online")
    for stage in ("squeeze", "recover", "relabel"):
        run(keys_of(tiny, "views", **own), tmp_path / "views", stage)
    online, views = (
        LabelStore.open(tmp_path / mode / "labels/set") for mode in ("online", "views")
    )
    assert online.read(0)[2] == {} and online.read_images() == {}

    context = runs.context(keys_of(tiny, "online", **own), tmp_path / "online")
    dset = context.load_set(0)
    planned, reader = label_stores.label_reader(
        context, dset, train_eval.plan(dset), [online], dset.labels[None]
    )
    taught = jax.tree.map(lambda a: jnp.asarray(a[0]), reader.at([0], 0)) | reader.shared
    look = jax.jit(planned.recipe.distillation.view)
    for step in range(2):
        soft = look(jnp.asarray(dset.images), taught, step)[1]["soft"]
        wanted = views.read(0)[2]["logits"][step].astype(np.float32)
        np.testing.assert_allclose(soft, wanted, rtol=2.0**-10, atol=1e-3)
        assert np.ptp(wanted, axis=0).max() > 0.05
    assert "mode online" in foretold(context).note

    path, few = tmp_path / "online/distilled.npz", {"eval": {"n": 2}, "devices": 2}
    found = jdd.evaluate(path, tmp_path / "e", **few)["accuracy"]["ConvNetBN"]["values"]
    np.testing.assert_allclose(found, result["accuracy"]["ConvNetBN"]["values"], atol=0.07)
    teachers = tmp_path / "online/squeeze/ConvNetBN"
    shutil.move(teachers, tmp_path / "away")
    with pytest.raises(BadInput, match="teacher ConvNetBN: not in .*squeeze/ of its run"):
        jdd.evaluate(path, tmp_path / "f", **few)
    assert not (tmp_path / "f").exists()


@pytest.mark.slow
def test_maps_of_a_teacher_that_averages(tiny, tmp_path):
    keys = keys_of(tiny, "map", **{"squeeze.nets": "WRN16_2", "relabel.k": 2, "eval.n": 1})
    result = run(keys, tmp_path)
    assert 0 <= result["accuracy"]["ConvNetBN"]["mean"] <= 1
    context, store = runs.context(keys, tmp_path), LabelStore.open(tmp_path / "labels/set")
    teacher, dset = context.teachers[0], context.load_set(0)
    assert store.places == (2, 2) and store.read(0)[1]["rows"].shape == (2, 4, 2)
    rows = labelling.order(0, 0, 6, 4)[0]
    say = labeller.compiled_answer((teacher.frozen,), "eval", "mean", True)
    variables = [jax.tree.map(jnp.asarray, teacher.variables())]
    values, indices = maps.compress(say(variables, jnp.asarray(dset.images)[rows]), 2)
    each = store.read_images()
    np.testing.assert_array_equal(each["values"][rows], values)
    np.testing.assert_array_equal(each["indices"][rows], indices)
    assert "mode map, the 2 largest logits at each place" in (tmp_path / "report.html").read_text()
    assert "mode map, label maps of 2 x 2 places" in foretold(context).note


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({}, "config.relabel.mode: map, and the head of ConvNetBN .* static, or .*ResNet18BN, "),
        (
            {"squeeze.nets": "WRN16_2,ResNet18BN"},
            "maps differ: WRN16_2 2x2, ResNet18BN 1x1; maps of one size",
        ),
        ({"squeeze.nets": "WRN16_2", "relabel.k": 4}, "k of the label maps: 4; 1 to 3"),
        (
            {"squeeze.nets": "WRN16_2", "relabel.shuffle": 4},
            "config.relabel.shuffle: 4, and the label maps have 2x2 places",
        ),
        (
            {"squeeze.nets": "WRN16_2", "relabel.k": 2, "post.loss": "mse_gt"},
            "config.relabel.k: 2 with post.loss=mse_gt and label maps",
        ),
        (
            {"squeeze.nets": "WRN16_2", "relabel.k": 2, "relabel.randaugment": 2},
            "config.relabel.randaugment: 2 with relabel.mode=map",
        ),
        (
            {"relabel.mode": "views", "relabel.magnitude": 5},
            "config.relabel.magnitude: 5 with relabel.randaugment=0",
        ),
        ({"relabel.mode": "static", "relabel.form": "hard"}, "config.relabel.form: hard with rel"),
        ({"relabel.mode": "fkd"}, "config.relabel.mode: 'fkd'"),
    ],
)
def test_labels_that_cannot_be_made_are_refused_before_anything_is(tiny, tmp_path, wrong, match):
    with pytest.raises(BadInput, match=match):
        runs.run(keys_of(tiny, "map", **wrong), tmp_path / "x")
    assert not (tmp_path / "x").exists()
