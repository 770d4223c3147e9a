"""``stop=plateau``: distillation ends where the accuracy on held-out images is flat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jdd import config as configs
from jdd.errors import BadInput, Interrupted
from jdd.product.distilled_set import DistilledSet
from jdd.report.evidence import gather
from jdd.report.runs import Run
from jdd.run import pipeline, session
from jdd.run.metrics import read
from jdd.stages import distill, plateau
from jdd.stages.plateau import Flat, Point
from tests.pins import cases
from tests.test_report import Page

# At this rate the images stay what they are, and so does the accuracy of equally seeded nets.
KEYS: dict[str, Any] = {
    "net.width": 4, "net.depth": 1, "data.dsa": "none", "data.val": 12, "batch_real": 6,
    "steps": 20, "lr_img": 1e-9, "stop": "plateau", "eval.curve": 10, "eval.curve_n": 2,
    "eval.epochs": 1, "eval.n": 1, "baselines.random": 0, "baselines.full": False, "devices": 1,
    "checkpoint_every": 100, "progress": False,
}  # fmt: skip
END = 2 * plateau.POINTS  # the curve has a point every 2 steps, the first one at step 0


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.npz"
    cases.toy(path)
    return path


def run(toy: Path, place: Path, mode: str = "distill", spec: str = "dm:toy", **more: Any) -> Any:
    keys = KEYS | {"data.path": str(toy)} | more
    return pipeline.run(configs.load(spec, keys), str(place), mode, command="test")


@pytest.fixture(scope="module")
def ended(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a whole run that ended early, and its result."""
    place = tmp_path_factory.mktemp("ended")
    return place, run(toy, place, "all")


def points(*values: float, std: float = 0.01) -> list[Point]:
    return [Point(10 * i, value, std) for i, value in enumerate(values)]


def test_the_rule_is_no_point_above_the_best_by_more_than_the_spread() -> None:
    assert plateau.flat([]) is None and plateau.flat(points(0.5, 0.5, 0.5)) is None
    assert plateau.flat(points(0.5, 0.5, 0.5, 0.5)) == Flat(Point(0, 0.5, 0.01), 0.5, 0.01)
    assert plateau.flat(points(0.2, 0.5, 0.505, 0.4, 0.509)) is not None
    assert plateau.flat(points(0.2, 0.5, 0.4, 0.4, 0.511)) is None
    assert plateau.flat(points(0.2, 0.5, 0.511, 0.4, 0.4)) is None  # within the last three
    assert plateau.flat(points(0.2, 0.5, 0.511, 0.4, 0.4, 0.4)) is not None
    falling = plateau.flat(points(0.2, 0.5, 0.4, 0.3, 0.2))
    assert falling is not None and falling.best.step == 10 and falling.latest == 0.4
    noisy = [*points(0.5, std=0.2), *points(0.55, 0.55, 0.55, std=0.0)]
    assert plateau.flat(noisy) is not None  # 0.1: the mean of four variances, one of them 0.04
    assert plateau.flat([*points(0.5, std=0.08), *points(0.55, 0.55, 0.55, std=0.0)]) is None


def test_a_flat_curve_ends_the_run(ended: tuple[Path, dict[str, Any]]) -> None:
    place, result = ended
    recipe = DistilledSet.load(place / "distilled.npz").recipe
    found = recipe["stopped"]
    assert recipe["steps"] == result["steps"] == found["step"] == END
    assert (found["rule"], found["of"], found["points"], found["best_step"]) == (
        "plateau",
        20,
        3,
        0,
    )
    assert result["stopped"] == {"0": found}
    rows = read(place / "metrics.jsonl")
    assert [row["step"] for row in rows if row["stage"] == "curve"] == [0, 2, 4, 6]
    (line,) = [row for row in rows if row["stage"] == "stop"]
    assert line["step"] == END and line["of"] == 20
    words = f"{END} of 20: on held-out images the last 3 points of the curve are not above the"
    assert words in Page((place / "report.html").read_text()).words
    assert Run("a", gather(place)).late == ""
    config = json.loads((place / "config.json").read_text())
    assert config["stop"] == "plateau" and config["steps"] == 20


def test_a_run_that_ended_early_is_finished(
    ended: tuple[Path, dict[str, Any]], toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, result = ended
    before = (place / "metrics.jsonl").read_bytes()
    again = run(toy, place, "all", progress=True)
    assert f"{place} is finished" in capsys.readouterr().out
    assert again["accuracy"] == result["accuracy"]
    assert (place / "metrics.jsonl").read_bytes() == before


def test_an_interrupted_run_ends_at_the_same_step_with_the_same_bits(
    ended: tuple[Path, dict[str, Any]],
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stopped by a signal, then killed between the decision and the set."""
    chances = iter(range(1, 100))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(session.Session, "stopping", property(lambda self: next(chances) == 4))
        run(toy, tmp_path)

    def fail(*words: Any) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        patch.setattr(distill, "_save", fail)
        run(toy, tmp_path)
    run(toy, tmp_path, progress=True)
    assert f"distill: ended at step {END} of 20: on held-out images" in capsys.readouterr().out
    whole = (ended[0] / "distilled.npz").read_bytes()
    assert (tmp_path / "distilled.npz").read_bytes() == whole
    for name, value in (("eval.curve", 20), ("eval.curve_n", 3), ("steps", 40)):
        with pytest.raises(BadInput, match=rf"config.{name} was \d+, now {value}") as caught:
            run(toy, tmp_path, **{name: value})
        free = str(caught.value).partition("may change: ")[2].split(", ")
        assert name not in free and "eval.n" in free


@pytest.mark.parametrize(
    ("spec", "more", "found", "advice"),
    [
        ("dm:toy", {"data.val": 0}, "no training images are held out", "data.val=0.1"),
        ("dm:toy", {"eval.curve": 4}, "config.eval.curve=4 gives too few points", "eval.curve=20"),
        ("dm:toy", {"eval.curve": 0}, "config.eval.curve=0 gives too few points", "eval.curve=20"),
        ("dm:toy", {"eval.curve_n": 1}, "config.eval.curve_n=1 gives no spread", "eval.curve_n=2"),
        ("random:toy", {"steps": 0}, ".* makes its set in no steps", ""),
        ("sre2l:toy", {"eval.curve": 0}, "SRe2L makes its set in parts", ""),
    ],
)
def test_what_cannot_decide_is_refused_before_the_first_write(
    toy: Path, tmp_path: Path, spec: str, more: dict[str, Any], found: str, advice: str
) -> None:
    schema = configs.schema(spec.partition(":")[0])
    keys = {n: v for n, v in (KEYS | more).items() if n in schema} | {"data.path": str(toy)}
    place = tmp_path / "run"
    loaded = configs.load(spec, keys)
    with pytest.raises(BadInput, match=f"config.stop: plateau, and {found}") as caught:
        pipeline.run(loaded, str(place), command="test")
    assert not place.exists()
    allowed = f"--config.{advice} with it, or never" if advice else "never"
    assert str(caught.value).endswith(f"; {allowed}")
    if advice:
        name, _, value = advice.partition("=")
        loaded = configs.load(spec, keys | {name: value})
        config, _ = configs.resolve(loaded.config, given=loaded.given)
        plateau.validate(pipeline.prepare(config, place, "test", given=loaded.given))
