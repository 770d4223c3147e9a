"""Squeeze, recover, relabel, post-train: whole runs on the tiny problem, and what they rest on."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd import config, nets, rng
from jdd.augment import views
from jdd.data.quantise import quantised
from jdd.data.transform import Transform
from jdd.errors import BadInput, Interrupted
from jdd.evaluation import train_eval
from jdd.methods import decoupled, rded
from jdd.pretrained import patch_selection
from jdd.product.distilled_set import DistilledSet
from jdd.run import loop, metrics
from jdd.soft_labels import teacher as labeller
from jdd.soft_labels.store import LabelStore
from jdd.stages import labelling
from jdd.training import orders, trainer
from tests import runs

OWN = {
    "ipc": 2, "steps": 4, "net.name": "ConvNetBN", "nets": "ConvNetBN", "squeeze.nets": "ConvNetBN",
    "squeeze.width": 4, "squeeze.epochs": 3, "squeeze.batch": 16, "squeeze.lr": 0.05,
    "roll": 1, "image_batch": 3, "batches_at_once": 1, "lr_img": 0.1, "eval.epochs": 4,
    "eval.batch": 4, "eval.lr": 0.01, "eval.curve": 0, "quantise": "round", "baselines.full": False,
    "relabel.bn": "eval", "relabel.mix": "cutmix",
}  # fmt: skip


def keys_of(tiny, method, **more):
    schema = config.schema(method)
    return {k: v for k, v in {**tiny, **OWN, "method": method, **more}.items() if k in schema}


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("sre2l")
    keys = keys_of(tiny, "sre2l")
    return place, keys, runs.run(keys, place)


def test_a_run_leaves_teachers_images_labels_and_its_baselines(done):
    place, keys, result = done
    dset = DistilledSet.load(place / "distilled.npz")
    assert dset.images.shape == (6, 8, 8, 3) and dset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    pixels = 255 * dset.transform.inverse(dset.images)
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-3)  # 8-bit before labelling
    assert pixels.min() > -1e-3 and pixels.max() < 255.001
    assert {p.name for p in (place / "labels").iterdir()} == {"set", "random-0", "random-1"}
    assert 0 <= result["teachers"]["ConvNetBN"] <= 1
    beside = result["baselines"]
    assert [beside[k]["n"] for k in ("random", "hard", "random_hard")] == [2, 2, 2]
    assert {"squeeze-ConvNetBN", "recover", "relabel", "evaluate"} <= set(result["seconds"])
    lines = [row for row in metrics.read(place / "metrics.jsonl") if row["stage"] == "evaluate"]
    assert all(0 <= row["stall"] <= 1 for row in lines)  # waited for stored labels
    assert "% waiting for input" in (place / "report.html").read_text()
    parts = {p.name for p in (place / "checkpoints/recover-parts").glob("[!.]*")}
    assert parts == {"0.npy", "1.npy"}  # two batches of one image of each class
    assert not list((place / "checkpoints").glob("recover-[0-9]*"))


def test_a_lost_piece_is_made_again_to_the_same_bits(done, tmp_path):
    place, keys, result = done
    whole = (place / "distilled.npz").read_bytes()
    for lost in ("checkpoints/recover-parts/1.npy", "labels/set/e0002.npz", "labels/random-1"):
        again = tmp_path / lost.replace("/", "_")
        shutil.copytree(place, again)
        path = again / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if "parts" in lost:
            (again / "distilled.npz").unlink()
        runs.run(keys, again)
        assert (again / "distilled.npz").read_bytes() == whole
        for name in ("set", "random-1"):
            a, b = (LabelStore.open(p / "labels" / name) for p in (place, again))
            assert a.digest() == b.digest()


def test_parts_of_one_form_are_compiled_once(done, tmp_path, monkeypatch):
    place, keys, _ = done
    shutil.copytree(place / "squeeze", tmp_path / "squeeze")
    made, whole = [], loop.make_step

    def make_step(method, seed, devices):
        made.append(whole(method, seed, devices))
        return made[-1]

    monkeypatch.setattr(loop, "make_step", make_step)
    cut = {**keys, "ipc": 3, "image_batch": 2, "squeeze.dir": str(tmp_path / "squeeze")}
    for stage in ("squeeze", "recover"):
        runs.run(cut, tmp_path / "run", stage)
    parts = list((tmp_path / "run/checkpoints/recover-parts").glob("[!.]*"))
    # Each of 3 images of two classes and of one class: six parts of two forms.
    assert len(parts) == 6 and len(made) == 2
    assert [gradient.programs for gradient, _ in made] == [1, 1]


def test_batches_at_once_change_nothing_but_rounding(done, tmp_path):
    place, keys, _ = done
    shutil.copytree(place / "squeeze", tmp_path / "squeeze")
    two = {**keys, "batches_at_once": 2, "squeeze.dir": str(tmp_path / "squeeze")}
    runs.run(two, tmp_path / "run", "squeeze")
    runs.run(two, tmp_path / "run", "recover")
    ours, theirs = (
        DistilledSet.load(p / "distilled.npz").images for p in (tmp_path / "run", place)
    )
    # The set is 8-bit: where the float lies at a half, a rounding error is one level.
    level = 1.01 / 255 / np.asarray(DistilledSet.load(place / "distilled.npz").transform.std).min()
    assert np.mean(ours == theirs) > 0.9 and np.abs(ours - theirs).max() <= level


def test_stored_views_are_shown_again_to_the_bit_with_the_teachers_labels(done):
    place, keys, _ = done
    context = runs.context(keys, place)
    dset, store = context.load_set(0), LabelStore.open(place / "labels/set")
    teacher = context.teachers[0]
    draw = labeller.drawer(decoupled.spec(context.config, context.data.shape), 4, (8, 8))
    seen = set()
    for epoch in range(4):
        index, stored, labels = store.read(epoch)
        assert index.shape == (2, 4) and set(index.ravel().tolist()) == set(range(6))
        np.testing.assert_array_equal(index, labelling.order(0, epoch, 6, 4))
        for step in range(2):
            first = draw(rng.key(0, "relabel/view", epoch * 2 + step))
            view = views.unpack({name: a[step] for name, a in stored.items()})
            x = labeller.show(jnp.asarray(dset.images), index[step], first)
            again = labeller.show(jnp.asarray(dset.images), index[step], view)
            np.testing.assert_array_equal(x, again)
            seen.add(np.asarray(x).tobytes())
            said = labeller.compiled_answer((teacher.frozen,), "eval")(
                (teacher.variables(),), again
            )
            np.testing.assert_array_equal(labels["logits"][step], np.asarray(said, np.float16))
    assert len(seen) == 8


def test_a_moved_set_is_evaluated_with_the_labels_beside_it(done, tmp_path):
    place, keys, result = done
    found = jdd.evaluate(place / "distilled.npz", tmp_path / "e", eval={"n": 2})
    ours = result["accuracy"]["ConvNetBN"]["values"]
    np.testing.assert_array_equal(found["accuracy"]["ConvNetBN"]["values"], ours)
    # The random images' labels lie beside the set too.
    random = result["baselines"]["random"]["values"]
    np.testing.assert_array_equal(found["baselines"]["random"]["values"], random)
    shutil.copy(place / "distilled.npz", tmp_path)
    with pytest.raises(BadInput, match="folder labels/ of its run, next to the set"):
        jdd.evaluate(tmp_path / "distilled.npz", tmp_path / "f", eval={"n": 2})
    shutil.copytree(place / "labels", tmp_path / "labels")
    few = {"n": 1, "epochs": 2}
    assert jdd.evaluate(tmp_path / "distilled.npz", tmp_path / "g", eval=few)["accuracy"]
    with pytest.raises(BadInput, match="its path: labels/ lies next to it"):
        jdd.evaluate(jdd.load(tmp_path / "distilled.npz"))
    with pytest.raises(BadInput, match="config.scores: true, of a set of stored labels"):
        jdd.evaluate(tmp_path / "distilled.npz", tmp_path / "h", scores=True, eval=few)
    with pytest.raises(BadInput, match="labels/random-2"):
        jdd.evaluate(tmp_path / "distilled.npz", tmp_path / "h", baselines={"random": 3})
    with pytest.raises(BadInput, match="a set of stored labels"):
        jdd.export(tmp_path / "distilled.npz", tmp_path / "dd", "ddranking")
    for wrong, match in (({"epochs": 9}, "4 epochs of labels"), ({"batch": 2}, "are stored")):
        with pytest.raises(BadInput, match=match):
            jdd.evaluate(tmp_path / "distilled.npz", tmp_path / "h", eval={"n": 1, **wrong})


@pytest.mark.parametrize("method", ["sre2l", pytest.param("rded", marks=pytest.mark.slow)])
def test_costs_are_foretold_and_nothing_is_written(tiny, tmp_path, method, capsys):
    own = {"steps": 0} if method == "rded" else {"pix_init": "patch"}
    found = runs.run(keys_of(tiny, method, **own), tmp_path / method, "estimate")
    assert "300 crops, " in capsys.readouterr().out  # 5 of each of 60 images
    assert all(found[stage]["seconds"] > 0 for stage in ("squeeze", "relabel", "evaluate"))
    assert found["recover"]["seconds"] > 0 and not (tmp_path / method).exists()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_teacher_goes_on_from_its_last_epoch_to_the_same_bits(
    done, tmp_path, tmp_path_factory, monkeypatch, optimizer
):
    place, keys, _ = done
    by_adam = {"squeeze.optimizer": "adam", "squeeze.lr": 0.01}
    if optimizer == "adam":  # another teacher, and its word is in what it was made with
        place, keys = tmp_path_factory.mktemp("adam"), {**keys, **by_adam}
        runs.run(keys, place, "squeeze")
    whole = runs.context(keys, place).teachers[0]
    assert whole.settings.get("optimizer", "sgd") == whole.recipe.optimizer == optimizer
    seen = runs.interrupt_after_epoch(monkeypatch, 2)
    with pytest.raises(Interrupted):
        runs.run(keys, tmp_path, "squeeze")
    before = len(seen)
    runs.run(keys, tmp_path, "squeeze")
    assert seen[before:] == [(3, "optimizer"), (3, "variables")]  # the third epoch alone
    again = runs.context(keys, tmp_path).teachers[0]
    jax.tree.map(np.testing.assert_array_equal, whole.variables(), again.variables())
    folders = {p.name for p in (tmp_path / "squeeze/ConvNetBN/g0000").iterdir()}
    assert folders == {"e0003", "state0003"}


@pytest.mark.slow
def test_two_seeds_have_labels_of_their_own_and_two_teachers_of_one_kind_are_two(tiny, tmp_path):
    nets = "ConvNetBN:4,ConvNetBN:5"
    own = {"runs": 2, "squeeze.nets": nets, "baselines.random": 1, "relabel.combine": "equal_norm"}
    result = runs.run(keys_of(tiny, "sre2l", **own), tmp_path)
    assert set(result["teachers"]) == {"ConvNetBN:4", "ConvNetBN:5"}
    assert set(result["accuracy"]["ConvNetBN"]["seeds"]) == {"0", "1"}
    names = {p.name for p in (tmp_path / "labels").iterdir()}
    assert names == {"set", "set-s1", "random-0"}
    for suffix in ("", "-s1"):
        dset = DistilledSet.load(tmp_path / f"distilled{suffix}.npz")
        assert dset.recipe["labels"]["store"] == f"labels/set{suffix}"
        assert dset.recipe["labels"]["teachers"] == ["ConvNetBN:4", "ConvNetBN:5"]
    made = LabelStore.open(tmp_path / "labels/set").settings["teachers"]
    assert len({teacher["weights"] for teacher in made} - {""}) == 2


@pytest.mark.slow
def test_students_may_learn_from_halves_of_a_step(done):
    """Its gradient is the mean over halves; batch norm sees one at a time, and moves with each."""
    place, keys, _ = done
    plain = {"parts": 2, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    dset = DistilledSet.load(place / "distilled.npz")
    dset = dset._replace(recipe=dset.recipe | {"train": dset.recipe["train"] | plain})
    planned, store = train_eval.plan(dset), LabelStore.open(place / "labels/set")
    index, shown, soft = store.read(0)
    labels = {"first": 0, "index": index, "views": shown, "soft": soft, "classes": dset.labels}
    labels = jax.tree.map(jnp.asarray, labels | {"each": store.read_images()})
    images = jnp.asarray(dset.images)
    net = nets.make("ConvNetBN", (8, 8, 3), 3, width=4)
    carry = trainer.make(net, planned.recipe, 6).init(rng.key(0, "net"))
    both = orders.Keys(rng.key(0, "own"), rng.key(0, "ops"))
    lr = jnp.asarray(planned.lr)
    after, loss = trainer.make(net, planned.recipe, 6).advance(
        carry, both, images, labels, lr, 0, 1
    )
    x, target = planned.recipe.distillation.view(images, labels, 0)

    def half(params, stats, lo):
        out = net.apply({"params": params, "batch_stats": stats}, x[lo : lo + 2], train=True)
        own = jax.tree.map(lambda a: a[lo : lo + 2], target)
        return planned.recipe.distillation.loss(out.logits, own), out.stats

    params, stats, each = *(carry["variables"][k] for k in ("params", "batch_stats")), []
    for lo in (0, 2):
        (value, stats), slope = jax.value_and_grad(half, has_aux=True)(params, stats, lo)
        each.append((value, slope))
    value, grads = jax.tree.map(lambda a, b: (a + b) / 2, *each)
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    wanted = jax.tree.map(lambda w, g: w - lr[0] * g, params, grads), stats
    found = after["variables"]["params"], after["variables"]["batch_stats"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, wanted)


def test_images_of_other_data_are_not_taken_for_this_run_s(done, tiny, toy, tmp_path, monkeypatch):
    place, keys, _ = done
    monkeypatch.setattr("jdd.stages.squeeze.right", lambda *a: 0.9)  # inverted images teach badly
    again = tmp_path / "again"
    shutil.copytree(place, again)
    arrays = dict(np.load(toy))
    np.savez(tmp_path / "other.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    moved = {**keys, "data.path": str(tmp_path / "other.npz")}
    with pytest.raises(BadInput, match="another --config.squeeze.dir"):
        runs.run(moved, again)
    for stale in ("squeeze", "labels"):
        shutil.rmtree(again / stale)
    runs.run(moved, again)
    ours, theirs = (DistilledSet.load(p / "distilled.npz") for p in (again, place))
    assert not np.array_equal(ours.images, theirs.images)


def test_labels_of_a_poor_teacher_are_refused(tiny, tmp_path, monkeypatch):
    keys = keys_of(tiny, "sre2l", **{"squeeze.epochs": 1, "steps": 1})
    monkeypatch.setattr("jdd.stages.squeeze.right", lambda *a: 0.34)
    with pytest.raises(BadInput, match="teacher ConvNetBN: 34.0 % right"):
        runs.run(keys, tmp_path)


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"data.zca": "kornia"}, "config.data.zca: kornia"),
        ({"eval.curve": 2}, "config.eval.curve: 2, and the labels come after"),
        ({"post.accumulate": 3}, "config.post.accumulate: 3 parts of a step of 4 images"),
        ({"scores": True}, "config.scores: true with method=sre2l"),
        ({"squeeze.augment": "pad_rrc"}, "pad or rrc"),
        ({"eval.steps": 3}, "config.eval.steps: 3, and the views of whole epochs"),
        (
            {"post.loss": "mse_gt", "relabel.form": "hard"},
            "config.relabel.form: hard with post.loss",
        ),
        ({"relabel.form": "topk_marginal", "relabel.k": 4}, "k of the labels' form.*: 4"),
        ({"relabel.shuffle": 3}, "a number that divides height and width"),
        ({"squeeze.nets": "ResNet19"}, "config.squeeze.nets.*ResNet18"),
        ({"squeeze.nets": "ConvNetBN:wide"}, "NET, NET:WIDTH"),
        ({"squeeze.nets": "LeNet:8", "data.size": 32}, "LeNet takes"),
        ({"relabel.crop": "resized", "relabel.min_scale": 0}, "config.relabel.min_scale"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(tiny, tmp_path, wrong, match):
    with pytest.raises(BadInput, match=match):
        runs.run(keys_of(tiny, "sre2l", **wrong), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_quantised_is_what_a_file_holds():
    transform = Transform(np.float32([0.4]), np.float32([0.2]))
    pixels = np.linspace(-0.1, 1.1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    x = transform.forward(pixels)
    held = 255 * np.clip(pixels, 0, 1)
    for how, wanted in (("round", np.round(held)), ("truncate", np.floor(held))):
        found = 255 * transform.inverse(quantised(x, transform, how))
        np.testing.assert_allclose(found, wanted, atol=1.001 if how == "truncate" else 1e-3)
        assert np.mean(np.abs(found - wanted) < 1e-3) > 0.9
    np.testing.assert_array_equal(quantised(x, transform, "none"), x)
    coded = 255 * transform.inverse(quantised(x, transform, "jpeg"))
    assert 0 < np.abs(coded - np.floor(held)).max() < 40
    colour = Transform(np.zeros(3, np.float32), np.ones(3, np.float32))
    assert quantised(np.zeros((2, 8, 8, 3), np.float32), colour, "jpeg").shape == (2, 8, 8, 3)
    with pytest.raises(BadInput, match="config.quantise"):
        quantised(x, transform, "png")


def test_tiles_have_the_best_crops_in_their_first_cells():
    cells = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1) * np.ones((8, 2, 3, 1), np.float32)
    found = rded.tiles(cells, 2, 2)
    assert found.shape == (2, 4, 6, 1)
    for i in range(2):
        corners = found[i, ::2, ::3, 0]
        np.testing.assert_array_equal(corners, [[i, 2 + i], [4 + i, 6 + i]])
    np.testing.assert_array_equal(rded.tiles(cells[:3], 3, 1), cells[:3])
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(patch_selection.shrunk(x, 2)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])


def test_rded_takes_the_crops_its_teacher_finds_most_real(tiny, tmp_path):
    keys = keys_of(
        tiny, "rded", steps=0, factor=2, candidates=20, crops=3, min_scale=0.3, quantise="none",
        ref_bugs=True,
        **{"squeeze.epochs": 20, "squeeze.lr": 0.1, "squeeze.width": 8},
        **{"baselines.random": 0, "baselines.hard": False},
    )  # fmt: skip
    result = runs.run(keys, tmp_path)
    context = runs.context(keys, tmp_path)
    dset = DistilledSet.load(tmp_path / "distilled.npz")
    assert result["method"] == "rded" and dset.images.shape == (6, 8, 8, 3)
    # ref_bugs is in the recipe, and so in any evaluation of the set.
    assert dset.recipe["train"]["norm_updates"] == train_eval.plan(dset).recipe.norm_updates == 2
    assert LabelStore.open(tmp_path / "labels/set").read(0)[1]["rows"].shape == (2, 4, 2)
    teacher = context.teachers[0]

    def scores(cells, label):
        padded = np.zeros((len(cells), 8, 8, 3), np.float32)
        padded[:, 2:6, 2:6] = cells
        logits = np.asarray(teacher.net.apply(teacher.variables(), padded).logits, np.float64)
        return np.log(np.exp(logits).sum(1)) - logits[:, label]

    draw, ours, theirs = np.random.default_rng(0), [], []
    for c in range(3):
        own = dset.images[dset.labels == c]
        cells = np.stack([image[r : r + 4, k : k + 4]
                          for r in (0, 4) for k in (0, 4) for image in own])  # fmt: skip
        chosen = scores(cells, c)
        assert (np.diff(chosen) > -1e-4).all()  # the best first, cell by cell
        rows = np.flatnonzero(context.data.train.labels == c)
        any_crops = []
        for row in draw.choice(rows, 12):
            r, k = draw.integers(0, 4, 2)
            any_crops.append(context.data.train.images[row, r : r + 4, k : k + 4])
        ours.append(np.median(chosen))
        theirs.append(np.median(scores(np.stack(any_crops), c)))
    assert np.mean(ours) < np.mean(theirs)
    with pytest.raises(BadInput, match="config.steps: 3 with method=rded"):
        runs.run({**keys, "steps": 3}, tmp_path / "y")


def test_the_recipe_says_how_students_learn(done):
    place, keys, _ = done
    recipe = json.loads(json.dumps(DistilledSet.load(place / "distilled.npz").recipe))
    train = recipe["train"]
    assert (train["optimizer"], train["order"], train["loss"]) == ("adamw", "stored", "kl")
    assert (train["epochs"], train["passes"], train["temperature"]) == (4, 4, 30.0)
    assert not {"norm_updates", "parts"} & set(train)  # named only where they are used
    assert train_eval.plan(DistilledSet.load(place / "distilled.npz")).recipe.norm_updates == 1
    assert recipe["labels"]["store"] == "labels/set" and recipe["augment"]["name"] == "none"
