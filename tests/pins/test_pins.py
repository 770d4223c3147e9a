"""Every method leaves on disk what it left before: see ``pins.py`` for what is held to what.

The runs have two processes of their own, whose flags do not depend on how pytest was started. The
default suite runs one of each family without XLA's optimiser; the slow one all, and with it too.
``-k mtt`` runs one case.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jdd import rng
from tests.pins import cases, make_pins, pins

# In the default suite, of each family one; the slow suite has all.
QUICK_CASES = ("mtt", "dm", "frepo", "sre2l")
CASES = [
    pytest.param(name, marks=() if name in QUICK_CASES else pytest.mark.slow)
    for name in cases.CASES
]

OTHER = "no bits of this environment are pinned: python -m tests.pins.make_pins adds them"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(pins.QUICK, id="quick"),
        pytest.param(pins.FULL, id="full", marks=pytest.mark.slow),
    ],
)
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the chosen jobs leave, by job."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = {call.params["job"] for call in calls if call and "job" in call.params}
    jobs = [job for job in pins.JOBS if job in wanted]
    return request.param, pins.observe(tmp_path_factory.mktemp("pins"), jobs, request.param)


def of(left: Any, job: str) -> tuple[str, dict[str, Any]]:
    flags, found = left
    if "failed" in found[job]:
        pytest.fail(found[job]["failed"], pytrace=False)
    return flags, found[job]


def alike(differences: str) -> None:
    if differences:
        pytest.fail(f"not as pinned:\n{differences}", pytrace=False)


def bits(flags: str, name: str) -> dict[str, str]:
    """Return the pinned digests of a case; skip the test where there are none."""
    known = pins.read(pins.EXACT).get(pins.key(flags))
    if known is None:
        pytest.skip(OTHER)
    return known["cases"][name]


@pytest.mark.parametrize("job", CASES)
def test_a_run_leaves_what_is_pinned_wherever_it_runs(left: Any, job: str) -> None:
    """Files, config, recipe, names, types and shapes, hashes of settings, purposes, steps; and the
    arrays of the set within what rounding does.
    """
    _, found = of(left, job)
    alike(make_pins.unlike(job, found, pins.read(pins.PINS), pins.golden()))


@pytest.mark.parametrize("job", CASES)
def test_a_run_leaves_the_same_bits(left: Any, job: str) -> None:
    flags, found = of(left, job)
    alike(pins.changes(bits(flags, job), found["exact"]))


@pytest.mark.parametrize("job", [f"{name}{pins.STOPPED}" for name in pins.STOPS])
def test_a_run_stopped_halfway_goes_on_to_the_set_of_one_that_was_not(left: Any, job: str) -> None:
    flags, found = of(left, job)
    name = job.removesuffix(pins.STOPPED)
    alike(make_pins.unlike_set(name, found, pins.read(pins.PINS), pins.golden()))
    # Nothing that was there is made again: trained nets, finished parts, steps.
    before, after = found["before"], found["after"]
    assert before["metrics"] == after["metrics"][: len(before["metrics"])] != after["metrics"]
    made = {path: at for path, at in before["written"].items() if "checkpoints/" not in path}
    made |= {path: at for path, at in before["written"].items() if path.endswith(".npy")}
    assert made.items() <= after["written"].items() and (made or name in ("dc", "frepo"))
    steps = found["same"]["metrics"][pins.STOPS[name].split("/")[1]]["steps"]
    assert steps == sorted(set(steps)) == [1, 2, 3, 4]
    # The bits before the stop are those of the machine, and the flags, that stopped it.
    if pins.read(pins.STOPPED_BY)["environment"] == pins.key(flags):
        assert found["exact"]["distilled.npz"] == bits(flags, name)["distilled.npz"]


def test_pins_are_not_replaced_nor_bits_added_to_what_is_not_as_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PINS", "EXACT", "GOLDEN"):
        copy = shutil.copy(getattr(pins, name), tmp_path)
        monkeypatch.setattr(pins, name, Path(copy))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    arrays = {key: a for key, a in pins.golden().items() if key.startswith("mtt/")}
    floats = {key.removeprefix("mtt/"): a + 0.01 for key, a in arrays.items()}
    found = {"same": pins.read(pins.PINS)["mtt"], "exact": {}, "floats": floats}
    monkeypatch.setattr(pins, "observe", lambda root, jobs, flags: {job: found for job in jobs})
    monkeypatch.setattr(pins, "key", lambda flags: f"another machine {flags}")
    assert make_pins.make(tmp_path, ["mtt"], overwrite=False) == 1
    assert "mtt is not as pinned, and nothing is written" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    found["floats"] = {key.removeprefix("mtt/"): a + 1e-6 for key, a in arrays.items()}
    assert make_pins.make(tmp_path, ["mtt"], overwrite=False) == 0
    assert before[pins.PINS] == pins.PINS.read_bytes()
    assert len(pins.read(pins.EXACT)) == 2 + len(json.loads(before[pins.EXACT]))
    np.testing.assert_array_equal(
        pins.golden()["mtt/distilled.npz/lr"], arrays["mtt/distilled.npz/lr"]
    )


def test_random_numbers_are_what_they_were() -> None:
    """Of (seed, purpose, step), on the device and on the host."""
    key = rng.key(7, "pins", 3)
    assert jax.random.key_data(key).tolist() == [2289293579, 3506696825]
    assert jax.random.key_data(rng.stream(7, "pins")).tolist() == [15402910, 3855064094]
    assert rng.host(7, "pins", 3).integers(0, 1000, 4).tolist() == [776, 886, 313, 759]
    drawn = jax.random.randint(rng.key(7, "pins"), (4,), 0, 1000)
    assert drawn.tolist() == [200, 911, 828, 554]
