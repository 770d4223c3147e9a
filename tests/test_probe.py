"""The probe: the images' rate by a few steps at several rates, where none is published."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jdd import config as configs
from jdd import methods
from jdd.config import fitting, probing
from jdd.config.nearest import Size
from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet
from jdd.run import pipeline
from jdd.run.context import RunContext
from jdd.schema.common import Common
from jdd.stages import phases, probe
from jdd.stages.probe import Tried
from jdd.storage import json_files
from tests.pins import cases

KEYS: dict[str, Any] = {
    "net.width": 4, "net.depth": 1, "data.dsa": "none", "batch_real": 6, "steps": 100,
    "eval.epochs": 2, "eval.n": 1, "eval.curve": 0, "baselines.random": 0,
    "baselines.full": False, "devices": 1, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.npz"
    cases.toy(path)
    return path


def loaded(toy: Path, **more: Any) -> configs.Loaded:
    return configs.load("dm:toy", KEYS | {"data.path": str(toy)} | more)


def prepared(toy: Path, place: Path, **more: Any) -> RunContext:
    found = loaded(toy, **more)
    given = found.explicit
    config, _ = configs.resolve(found.config, given=given)
    return pipeline.prepare(config, place, "test", given=given)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


BOTH = ("lr_student", "lr_img")


def test_the_cost_is_at_most_a_tenth_of_the_steps_or_nothing_is_probed() -> None:
    for keys in (BOTH[1:], BOTH, BOTH[:1]):
        for steps in range(0, 3000, 7):
            found = probing.plan(steps, keys)
            assert found is None or found.calls <= steps // 10
            assert found is None or keys == BOTH[:1] or found.steps >= 2
    assert (
        probing.plan(99, BOTH[1:]) is probing.plan(139, BOTH) is probing.plan(59, BOTH[:1]) is None
    )
    assert probing.plan(5000, ()) is None
    few, many = (probing.plan(steps, BOTH[1:]) for steps in (100, 1250))
    assert few is not None and (few.factors, few.steps) == ((1.0, 0.1), 2)
    assert many is not None and (many.factors, many.steps) == ((1.0, 0.1, 10.0, 0.01), 28)
    both = probing.plan(312, BOTH)
    assert both == probing.Plan((1.0, 0.1, 10.0, 0.01), 4, (1.0, 0.1, 10.0)) and both.calls == 30


def trajectories(toy: Path, **more: Any) -> configs.Loaded:
    few = {"experts.count": 5, "experts.group": 5, "syn_steps": 2, "steps": 140}
    given = {n: v for n, v in KEYS.items() if n != "batch_real"} | few | {"data.path": str(toy)}
    return configs.load("mtt:toy", given | more)


def test_of_trajectory_matching_the_students_rate_is_chosen_at_the_start(
    toy: Path, tmp_path: Path
) -> None:
    for mode in ("experts", "probe"):
        pipeline.run(trajectories(toy), str(tmp_path), mode=mode, command="test")
    found = read(tmp_path / "checkpoints" / "probe.json")
    row, tried = found["row"], found["tried"]
    assert found["keys"] == [*BOTH] and {*found["chosen"]} == {*BOTH}
    students = {one["lr_student"]: one["loss"] for one in tried if "lr_student" in one}
    assert [*students] == [row["lr_student"] * f for f in (1.0, 0.1, 10.0)]
    assert [one["lr_img"] for one in tried[3:]] == [row["lr_img"] * f for f in (1.0, 0.1)]
    saved = read(tmp_path / "config.json")
    assert {name: saved[name] for name in BOTH} == found["chosen"]

    # The same by hand, from methods that begin at these rates.
    given = trajectories(toy, probe=False, **row)
    config, _ = configs.resolve(given.config, given=given.given)
    context = pipeline.prepare(config, tmp_path, "test", given=given.given)
    for rate, loss in students.items():
        own = configs.replace(context.config, {"lr_student": rate})
        problem = phases.problem(context, 0)._replace(config=own)
        method = methods.make(own, problem)
        prober = probe._Prober(method, problem, 0, context.devices)
        assert prober.judge(method.init(0), own.steps) == pytest.approx(loss, rel=1e-5)
        if rate == found["chosen"]["lr_student"]:
            state, _ = prober.run(1.0, 2)
            assert prober.judge(state, own.steps) == pytest.approx(tried[3]["loss"], rel=1e-5)


def test_a_given_rate_of_students_is_not_probed_and_neither_is_one_in_few_steps(
    toy: Path, tmp_path: Path
) -> None:
    for more in ({"lr_student": 0.02}, {"steps": 130}):
        given = trajectories(toy, **more)
        config, _ = configs.resolve(given.config, given=given.given)
        context = pipeline.prepare(config, tmp_path, "test", given=given.given)
        assert context.probing == ("lr_img",)


def test_the_smallest_loss_is_chosen_and_of_close_ones_the_row_s_rate() -> None:
    def chosen(*losses: float, out: tuple[float, ...] = ()) -> float:
        factors = (0.01, 0.1, 1.0, 10.0)
        tried = [
            Tried(f, loss, "diverged at step 2" if f in out else "")
            for f, loss in zip(factors, losses, strict=True)
        ]
        return probe.choose(tried, start=2.0)

    lost = [Tried(1.0, 0.0, "not finite"), Tried(0.1, 1.0), Tried(0.01, 1.0)]
    assert probe.choose(lost, start=math.nan) == probe.choose(lost, start=math.inf) == 0.1

    assert chosen(1.9, 1.0, 1.9, 3.0) == 0.1
    assert chosen(2.0, 1.9, 1.05, 1.0) == 1.0  # within a tenth of what the best has gained
    assert chosen(2.0, 1.9, 1.2, 1.0) == 10.0
    assert chosen(1.99, 1.9, 1.0, 0.5, out=(10.0, 1.0)) == 0.1
    assert chosen(2.0, 2.1, 2.2, 2.3) == 0.01
    assert chosen(2.0, 2.01, 2.02, 2.3) == 1.0  # too few steps to tell
    assert chosen(1.0, 1.0, 1.0, 1.0, out=(0.01, 0.1, 1.0, 10.0)) == 0.01


def test_a_rate_that_is_far_too_large_is_out(toy: Path, tmp_path: Path) -> None:
    context = prepared(toy, tmp_path)
    problem = phases.problem(context, 0)
    method = methods.make(context.config, problem)
    prober = probe._Prober(method, problem, 0, context.devices)
    state, out = prober.run(1e5, 2)
    assert out == "most pixels are far from any image"
    assert prober.run(float("inf"), 3)[1] == "diverged at step 1"
    state, out = prober.run(0.0, 2)
    assert out == "" and np.array_equal(
        state.variables["images"], method.init(0).variables["images"]
    )
    assert prober.judge(state, 100) == prober.judge(method.init(0), 100) > 0


def test_a_run_probes_and_is_that_of_the_chosen_rate(toy: Path, tmp_path: Path) -> None:
    own, again, given = tmp_path / "own", tmp_path / "again", tmp_path / "given"
    result = pipeline.run(loaded(toy), str(own), command="test")
    found = read(own / "checkpoints" / "probe.json")
    rate = found["chosen"]["lr_img"]
    assert rate in (1.0, 0.1) and found["row"] == {"lr_img": 1.0} and len(found["tried"]) == 2
    assert read(own / "config.json")["lr_img"] == rate
    made = DistilledSet.load(own / "distilled.npz")
    assert made.recipe["probe"] == result["probe"] and result["probe"]["chosen"] == {"lr_img": rate}
    assert f"lr_img {rate:g}, by 2 steps at each of 2 rates" in (own / "report.html").read_text()
    pipeline.run(loaded(toy), str(again), mode="probe", command="test")
    assert read(again / "checkpoints" / "probe.json") == found  # of the seed alone
    pipeline.run(loaded(toy, lr_img=rate), str(given), mode="distill", command="test")
    assert not (given / "checkpoints" / "probe.json").exists()
    np.testing.assert_array_equal(made.images, DistilledSet.load(given / "distilled.npz").images)
    before = (own / "distilled.npz").read_bytes()
    assert pipeline.run(loaded(toy), str(own), command="test")["probe"] == result["probe"]
    assert (own / "distilled.npz").read_bytes() == before


def test_a_choice_is_used_on_resume_and_may_not_change(toy: Path, tmp_path: Path) -> None:
    pipeline.run(loaded(toy), str(tmp_path), mode="probe", command="test")
    path = tmp_path / "checkpoints" / "probe.json"
    text = path.read_text()
    json_files.write(path, json.loads(text) | {"chosen": {"lr_img": 0.02}})
    # As after a crash between both files: config.json has the row's rate still.
    config = read(tmp_path / "config.json") | {"lr_img": 1.0}
    json_files.write(tmp_path / "config.json", config)
    pipeline.run(loaded(toy), str(tmp_path), mode="distill", command="test")
    assert read(tmp_path / "config.json")["lr_img"] == 0.02
    with pytest.raises(BadInput, match="lr_img was 0.02, now 3"):
        pipeline.run(loaded(toy, lr_img=3), str(tmp_path), command="test")
    with pytest.raises(BadInput, match="probe was true, now false"):
        pipeline.run(loaded(toy, probe=False), str(tmp_path), command="test")


@pytest.mark.parametrize("more", [{"probe": False}, {"lr_img": 0.5}, {"steps": 40}])
def test_no_probe_where_it_is_off_or_has_nothing_to_choose(
    toy: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    assert prepared(toy, tmp_path, **more).probing == ()
    with pytest.raises(BadInput, match="--mode: probe: the rates of this run are given"):
        pipeline.run(loaded(toy, **more), str(tmp_path), mode="probe", command="test")
    assert not any(tmp_path.iterdir())


def test_published_and_tuned_settings_are_not_probed(tmp_path: Path) -> None:
    found = configs.load("dm:digits", {"net.width": 4, "ipc": 3})
    given = found.explicit
    config, _ = configs.resolve(found.config, given=given)
    assert pipeline.prepare(config, tmp_path, "test", given=given).probing == ()
    assert "probe" not in json.loads(configs.to_json(config))


def test_settings_are_fitted_once_and_a_run_that_is_there_goes_on_with_its_own(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fits, taken = fitting.fitted, []

    def counted(config: Common, given: Collection[str], size: Size | None = None) -> Any:
        found = fits(config, given, size)
        taken.extend([given] if found is not None else [])
        return found

    monkeypatch.setattr(fitting, "fitted", counted)
    pipeline.run(loaded(toy), str(tmp_path), mode="estimate", command="test")
    out = capsys.readouterr().out
    # Once for the run, and once without the given keys, to say which of them change something.
    assert taken == [loaded(toy).given, ()]
    assert out.startswith("changed from the settings fitted to toy: steps=100 (not ")
    assert "settings: no published DM row for toy, ipc 1, so the nearest" in out
    pipeline.run(loaded(toy), str(tmp_path), mode="probe", command="test")
    taken.clear()
    capsys.readouterr()
    pipeline.run(loaded(toy), str(tmp_path), mode="estimate", command="test")
    out = capsys.readouterr().out
    assert f"settings: those that the run in {tmp_path} began with" in out
    assert "so the nearest" not in out and "settings changed" not in out and taken == [()]
