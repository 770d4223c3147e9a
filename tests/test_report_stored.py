"""The report of sets whose views are labelled by teachers: squeezed, recovered, relabelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd.augment import views
from jdd.evaluation import train_eval
from jdd.nets import Net
from jdd.nets.base import Output
from jdd.product.distilled_set import DistilledSet, merge
from jdd.report import recipe, replay, training
from jdd.report.evidence import gather
from jdd.run import metrics
from jdd.run.result import headline
from jdd.soft_labels import objective
from jdd.soft_labels.store import LabelStore
from jdd.training import orders, schedules, trainer
from jdd.training.recipe import Recipe
from tests.test_compare import fabricate
from tests.test_report import RESULT, Page, _rows, _score, _write
from tests.tiny_distilled import make

TRAIN = {
    "optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01, "decay": "all", "batch": 4,
    "epochs": 2, "passes": 2, "drop": None, "loss": "kl", "temperature": 20.0, "ce_weight": 0.1,
    "schedule": {"kind": "cosine", "stretch": 1.0, "warmup": 0}, "order": "stored",
}  # fmt: skip
LABELS = {
    "kind": "stored", "store": "labels/set", "form": "logits", "k": 5, "teachers": ["ResNet18BN"],
}  # fmt: skip
SPEC = {"crop": "padded", "pad": 1, "flip": 0.5, "shuffle": 1, "mix": "cutmix", "alpha": 1.0}
SRE2L = {
    "method": "sre2l",
    "accuracy": {"ConvNet": _score(0.918)},
    "baselines": {
        "random": _score(0.958, 3) | {"net": "ConvNet"},
        "hard": _score(0.821) | {"net": "ConvNet"},
        "random_hard": _score(0.946, 3) | {"net": "ConvNet"},
        "full": None,
    },
    "teachers": {"ResNet18BN": 0.992},
    "published": None,
    "seconds": {"squeeze-ResNet18BN": 26.0, "relabel": 11.0, "evaluate": 64.0},
}
NAMES = ("zero", "one", "two")
THIN = " "


def stored(**train: Any) -> DistilledSet:
    dset = make(names=NAMES, dataset="digits", lr=None)
    said = {"method": "sre2l", "labels": LABELS, "train": TRAIN | train}
    return dset._replace(recipe=merge(dset.recipe, said))


def labelled(workdir: Path, spec: dict[str, Any], epochs: int = 2) -> LabelStore:
    """Write labels of views that show each of their parts at least once."""
    settings = {"classes": 3, "form": "logits", "view": spec, "bn": "batch", "combine": "mean"}
    store, draw = LabelStore(workdir / "labels/set", settings), np.random.default_rng(0)
    store.create()
    for epoch in range(epochs):
        steps, b, strips = 2, 4, int(spec["shuffle"])
        low = -spec["pad"] if spec["crop"] == "padded" else 0
        high = spec["pad"] if spec["crop"] == "padded" else 2
        place = draw.integers(low, high + 1, (steps, b, 2))
        size = np.full_like(place, 4) if spec["crop"] == "padded" else 4 - place
        order = [draw.permuted(np.tile(np.arange(strips), (steps, b, 1)), axis=2) for _ in "rc"]
        none = spec["mix"] != "cutmix"
        view = views.View(
            np.concatenate([place, size], 2),
            draw.random((steps, b)) < spec["flip"],
            np.zeros((steps, b, 2), int),
            np.tile(np.array([1, 0, 3, 2]), (steps, 1)),
            np.zeros((steps, b, 4), int) if none else np.tile([0, 2, 1, 3], (steps, b, 1)),
            np.full((steps, b), 0.7 if spec["mix"] == "mixup" else 1.0, np.float32),
            *order,
        )  # type: ignore[arg-type]
        index = np.resize(draw.permutation(6), (steps, b))
        store.write(epoch, index, views.pack(view), draw.normal(0, 5, (steps, b, 3)))
    return store


def recovered(suffix: str = "", steps: int = 100) -> list[dict[str, Any]]:
    return [
        {"stage": f"recover{suffix}-{part}", "step": step, "seconds": step / 10, "loss": 3 / step,
         "ce": 2 / step, "bn": 1 / step}
        for part in ("0-1", "2")
        for step in range(10, steps + 1, 10)
    ]  # fmt: skip


SQUEEZED = [
    {"stage": "squeeze-ResNet18BN", "step": i, "seconds": 1.0, "loss": 0.1, "epoch": i, "groups": 1}
    for i in (1, 2)
]


def test_the_page_tells_labels_and_images_apart(tmp_path: Path) -> None:
    labelled(tmp_path, SPEC, 1)
    rows = SQUEEZED + recovered() + [{"stage": "curve", "step": 100, "accuracy": 0.9, "n": 5}]
    page = _write(tmp_path, RESULT | SRE2L, rows, stored(), {"quantise": "jpeg"})
    for words in (
        "SRe2L · digits",
        f"the same net reaches 95.8{THIN}% on random images with the same labels",
        "−4.0",
        "points against random real images with the same labels",
        "Random real images, same labels 3 draws, ConvNet",
        f"This set, hard labels 5 nets, ConvNet 82.1{THIN}±{THIN}1.4{THIN}%",
        "Random real images, hard labels 3 draws, ConvNet",
        "the same teachers have labelled them in the same way",
        "nets learn the classes of what is in them, by their shares",
        f"Teachers ResNet18BN, 99.2{THIN}% on the test images",
        "adamw, weight decay 0.01 of all weights",
        "2 epochs in batches of 4, as they are stored; the rate falls by a cosine to 0",
        "KL divergence from the teachers' labels, both at temperature 20",
        "of every view, by the teacher ResNet18BN (batch norm by the batch's own statistics); "
        "mode views, form logits; folder labels/set",
        "as the stored views say: shifted crop (up to 1 px), mirrored with chance 0.5, cutmix",
        "as a JPEG of quality 75",
        "50 for each batch of images",
        "While recovering Images are recovered in 2 parts; drawn is the first one, image batches 0 "
        "and 1.",
        "Cross entropy of the teacher (ce)",
        "Batch-norm statistics (bn)",
        f"recover 20{THIN}s",
        f"2{THIN}min 01{THIN}s",
        "the folder labels/ has to stay next to the set",
        'e["label/logits"]',
    ):
        assert words in page.words, words
    assert page.count("svg") == 3
    assert "cross_entropy" not in page.words and "distilled with it" not in page.words
    order = [f"{stage} " for stage in ("squeeze-ResNet18BN", "recover", "relabel", "evaluate")]
    cost = page.words.partition(" Cost ")[2]
    assert sorted(order, key=cost.index) == order


def test_labels_that_are_not_there_and_hard_ones(tmp_path: Path) -> None:
    bare = RESULT | SRE2L | {"baselines": {"random": _score(0.9)}, "teachers": {}}
    config = {"relabel": {"crop": "resized", "min_scale": 0.25, "shuffle": 2, "mix": "none"}}
    page = _write(tmp_path, bare, (), stored(loss="hard", decay="matrices"), config)
    assert "The labels of the set's views are not here" in page.words
    assert "2 × 2 cells shuffled, resized crop of 25 to 100 %" in page.words
    assert "Teachers ResNet18BN Optimiser" in page.words
    assert "of matrices alone (no biases, no norms)" in page.words
    assert "same labels" not in page.words and "hard labels" not in page.words
    assert "import torch" not in page.words and "torch.optim" not in page.words


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"loss": "kl_squared", "temperature": 4.0}, "both at temperature T = 4, times T²"),
        ({"loss": "mse_gt", "ce_weight": 0.1}, "teachers' logits + 0.1 × cross entropy with the"),
        ({"schedule": {"kind": "cosine", "stretch": 2.0, "warmup": 5}},
         "5 epochs of linear warm-up, then the rate falls by a cosine to half of it"),
        ({"optimizer": "sgd", "momentum": 0.9}, "sgd, momentum 0.9, weight decay 0.01 Learning"),
        ({"parts": 2}, "in 2 parts of which batch norm sees one at a time"),
        ({"norm_updates": 2}, "running statistics move 2 times a step"),
        ({"ema": 0.99}, "tested is the average of the weights, a ← 0.99 a + 0.01 w after every"),
        ({"schedule": {"kind": "multistep", "milestones": [800, 900.0], "gamma": 0.5}},
         "; the rate is multiplied by 0.5 from epochs 800 and 900 on"),
    ],
)  # fmt: skip
def test_the_recipe_in_words(tmp_path: Path, train: dict[str, Any], says: str) -> None:
    stored(**train).save(tmp_path / "distilled.npz")
    rows = recipe.table(gather(tmp_path))
    assert says in " ".join(word for row in rows for word in row)


@pytest.mark.parametrize(
    ("spec", "train"),
    [
        ({}, {"optimizer": "adamw", "decay": "matrices", "loss": "kl"}),
        ({"crop": "resized", "mix": "mixup"}, {"optimizer": "sgd", "loss": "mse_gt"}),
        ({"mix": "mixup"}, {"optimizer": "sgd", "loss": "mse_gt", "parts": 2}),
        ({}, {"loss": "kl", "parts": 2}),
        ({"crop": "resized", "shuffle": 2}, {"loss": "kl_squared",
         "schedule": {"kind": "cosine", "stretch": 2.0, "warmup": 1}}),
    ],
)  # fmt: skip
def test_the_code_replays_what_jdd_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], train: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    dset, store = stored(lr=1e-9, **train), labelled(tmp_path, SPEC | spec)
    dset.save(tmp_path / "distilled.npz")
    monkeypatch.chdir(tmp_path)
    evidence = gather(tmp_path)
    names: dict[str, Any] = {}
    exec(replay.numpy(evidence), names)
    assert names["z_teacher"].shape == (2, 4, 3) and names["box"].shape == (2, 4, 4)
    names["e"].close()
    names["net"] = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    exec(str(replay.torch(evidence)), names)
    names["z"].close()
    said = dset.recipe["train"]
    distillation = objective.DistillationLoss("logits", 3, Recipe.from_json(said))
    index, view, soft = store.read(1)
    labels = {"first": 0, "classes": jnp.asarray(dset.labels), "index": index, "views": view}
    x, target = distillation.view(jnp.asarray(dset.images), labels | {"soft": soft}, 1)
    np.testing.assert_allclose(np.moveaxis(names["v"].numpy(), 1, 3), x, atol=1e-5)
    with torch.no_grad():  # the rate is next to nothing: the net is as it was
        logits = names["net"](names["v"]).numpy()
    last = slice(-4 // said.get("parts", 1), None)  # its loss is what is left in ``loss``
    target = {name: value[last] for name, value in target.items()}
    wanted = float(distillation.loss(jnp.asarray(logits[last]), target))
    assert names["loss"].item() == pytest.approx(wanted, rel=1e-4)
    rates = [names["rate"](epoch) for epoch in range(2)]
    np.testing.assert_allclose(
        rates, schedules.from_json(said["schedule"]).rates(1.0, 2), rtol=1e-6
    )
    decays = [group["weight_decay"] for group in names["opt"].param_groups]
    assert decays == ([0.01, 0] if said["decay"] == "matrices" else [0.01])


@pytest.mark.parametrize("parts", [1, 2])
def test_the_code_trains_the_weights_that_jdd_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    """Two epochs of a linear net with every new option: the averaged weights are the same."""
    torch = pytest.importorskip("torch")
    schedule = {"kind": "multistep", "milestones": [1.0], "gamma": 0.1}
    more = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.5, "temperature": 2.0, "parts": parts}
    dset = stored(ema=0.7, **more)
    dset = dset._replace(recipe=dset.recipe | {"train": dset.recipe["train"] | {
        "schedule": schedule}})  # fmt: skip
    store = labelled(tmp_path, SPEC)
    dset.save(tmp_path / "distilled.npz")
    monkeypatch.chdir(tmp_path)
    linear = torch.nn.Linear(48, 3)
    w, b = (p.detach().numpy().copy() for p in linear.parameters())
    names: dict[str, Any] = {"net": torch.nn.Sequential(torch.nn.Flatten(), linear)}
    exec(str(replay.torch(gather(tmp_path))), names)
    names["z"].close()

    def apply(variables: Any, x: Any, train: bool = False, taps: Any = False) -> Output:
        flat = jnp.moveaxis(x, 3, 1).reshape(len(x), -1)
        logits = flat @ variables["params"]["w"].T + variables["params"]["b"][None]
        return Output(logits, flat, {}, {"logits": logits} if taps else {})

    net = Net("linear", lambda key: {"params": {"w": jnp.asarray(w), "b": jnp.asarray(b)}}, apply,
              (4, 4, 3))  # fmt: skip
    planned = train_eval.plan(DistilledSet.load(tmp_path / "distilled.npz"))
    run = trainer.make(net, planned.recipe, len(dset.images))
    carry, keys = run.init(jax.random.key(0)), orders.Keys(jax.random.key(1), jax.random.key(2))
    advance, images, rates = jax.jit(run.advance), jnp.asarray(dset.images), jnp.asarray(planned.lr)
    np.testing.assert_allclose(planned.lr, [0.5, 0.5, 0.05, 0.05], rtol=1e-12)
    for epoch in range(2):
        index, view, soft = store.read(epoch)
        labels = {"first": 2 * epoch, "classes": jnp.asarray(dset.labels), "index": index,
                  "views": view, "soft": soft}  # fmt: skip
        labels, lo = jax.tree.map(jnp.asarray, labels), 2 * epoch
        carry, _ = advance(carry, keys, images, labels, rates, lo, lo + 2)
    tested = trainer.evaluated(carry)["params"]
    assert float(np.abs(tested["w"] - w).max()) > 1e-3
    last = carry["variables"]["params"]["w"]
    assert float(np.abs(tested["w"] - last).max()) > 1e-4
    for ours, theirs in zip((tested["w"], tested["b"]), linear.parameters(), strict=True):
        np.testing.assert_allclose(theirs.detach().numpy(), ours, rtol=1e-4, atol=1e-5)


def test_only_what_is_known_becomes_code(tmp_path: Path) -> None:
    labelled(tmp_path, SPEC, 1)
    odd = ({"optimizer": "lion"}, {"schedule": None}, {"norm_updates": 2})
    for train in ({"loss": "hard"}, {"steps": 7}, *odd):
        stored(**train).save(tmp_path / "distilled.npz")
        assert replay.torch(gather(tmp_path)) is None
    dset = stored()
    short = merge(dset.recipe, {"labels": {"form": "topk_marginal"}})
    dset._replace(recipe=short).save(tmp_path / "distilled.npz")
    evidence = gather(tmp_path)
    assert replay.torch(evidence) is None and 'e["label/values"]' in replay.numpy(evidence)
    assert "form topk_marginal, k = 5" in recipe.labels(evidence)


def test_seconds_of_parts(tmp_path: Path) -> None:
    found = metrics.Metrics(tmp_path)
    for stage in ("recover-0-1", "recover-2", "recover-s1-0-1", "squeeze-ResNet18BN"):
        found.start(stage)
        found._started[stage] -= 100.0
        found.log(stage, 1)
        found.stop(stage)
    assert found.total("recover") == pytest.approx(200.0, abs=5)
    for stage in ("recover-s1", "recover-0-1", "squeeze-ResNet18BN"):
        assert found.total(stage) == pytest.approx(100.0, abs=5)
    found.close()
    again = metrics.Metrics(tmp_path)
    assert again.total("recover") == pytest.approx(200.0, abs=5)
    again.close()


def test_seeds_have_a_line_each_and_stages_stand_together(tmp_path: Path) -> None:
    rows = recovered() + recovered("-s4")
    page = _write(tmp_path, RESULT | SRE2L, rows, stored())
    assert "the first one of each seed" in page.words and "seed 4" in page.words
    evidence = gather(tmp_path)
    assert training.stage_seconds(evidence) == {
        "squeeze": 26.0, "recover": 40.0, "relabel": 11.0, "evaluate": 64.0,
    }  # fmt: skip
    told = evidence._replace(result=evidence.result | {"seconds": {"recover": 7.0}})
    assert training.seconds_of(told) == {"recover": 7.0, "recover-s4": 20.0}


def test_beside_other_runs(tmp_path: Path) -> None:
    fabricate(tmp_path / "a", {"ConvNet": _score(0.9)})
    said = {"method": "sre2l", "labels": LABELS, "train": TRAIN}
    fabricate(tmp_path / "b", {"ConvNet": _score(0.918)}, said, **{
        name: value for name, value in SRE2L.items() if name != "accuracy"
    })  # fmt: skip
    labelled(tmp_path / "b", SPEC, 1)
    (tmp_path / "b/metrics.jsonl").write_text("\n".join(map(json.dumps, recovered())))
    fabricate(tmp_path / "c", None, config={"method": "sre2l", "steps": 300})
    (tmp_path / "c/metrics.jsonl").write_text("\n".join(map(json.dumps, recovered())))
    found = jdd.compare(f"{tmp_path}/a,{tmp_path}/b,{tmp_path}/c", tmp_path / "page.html")
    (group,) = found["groups"]
    ours, other = group["runs"]
    own = "of every view, by the teacher ResNet18BN (batch norm by the batch's own statistics)"
    assert group["differs"]["labels"] == {f"{own}; mode views, form logits": ["b"], "hard": ["a"]}
    assert {"loss", "augmentation", "training", "optimiser"} <= set(group["differs"])
    assert ours["baselines"]["random_hard"]["mean"] == 0.946
    assert set(other["baselines"]) == {"random", "full"} and other["teachers"] == {}
    assert ours["teachers"] == {"ResNet18BN": 0.992} and ours["seconds"]["recover"] == 20.0
    assert found["unfinished"][0]["reached"] == "step 100 of 300 in part 2"
    same = "In b the set and the random images have labels by the same teachers."
    page = Page((tmp_path / "page.html").read_text())
    assert same in page.words and same in found["summary"]
    assert "SRe2L comes first" in page.words and " recover " in page.words
    rows = [line.split() for line in found["summary"].splitlines()]
    assert ["b", "SRe2L"] in [row[:2] for row in rows]


def test_the_last_line_of_a_run() -> None:
    result = RESULT | SRE2L | {"objective": {"kind": "distill"}}
    line = headline(result, Path("x"))
    assert line.startswith("SRe2L on digits, 2 images per class: ConvNet 91.8 ± 1.4 % (n=5)")
    assert (
        "against random real images with the same teachers' labels 95.8 ± 1.4 % (ConvNet); " in line
    )
    assert "with hard labels 82.1 ± 1.4 % (random real images 94.6 ± 1.4 %). Report: " in line
    other = headline(RESULT | {"objective": None, "method": "frepo"}, Path("x"))
    assert other.startswith("FRePo on") and "against random real images 70.4" in other


def test_every_method_has_a_title() -> None:
    from jdd.methods import METHODS
    from jdd.specs import title

    assert len(METHODS) >= 21 and title("theirs") == "theirs" and title("") == ""
    written = {name: title(name).lower().replace(" of", "").replace("-", "") for name in METHODS}
    assert all(name == words.replace(" ", "_") for name, words in written.items())
    assert [title(name) for name in ("sre2l", "ratbptt", "kcenter")] == [
        "SRe2L", "RaT-BPTT", "K-center",
    ]  # fmt: skip
    assert {metrics.stage_of_part(str(row["stage"])) for row in _rows("-s4")} == {
        "distill-s4",
        "curve-s4",
    }
