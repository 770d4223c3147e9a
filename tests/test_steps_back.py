"""Steps back: a diverged run of data without settings goes on from an earlier state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdd
from jdd import config as configs
from jdd import methods
from jdd.config import fitting
from jdd.errors import BadInput, Diverged, Interrupted
from jdd.methods.base import Method, Problem, State
from jdd.product.distilled_set import DistilledSet
from jdd.product.pairs import PairSet
from jdd.run import loop, milestones, pipeline, session
from jdd.run.divergence import Cause
from jdd.run.metrics import read
from jdd.run.milestones import Milestones
from jdd.schema.common import Common
from jdd.stages import phases, steps_back
from jdd.storage import checkpoints
from tests.methods.test_pair_methods import TINY
from tests.pins import cases
from tests.test_report import Page

RATE, STEPS = 90.0, 14
KEYS: dict[str, Any] = {
    "net.width": 4, "net.depth": 1, "data.dsa": "none", "batch_real": 6, "steps": STEPS,
    "lr_img": RATE, "pix_init": "real", "eval.epochs": 1, "eval.n": 1, "eval.curve": 0,
    "baselines.random": 0, "baselines.full": False, "devices": 1, "checkpoint_every": 3,
    "log_every": 1, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.npz"
    cases.toy(path)
    return path


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milestones from step 2 on, so that a run of few steps has some."""
    monkeypatch.setattr(milestones, "FIRST", 2)


def bounded(monkeypatch: pytest.MonkeyPatch, most: float) -> None:
    """Have methods refuse images with a value of ``most`` or more, which takes some steps."""
    make = methods.make

    def made(config: Common, problem: Problem) -> Method:
        method = make(config, problem)
        return method._replace(valid=lambda s: jnp.max(jnp.abs(s.variables["images"])) < most)

    monkeypatch.setattr(methods, "make", made)


def run(toy: Path, place: Path, mode: str = "distill", spec: str = "dm:toy", **more: Any) -> Any:
    keys = KEYS | {"data.path": str(toy)} | more
    return pipeline.run(configs.load(spec, keys), str(place), mode, command="test")


def folder(place: Path) -> Path:
    return place / "checkpoints" / "distill-milestones"


def taken(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder(place) / "steps_back.json").read_text())[
        "taken"
    ]
    return found


MOST = 115.0  # at RATE it is reached in step 5, 6 or 7, at a third of it never
BACK = 2


