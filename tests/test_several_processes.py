"""Runs of several real processes: results of one, shared steps, and processes that are lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdd
from jdd import main
from jdd.run import metrics

ROOT = Path(jdd.__file__).parents[1]
pytestmark = pytest.mark.slow
Child = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def words(tiny: dict[str, Any], place: Path, config: str = "mtt", **more: Any) -> list[str]:
    own = {"experts.count": 6, "eval.n": 3, "eval.curve": 0, "baselines.full": False}
    unknown = ("experts", "syn_steps", "expert_epochs", "max_start", "lr_lr", "lr_student")
    keys = {**tiny, **own, **more}
    flags = [
        f"--config.{k}={v}" for k, v in keys.items() if config == "mtt" or not k.startswith(unknown)
    ]
    return [f"--config={config}", *flags, f"--workdir={place}"]


def several(line: Sequence[str], count: int = 2) -> list[Child]:
    """Start the processes of a run."""
    port = free_port()
    flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"]
    return [started([*line, *flags, f"--process={i}"]) for i in range(count)]


def started(line: Sequence[str], **environment: str) -> Child:
    return subprocess.Popen(
        [sys.executable, "-m", "jdd.main", *line], cwd=ROOT, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def errors(children: list[Child]) -> list[str]:
    """Wait for processes to end; return what they wrote to standard error."""
    with ThreadPoolExecutor(len(children)) as pool:  # all pipes are read at a time
        found = list(pool.map(lambda child: child.communicate(timeout=560)[1], children))
    return [err.decode() for err in found]


def distils(children: list[Child], place: Path, steps: int) -> None:
    """Wait for a step of distillation."""
    until = time.monotonic() + 280
    while not any(
        row["stage"] == "distill" and row["step"] >= steps
        for row in metrics.read(place / "metrics.jsonl")
    ):
        assert all(child.poll() is None for child in children) and time.monotonic() < until
        time.sleep(0.2)


def same_images(ours: Path, theirs: Path) -> None:
    one, other = (np.load(place / "distilled.npz") for place in (ours, theirs))
    np.testing.assert_array_equal(one["images"], other["images"])


def test_two_processes_leave_what_one_leaves(tiny: dict[str, Any], tmp_path: Path) -> None:
    one, both = tmp_path / "one", tmp_path / "both"
    keys = {"runs": 2, "steps": 3}
    children = several(words(tiny, both, **keys))
    found = errors(children)
    assert [child.returncode for child in children] == [0, 0], found
    assert main.main(words(tiny, one, **keys)) == 0
    for name in ("distilled.npz", "distilled-s1.npz"):
        ours, theirs = (np.load(place / name) for place in (both, one))
        np.testing.assert_array_equal(ours["images"], theirs["images"])
        assert ours["lr"] == theirs["lr"]
    for name in ("checkpoints/evaluate.json", "config.json"):
        assert (both / name).read_text() == (one / name).read_text()
    seen = [
        sorted((row["stage"], row["step"]) for row in metrics.read(place / "metrics.jsonl"))
        for place in (both, one)
    ]
    assert seen[0] == seen[1] and len(set(seen[0])) == len(seen[0])


@pytest.mark.parametrize(
    ("config", "count", "keys"),
    [("mtt", 2, {"segments": 2}), ("mtt", 4, {"segments": 4}), ("dm", 4, {"lr_img": 1.0})],
)
def test_processes_share_the_steps_of_a_set(
    tiny: dict[str, Any], tmp_path: Path, config: str, count: int, keys: dict[str, Any]
) -> None:
    """As one process with as many devices; of four processes one has none of the three classes."""
    one, all_of_it = tmp_path / "one", tmp_path / "all"
    children = several(words(tiny, all_of_it, config, **keys, steps=3), count)
    found = errors(children)
    assert [child.returncode for child in children] == count * [0], found
    assert main.main(words(tiny, one, config, **keys, steps=3, devices=count)) == 0
    ours, theirs = (np.load(place / "distilled.npz") for place in (all_of_it, one))
    np.testing.assert_allclose(ours["images"], theirs["images"], rtol=1e-4, atol=1e-4)
    if count == 2:  # a sum of two does not depend on the order
        same_images(all_of_it, one)


SLOW = """
import sys, time
from jdd import main, methods
make = methods.make
def late(*args):
    time.sleep(40)
    return make(*args)