@pytest.fixture(scope="module")
def rescued(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a whole run that stepped back once, and its result."""
    place = tmp_path_factory.mktemp("rescued")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(milestones, "FIRST", 2)
        bounded(patch, MOST)
        return place, run(toy, place, "all")


def test_a_run_goes_on_from_the_milestone_at_a_third_of_the_rate(
    rescued: tuple[Path, dict[str, Any]], toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, result = rescued
    (found,) = taken(place)
    assert 2 * BACK < found["step"] < 4 * BACK and found["to"] == BACK
    assert found["rates"] == {"lr_img": [RATE, RATE / 3]}
    made = DistilledSet.load(place / "distilled.npz")
    assert made.recipe["steps"] == STEPS and "diverged" not in made.recipe
    assert made.recipe["steps_back"] == {"rates": {"lr_img": RATE / 3}, "taken": [found]}
    assert result["steps_back"] == {"0": made.recipe["steps_back"]}
    assert json.loads((place / "config.json").read_text())["lr_img"] == RATE

    rows = read(place / "metrics.jsonl")
    steps = [row["step"] for row in rows if row["stage"] == "distill"]
    assert steps == list(range(1, STEPS + 1)) and not any(row.get("diverged") for row in rows)
    (line,) = [row for row in rows if row["stage"] == "steps_back"]
    assert (line["diverged_at"], line["to"], line["lr_img"]) == (found["step"], BACK, RATE / 3)
    words = f"went back to step {BACK} with lr_img 30 in place of 90"
    assert words in Page((place / "report.html").read_text()).words

    # The same by hand: BACK steps at RATE, and the others at a third of it from that state.
    loaded = configs.load("dm:toy", KEYS | {"data.path": str(toy)})
    config, _ = configs.resolve(loaded.config, given=loaded.given)
    context = pipeline.prepare(config, place / "none", "test", given=loaded.given)
    problem = phases.problem(context, 0)
    carry = loop.start(methods.make(context.config, problem), 0)
    for lr, first, last in ((RATE, 0, BACK), (RATE / 3, BACK, STEPS)):
        method = methods.make(configs.replace(context.config, {"lr_img": lr}), problem)
        gradient, update = loop.make_step(method, 0, context.devices)
        for at in range(first, last):
            batch = problem.gather(method.sample(0, at))
            carry, _ = update(carry, gradient(carry, batch), jnp.asarray(True))
    np.testing.assert_array_equal(made.images, np.asarray(carry.state.variables["images"]))


def test_a_damaged_record_is_refused_not_forgotten(
    rescued: tuple[Path, dict[str, Any]],
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it the run would go on from its checkpoint at the rates it began with."""
    bounded(monkeypatch, MOST)
    place = shutil.copytree(rescued[0], tmp_path / "run")
    record = folder(place) / "steps_back.json"
    for damaged in (record.read_text().replace('"to": ', '"to": 1'), "{", "[]"):
        record.write_text(damaged)
        with pytest.raises(BadInput, match="steps_back.json") as found:
            run(toy, place, steps=STEPS + 2)
        assert "begin the run anew in another --workdir" in str(found.value)


def test_an_interrupted_rescue_ends_with_the_same_bits(
    rescued: tuple[Path, dict[str, Any]],
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stopped before the divergence, between the record and its deletions, and after that."""
    bounded(monkeypatch, MOST)

    def stopped_at(chance: int) -> None:
        chances = iter(range(1, 100))
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            stopping = property(lambda self: next(chances) == chance)
            patch.setattr(session.Session, "stopping", stopping)
            run(toy, tmp_path)

    def fail(*words: Any, **more: Any) -> None:
        raise OSError("power cut")

    stopped_at(4)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        patch.setattr(shutil, "rmtree", fail)
        run(toy, tmp_path)
    (found,) = taken(tmp_path)
    assert (tmp_path / "checkpoints" / "distill" / str(found["step"] - 1)).exists()  # still there
    stopped_at(1)  # at once, from the milestone
    stopped_at(5)
    assert len(taken(tmp_path)) == 1
    run(toy, tmp_path, checkpoint_every=5, progress=True)
    assert "Diverged" not in capsys.readouterr().out  # it was, once
    assert taken(tmp_path) == taken(rescued[0])
    whole = (rescued[0] / "distilled.npz").read_bytes()
    assert (tmp_path / "distilled.npz").read_bytes() == whole
    kept, own = (sorted(p.name for p in folder(at).glob("[!.]*")) for at in (rescued[0], tmp_path))
    assert own == kept == ["2", "4", "8", "steps_back.json"]


def test_an_extended_run_steps_back_as_a_longer_one(
    rescued: tuple[Path, dict[str, Any]],
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bounded(monkeypatch, MOST)
    (found,) = taken(rescued[0])
    run(toy, tmp_path, steps=found["step"] - 1)
    assert not (folder(tmp_path) / "steps_back.json").exists()
    run(toy, tmp_path, progress=True)
    assert f"distill: Diverged at step {found['step']} (" in (out := capsys.readouterr().out)
    assert f"went back to step {BACK} with lr_img 30 in place of 90 (1 of 3 steps back)" in out
    whole = (rescued[0] / "distilled.npz").read_bytes()
    assert (tmp_path / "distilled.npz").read_bytes() == whole


def test_after_the_last_step_back_the_run_ends_with_advice(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded(monkeypatch, 4.0)  # it starts at 3.8
    for _ in range(2):  # the second command finds the same
        with pytest.raises(Diverged) as caught:
            run(toy, tmp_path)
        line = str(caught.value)
        assert caught.value.exit_code == 3 and line.startswith("distill diverged at step ")
        assert "Try --config.lr_img=0.333, with a new --workdir" in line
        assert line.endswith("3 steps back, with lr_img from 90 to 3.33, did not help")
    found = taken(tmp_path)
    assert [one["rates"]["lr_img"][1] for one in found] == [30, 10, 10 / 3]
    assert found[-1]["to"] == 0
    recipe = DistilledSet.load(tmp_path / "distilled.npz").recipe
    assert recipe["diverged"]["step"] >= 1 and recipe["steps_back"]["taken"] == found
    last = [row for row in read(tmp_path / "metrics.jsonl") if row["stage"] == "distill"][-1]
    assert last["diverged"]


def known(path: Path) -> Path:
    """Write a tiny CIFAR-10, 32x32x3 of ten classes."""
    draw, arrays = np.random.default_rng(0), {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = draw.integers(0, 256, (20, 32, 32, 3), np.uint8)
        arrays[f"y_{part}"] = np.arange(20) % 10
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("spec", ["dm:cifar10,ipc=1", "dm:toy"])
def test_a_published_row_never_steps_back_and_0_switches_it_off(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    more = {"steps_back": 0} if spec == "dm:toy" else {}
    bounded(monkeypatch, 20.0)
    data = known(tmp_path / "cifar10.npz") if "cifar10" in spec else toy
    place = tmp_path / "run"
    with pytest.raises(Diverged) as caught:
        run(data, place, spec=spec, **more)
    assert "did not help" not in str(caught.value)
    assert not folder(place).exists()
    config = json.loads((place / "config.json").read_text())
    assert config.get("steps_back") == more.get("steps_back")


@pytest.mark.parametrize(
    ("spec", "acts"), [("dm:digits,ipc=2", False), ("dm:digits,ipc=1", False), ("dm:toy", True)]
)
def test_neither_do_jdd_s_own_settings(toy: Path, tmp_path: Path, spec: str, acts: bool) -> None:
    keys = {"net.width": 4} | ({"data.path": str(toy)} if acts else {})
    loaded = configs.load(spec, keys)
    config, _ = configs.resolve(loaded.config, given=loaded.given)
    context = pipeline.prepare(config, tmp_path, "test", given=loaded.given)
    assert steps_back.acts(context) == acts
    assert not steps_back.acts(context.with_config(configs.replace(config, {"steps_back": 0})))


def test_what_no_outer_rate_has_caused_ends_at_once(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the first step: no earlier state and no lower rate would give another one."""
    make = methods.make

    def made(config: Common, problem: Problem) -> Method:
        method = make(config, problem)
        objective: Callable[..., Any] = method.objective  # type: ignore[assignment]

        def broken(*words: Any) -> Any:
            loss, rest = objective(*words)
            return loss * jnp.nan, rest

        return method._replace(objective=broken)

    monkeypatch.setattr(methods, "make", made)
    with pytest.raises(Diverged, match="distill diverged at step 1: the loss became nan"):
        run(toy, tmp_path)
    assert not (folder(tmp_path) / "steps_back.json").exists()


def test_finite_images_far_from_any_picture_have_diverged(toy: Path, tmp_path: Path) -> None:
    run(toy, tmp_path, lr_img=1000.0, steps=5)
    (found,) = taken(tmp_path)
    assert found["cause"] == "most pixels are far from any picture" and found["step"] in (1, 2, 4)
    images = DistilledSet.load(tmp_path / "distilled.npz").images
    assert np.abs(images).max() > 100  # far from what a picture has, but most pixels are not


def test_far_images_are_not_the_last_good_ones(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="diverged at step 1: most pixels are far"):
        run(toy, tmp_path, lr_img=1e9, steps=3, steps_back=1)
    made = DistilledSet.load(tmp_path / "distilled.npz")
    assert made.recipe["steps"] == 0 and np.abs(made.images).max() < 5


def test_milestones_follow_from_the_step_alone(tmp_path: Path) -> None:
    like = {"x": np.zeros(2, np.float32)}
    own = Milestones(tmp_path / "m", 3, lambda state: None)
    assert [step for step in range(70) if own.due(step)] == [1, 2, 4, 8, 16, 32, 64]
    assert own.saved() == [] and own.before(100) == 0
    for step in (1, 2, 4, 8, 16):
        own.save(step, {"x": np.full(2, step, np.float32)})
    own.save(16, like)  # it is there: not written again
    assert own.saved() == [16, 8, 4] == sorted(map(int, names(tmp_path / "m")), reverse=True)
    assert [own.before(step) for step in (3, 4, 7.5, 8, 99)] == [0, 4, 4, 8, 16]
    np.testing.assert_array_equal(own.restore(16, like)["x"], [16, 16])
    own.forget_after(8)
    assert own.saved() == [8, 4]
    none = Milestones(tmp_path / "n", 0, lambda state: Cause("bad", ()))
    none.save(8, like)
    assert none.saved() == [] and jax.tree.leaves(none.fault(None)) == ["bad"]  # type: ignore[arg-type]


def names(place: Path) -> list[str]:
    return [path.name for path in place.glob("[!.]*")]


def replaced(item: Path, tree: Any) -> None:
    """Put another readable tree in the place of a saved one, whose digest stays."""
    other = item.with_name("other")
    checkpoints.save(other, tree)
    shutil.rmtree(item)
    shutil.move(other, item)


def test_verify_files_holds_for_milestones_and_for_the_last_checkpoint(tmp_path: Path) -> None:
    zeros, ones = ({"x": np.full(400, value, np.float32)} for value in (0, 1))
    for verify in (True, False):
        own = Milestones(tmp_path / f"m{verify}", 3, lambda state: None, verify=verify)
        own.save(8, zeros)
        replaced(tmp_path / f"m{verify}" / "8", ones)
        if verify:
            with pytest.raises(checkpoints.Damaged, match="arrays are not those written"):
                own.restore(8, zeros)
        else:
            np.testing.assert_array_equal(own.restore(8, zeros)["x"], 1)

    method = Method(  # type: ignore[call-arg]
        init=lambda seed: State({"x": jnp.zeros(400)}, {}), sample=lambda seed, step: {},
        objective=None, distilled=lambda state, steps: None, optimizer=optax.sgd(1.0),
    )  # fmt: skip
    config = configs.load("dm:toy", {"data.path": "x.npz"}).config
    here = session.Session(tmp_path, progress=False)
    steps = checkpoints.Steps(tmp_path / "checkpoints" / "distill")
    carry = loop.start(method, 0)
    steps.save(3, carry._replace(step=jnp.asarray(3, jnp.int32)))
    steps.close()
    moved = carry._replace(state=State({"x": jnp.ones(400)}, {}), step=jnp.asarray(3, jnp.int32))
    replaced(tmp_path / "checkpoints" / "distill" / "3" / "default", checkpoints.nested(moved))
    with pytest.raises(checkpoints.Damaged):
        loop.last(method, config, 0, here, "distill")
    unchecked = configs.replace(config, {"verify_files": False})
    state, step = loop.last(method, unchecked, 0, here, "distill")
    assert step == 3 and float(state.variables["x"].min()) == 1
    here.metrics.close()


def test_pairs_of_your_own_step_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"lr_img": 9.0, "lr_txt": 3.0, "lr_lr": 3e-3}
    own = configs.load("vl:mine", {"data.path": "x"}).config
    assert fitting.without_settings(own) and not fitting.may_be_fitted(own)
    assert not fitting.without_settings(configs.load("vl:digits_captions").config)
    make = methods.make

    def made(config: Common, problem: Problem) -> Method:
        low = configs.flat(config)["lr_img"] < rates["lr_img"]
        return make(config, problem)._replace(valid=lambda state: jnp.asarray(low))

    def pairs(place: Path, mode: str, **more: Any) -> Any:
        keys = TINY | rates | {"experts.dir": str(tmp_path / "experts")} | more
        loaded = configs.load("vl:digits_captions", keys)
        return pipeline.run(loaded, str(place), mode, command="test")

    plain = tmp_path / "plain"
    lower = {name: rate / 3 for name, rate in rates.items()}
    pairs(plain, "experts", **lower)
    pairs(plain, "distill", **lower)
    monkeypatch.setattr(methods, "make", made)
    monkeypatch.setattr(fitting, "without_settings", lambda config: True)
    pairs(tmp_path / "own", "distill")
    (found,) = taken(tmp_path / "own")
    assert found["rates"] == {name: [rate, rate / 3] for name, rate in rates.items()}
    assert (found["step"], found["to"]) == (1, 0)
    one, other = (jdd.load(at / "distilled.npz") for at in (tmp_path / "own", plain))
    assert isinstance(one, PairSet) and isinstance(other, PairSet)
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.text, other.text)
    assert one.recipe["steps_back"]["taken"] == [found] and "steps_back" not in other.recipe