methods.make = late
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_process_that_builds_slowly_is_waited_for(tiny: dict[str, Any], tmp_path: Path) -> None:
    """For longer than the 30 s that gloo allows for the first connection."""
    line = words(tiny, tmp_path, "dm", lr_img=1.0, steps=2)
    flags = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    late = subprocess.Popen(
        [sys.executable, "-c", SLOW, *line, *flags, "--process=1"], cwd=ROOT, env=os.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    children = [started([*line, *flags, "--process=0"]), late]
    found = errors(children)
    assert [child.returncode for child in children] == [0, 0], found


@pytest.mark.parametrize(
    ("killed", "number", "segments"),
    [
        (1, signal.SIGKILL, 1),  # waits while process 0 distils
        (1, signal.SIGTERM, 1),
        (0, signal.SIGKILL, 1),
        (1, signal.SIGKILL, 2),  # has a segment of every step
        (1, signal.SIGTERM, 2),
        (0, signal.SIGKILL, 2),
    ],
)
def test_one_process_that_ends_ends_the_other(
    tiny: dict[str, Any], tmp_path: Path, killed: int, number: int, segments: int
) -> None:
    keys = {"segments": segments, "checkpoint_every": 20}
    children = several(words(tiny, tmp_path, steps=10**6, **keys))
    distils(children, tmp_path, 30)
    begun = time.monotonic()
    children[killed].send_signal(number)
    found = errors(children)
    assert time.monotonic() - begun < 60
    codes = [child.returncode for child in children]
    assert codes[killed] == (-9 if number == signal.SIGKILL else 130) and codes[1 - killed] == 7
    last = found[1 - killed].strip().splitlines()[-1]
    why = "is gone (killed" if number == signal.SIGKILL else "ended: interrupted"
    assert last.startswith(f"jdd: error: process {killed} of 2 {why}"), found
    assert last.endswith("go on from the last checkpoint") and "Traceback" not in "".join(found)
    if killed == 0:
        assert found[1].count("\n") == 1, found[1]  # that line alone
    done = max(row["step"] for row in metrics.read(tmp_path / "metrics.jsonl"))
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints/distill").glob("[0-9]*"))
    assert steps[-1] >= (done - 1 if killed else done // 20 * 20)  # saved where it was
    total = steps[-1] + 3
    again = several(words(tiny, tmp_path, steps=total, **keys))  # and goes on
    found = errors(again)
    assert [child.returncode for child in again] == [0, 0], found
    one = tmp_path / "one"
    assert main.main(words(tiny, one, steps=total, devices=segments, **keys)) == 0
    same_images(tmp_path, one)


def test_a_process_0_that_stands_still_is_gone(tiny: dict[str, Any], tmp_path: Path) -> None:
    """It stands in for a machine that fails: its connections stay open, and nothing answers."""
    children = several(words(tiny, tmp_path, steps=10**6, segments=2, checkpoint_every=20))
    distils(children, tmp_path, 30)
    begun = time.monotonic()
    children[0].send_signal(signal.SIGSTOP)
    try:
        assert children[1].wait(60) == 7 and time.monotonic() - begun < 60
    finally:
        children[0].kill()
    found = errors(children)
    assert found[1].startswith("jdd: error: process 0 of 2 is gone") and found[1].count("\n") == 1


FOUND = """
from jdd.parallel import begin
own = begin("auto")
print(own.index, own.count, *own.gather(str(own.index).encode(), lambda: None))
own.close()
"""


def slurm(index: int, port: int) -> dict[str, str]:
    job = {"SLURM_JOB_ID": str(4096 + port - 61440), "SLURM_STEP_NODELIST": "localhost"}
    return {**job, "SLURM_NTASKS": "2", "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}


def open_mpi(index: int, port: int) -> dict[str, str]:
    job = {"OMPI_MCA_orte_hnp_uri": f"{4096 * (port - 61440)}.0;tcp://127.0.0.1:34911"}
    rank = {f"OMPI_COMM_WORLD_{name}": str(index) for name in ("RANK", "LOCAL_RANK")}
    return {**job, "OMPI_COMM_WORLD_SIZE": "2", **rank}


@pytest.mark.parametrize("job", [slurm, open_mpi])
def test_processes_of_a_job_find_each_other(job: Any) -> None:
    """By the variables that SLURM and Open MPI set; their port is one of the last 4096."""
    with socket.socket() as used:
        while True:
            port = random.randrange(61440, 65536)
            with contextlib.suppress(OSError):
                used.bind(("127.0.0.1", port))
                break
    children = [
        subprocess.Popen(
            [sys.executable, "-c", FOUND], cwd=ROOT, env={**os.environ, **job(index, port)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]  # fmt: skip
    found = [child.communicate(timeout=120) for child in children]
    assert [out.decode().strip() for out, _ in found] == ["0 2 b'0' b'1'", "1 2 b'0' b'1'"], found


def test_outside_a_job_auto_is_refused_in_one_line(tmp_path: Path) -> None:
    child = started([f"--workdir={tmp_path}", "--coordinator=auto"])
    _, err = child.communicate(timeout=120)
    assert child.returncode == 2 and err.decode().count("\n") == 1, err
    assert "inside such a job" in err.decode()
