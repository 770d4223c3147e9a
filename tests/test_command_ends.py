"""How a command ends: one line, whatever fails; and whatever becomes of its output."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import jdd
from jdd import main
from jdd.errors import BadInput, StorageError
from jdd.run import metrics, options, output, pipeline, workdir
from jdd.storage import checkpoints, failures

ROOT = Path(jdd.__file__).parents[1]
# No net is trained on real images and one is on the set: a process that takes a few seconds.
SHORT: dict[str, Any] = {
    "net.name": "MLP", "nets": "MLP", "eval.curve": 0, "eval.epochs": 1, "eval.n": 2, "steps": 0,
    "baselines.random": 0, "baselines.full": False, "progress": True,
}  # fmt: skip


def command(tiny: dict[str, Any], place: Path, method: str = "random", **more: Any) -> list[str]:
    """Return the command line of a short run."""
    schema, idle = jdd.config.schema(method), ("experts.count", "experts.group")
    own = {k: v for k, v in {**tiny, **SHORT}.items() if k in schema}
    keys = {k: v for k, v in own.items() if method == "mtt" or k not in idle} | more
    words = [f"--config.{name}={value}" for name, value in keys.items()]
    return [sys.executable, "-m", "jdd.main", f"--config={method}", *words, f"--workdir={place}"]


# A command whose run is short and needs no JAX: it prints much, as a run does, and leaves a file.
LIGHT = """
import sys, time, types
from pathlib import Path
from jdd import main
from jdd.run.session import Session
fake = types.ModuleType("jdd.run.pipeline")
def run(loaded, workdir, mode, set_path, command, options):
    session = Session(workdir, options=options)
    with session.signals():
        bar = session.bar(1000, "distill")
        for step in range(1, 1001):
            session.say(f"step {step}: 91.0 \\u00b1 0.2 % " + "." * 100)
            session.metrics.log("distill", step, loss=1.0)
            bar.update(step)
            print("begun" if step == 1 else "", file=open(Path(workdir) / "begun", "a"))
            WAIT
            session.check()
    (Path(workdir) / "done").touch()
    return {"summary": "91.0 \\u00b1 0.2 %"}
fake.run = run
sys.modules["jdd.run.pipeline"] = fake
import jdd.run
jdd.run.pipeline = fake
main.entry()
"""


def light(place: Path, wait: str = "") -> list[str]:
    """Return the command line of ``LIGHT``; ``wait`` is done in every step."""
    code = LIGHT.replace("WAIT", wait or "pass")
    return [sys.executable, "-c", code, f"--workdir={place}"]


def ended(words: Sequence[str], **more: Any) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it printed."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(list(words), **{"env": environment, **streams, **more})
    out, err = child.communicate(timeout=240)
    return child.returncode, (out or b"").decode(), (err or b"").decode()


@pytest.fixture(scope="module")
def finished(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished short run, which no test changes."""
    place = tmp_path_factory.mktemp("ends") / "done"
    assert main.main(command(tiny, place)[3:]) == 0
    return place


# --- output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_leaves_does_not_end_the_run(tmp_path: Path, both: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, err = ended(
        light(tmp_path), stdout=writing, stderr=writing if both else subprocess.PIPE
    )
    os.close(writing)
    assert (code, err) == (0, "") and (tmp_path / "done").exists()


@pytest.mark.parametrize("closed", ["1", "2", "1 2", "0 1 2"])
def test_closed_output_does_not_end_a_run(tmp_path: Path, closed: str) -> None:
    shut = " ".join(f"{number}>&-" for number in closed.split())
    code, _, _ = ended(["sh", "-c", f'"$@" {shut}', "sh", *light(tmp_path)])
    assert code == 0 and (tmp_path / "done").exists()
    rows = metrics.read(tmp_path / "metrics.jsonl")
    # No line of output has gone into a file that was opened in place of the closed ones.
    assert len(rows) == 1000 == len((tmp_path / "metrics.jsonl").read_text().splitlines())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("words", [["--help"], ["--mode=nonsense"], []])
def test_output_to_a_full_disk(tmp_path: Path, words: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        os.write(full, b"so it is one")
    line = [sys.executable, "-m", "jdd.main", *words] if words else light(tmp_path)
    code, _, _ = ended(line, stdout=full, stderr=full)
    os.close(full)
    assert code == (2 if words == ["--mode=nonsense"] else 0)
    assert words or (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("encoding", "wanted"), [("ascii", "91.0 +/- 0.2 %"), ("utf-8", "91.0 ± 0.2 %")]
)
def test_an_ascii_locale_has_a_plain_result(tmp_path: Path, encoding: str, wanted: str) -> None:
    own = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    code, out, err = ended(light(tmp_path), env=os.environ | own)
    assert (code, err) == (0, "") and out.splitlines()[-1] == wanted


def test_output_takes_every_text() -> None:
    class Broken:
        encoding = "ascii"

        def write(self, text: str) -> int:
            raise OSError(errno.EPIPE, "gone")

        def flush(self) -> None:
            raise ValueError("closed")

        def isatty(self) -> bool:
            raise ValueError("closed")

        def fileno(self) -> int:
            raise ValueError("closed")

    for stream in (None, Broken()):
        made = output.Output(stream)  # type: ignore[arg-type]
        assert made.write("text ±\n") == 7 and not made.isatty()
        made.flush()
        made.leave()
        assert output.Output(made).stream is stream  # type: ignore[comparison-overlap]


# --- signals and time limits ----------------------------------------------------------------------


def signalled(
    place: Path, numbers: Sequence[int], wait: float = 0.02, **named: Any
) -> tuple[int, str]:
    """Send signals to a light command that has begun; return its code and standard error."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        light(place, f"time.sleep({wait})"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
        **{"preexec_fn": heeding, **named},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (place / "begun").exists():
        assert child.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    for number in numbers:
        child.send_signal(number)
    _, err = child.communicate(timeout=120)
    return child.returncode, err.decode()


def heeding() -> None:
    """Heed SIGHUP in a child, also where the tests themselves run below nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def ignoring() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_and_leaves_with_130(tmp_path: Path, number: int) -> None:
    code, err = signalled(tmp_path, [number])
    assert code == 130 and not (tmp_path / "done").exists()
    assert err.startswith("stopping: saving first") and err.count("\n") == 2
    assert f"jdd: error: interrupted; to go on: python -m jdd.main --workdir={tmp_path}" in err


def test_signals_that_a_scheduler_repeats_change_nothing(tmp_path: Path) -> None:
    code, err = signalled(tmp_path, [signal.SIGTERM] * 40 + [signal.SIGHUP] * 9)
    assert code == 130 and err.count("\n") == 2 and "to go on" in err, err


def test_a_signal_while_the_command_leaves_changes_nothing() -> None:
    late = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
    code = late + "from jdd import main; main.entry()"
    found, _, err = ended([sys.executable, "-c", code, "--mode=nonsense"])
    assert found == 2 and err.count("\n") == 1


def test_below_nohup_a_closed_terminal_changes_nothing(tmp_path: Path) -> None:
    code, err = signalled(tmp_path, [signal.SIGHUP], 0.002, preexec_fn=ignoring)
    assert (code, err) == (0, "") and (tmp_path / "done").exists()


def test_a_signal_before_the_run_leaves_with_130(tmp_path: Path) -> None:
    wait = "import os, signal\nfor _ in range(3): os.kill(os.getpid(), signal.SIGTERM)\n"
    code = LIGHT.replace("    session = Session", f"    exec({wait!r})\n    session = Session")
    found, _, err = ended([sys.executable, "-c", code, f"--workdir={tmp_path}"])
    assert found == 130 and err == "jdd: interrupted\n"


def test_a_time_limit_ends_the_run_before_it(tmp_path: Path) -> None:
    begun = time.monotonic()
    words = [*light(tmp_path, "time.sleep(0.05)"), "--max-seconds=4", "--debug"]
    code, _, err = ended(words)
    took = time.monotonic() - begun
    assert code == 130 and not (tmp_path / "done").exists()
    last = err.splitlines()[-1]
    assert last.startswith("jdd: error: stopped, before --max-seconds=4 ends; to go on: python -m ")
    assert last.endswith(f"--workdir={tmp_path} --max-seconds=4 --debug")
    assert len(metrics.read(tmp_path / "metrics.jsonl")) > 10 and took < 20


@pytest.mark.parametrize("value", ["0", "-1", "soon", "inf", "nan"])
def test_a_time_limit_that_is_none_is_refused(capsys: Any, value: str) -> None:
    assert main.main([f"--max-seconds={value}"]) == 2
    assert "--max-seconds" in capsys.readouterr().err


def test_a_deadline_leaves_room_for_a_piece_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(options.time, "monotonic", lambda: now[0])
    deadline = options.Deadline(options.Options(max_seconds=1000.0))
    done = 0
    while not deadline.over():
        now[0] += 10 if done != 3 else 300  # one long step, such as a compilation
        done += 1
    assert 1000 - 5 - 2 * 10 <= now[0] - 1000 <= 1000 - 5  # 5 s are left to end in
    assert not options.Deadline(options.Options()).over()


def test_flags_of_a_call_are_in_no_file(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(pipeline, "run", lambda *words: seen.append(words) or {})
    argv = [f"--workdir={tmp_path}", "--max-seconds", "60", "--config.ipc=1", "--debug"]
    assert main.main([*argv, "--profile=3"]) == 0
    text, found = seen[0][4:]
    assert text == f"python -m jdd.main --workdir={tmp_path} --config.ipc=1"
    assert found.again == f"python -m jdd.main {' '.join(argv)} --profile=3"
    assert (found.max_seconds, found.profile) == (60.0, 3)


# --- failures -----------------------------------------------------------------------------------


def test_a_disk_that_fails_is_recognised(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/metrics.jsonl")
    line = str(failures.of(full))
    assert line.startswith("/x/metrics.jsonl: cannot be written (No space left on device); free")
    try:
        try:
            raise full
        except OSError as error:
            raise RuntimeError("a writer ended") from error
    except RuntimeError as error:
        assert str(failures.of(error)) == line
    text = "RESOURCE_EXHAUSTED: Failed writing: \"/x/d\": No space [os_error_code='28']"
    assert str(failures.of(ValueError(text))).startswith("/x/d: cannot be written (No space")
    for other in (ValueError("x"), OSError(errno.ENOENT, "no file"), KeyError("28")):
        assert failures.of(other) is None
    with pytest.raises(StorageError, match="deleted or moved"):
        with failures.guarded(tmp_path / "gone"):
            raise FileNotFoundError(errno.ENOENT, "no file", str(tmp_path / "gone" / "x"))
    with pytest.raises(KeyError) as caught, failures.guarded(tmp_path):
        raise KeyError("unforeseen")
    assert caught.value.__notes__ == [f"working directory: {tmp_path}"]


def limited() -> None:
    """Limit files to 16 KiB, as a full disk does: reports, checkpoints and sets are larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, 16 << 10))


@pytest.mark.slow
def test_a_write_that_fails_ends_the_run_in_one_line(tiny: dict[str, Any], tmp_path: Path) -> None:
    line = command(tiny, tmp_path)
    code, _, err = ended(line, preexec_fn=limited)
    assert code == 5 and err.count("\n") == 1, err
    assert err.startswith("jdd: error: ") and "cannot be written (File too large)" in err
    assert "the same command goes on from there" in err
    assert main.main(line[3:]) == 0 and (tmp_path / "report.html").exists()  # as it says


def test_a_checkpoint_that_fails_ends_in_one_line(tmp_path: Path) -> None:
    """In a process of its own, in which Orbax's threads fail as well."""
    code = (
        "import sys, numpy as np\n"
        "from jdd import main\n"
        "from jdd.run import pipeline\n"
        "from jdd.storage import checkpoints, failures\n"
        "from pathlib import Path\n"
        "def run(*_):\n"
        f"    with failures.guarded(Path({str(tmp_path)!r})):\n"
        f"        steps = checkpoints.Steps({str(tmp_path / 'steps')!r})\n"
        "        steps.save(1, {'small': np.zeros(3, np.float32)})\n"
        "        big = np.random.default_rng(0).random(1 << 16)\n"
        "        try:\n"
        "            steps.save(2, {'small': np.zeros(3, np.float32), 'big': big})\n"
        "        finally:\n"
        "            steps.close()\n"
        "pipeline.run = run\n"
        "main.entry()\n"
    )
    found, _, err = ended([sys.executable, "-c", code], preexec_fn=limited)
    assert found == 5 and err.count("\n") == 1 and "File too large" in err, err
    assert checkpoints.latest(tmp_path / "steps") == 1


@pytest.mark.parametrize("error", [MemoryError(), KeyError("missing"), RecursionError("deep")])
def test_an_unforeseen_error_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, error: Exception
) -> None:
    def run(*_: Any) -> None:
        with failures.guarded(tmp_path):
            raise error

    monkeypatch.setattr(pipeline, "run", run)
    assert main.main([]) == (4 if isinstance(error, MemoryError) else 6)
    err = capsys.readouterr().err
    assert err.startswith("jdd: error: ") and err.count("\n") == 1
    files = list(tmp_path.glob("error-*.txt"))
    if isinstance(error, MemoryError):
        assert not files and "out of memory" in err
        return
    (file,) = files
    assert str(file) in err and type(error).__name__ in err
    assert "in run" in file.read_text() and file.read_text().startswith("Traceback")
    assert main.main(["--debug"]) == 6
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_run_whose_directory_is_deleted_ends_in_one_line(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    log = metrics.Metrics.log

    def deleted(self: metrics.Metrics, stage: str, step: int, **scalars: Any) -> None:
        log(self, stage, step, **scalars)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)

    monkeypatch.setattr(metrics.Metrics, "log", deleted)
    assert main.main(command(tiny, tmp_path / "run")[3:]) == 5
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{tmp_path / 'run'}" in err and "deleted or moved" in err
    assert not (tmp_path / "run" / "report.html").exists()


# --- places -------------------------------------------------------------------------------------

ELSEWHERE = Path("/proc/jdd-cache")  # not even root can write there


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is Linux's")
def test_an_unwritable_cache_is_found_before_the_first_write(
    tiny: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises(OSError):
        ELSEWHERE.mkdir()
    line = command(tiny, tmp_path / "run", **{"data.cache_dir": ELSEWHERE, "baselines.full": True})
    assert main.main(line[3:]) == 2
    err = capsys.readouterr().err
    assert "config.data.cache_dir=/proc/jdd-cache: /proc cannot be written" in err
    assert not (tmp_path / "run").exists()


def test_a_finished_run_on_a_read_only_disk_shows_its_result(
    finished: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The disk is read-only for every call that opens a file for writing or makes a folder."""
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return opened(path, flags, *more, **named)

    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(BadInput, match="Read-only file system"):
        workdir.writable("--workdir", finished)
    assert main.main(command(tiny, finished)[3:]) == 0
    shown = capsys.readouterr().out
    assert "is finished and read-only" in shown and "MLP" in shown.splitlines()[-1]
    more = command(tiny, finished, **{"eval.n": 3})  # a stage has to run
    assert main.main(more[3:]) == 2
    assert "cannot be written (Read-only file system)" in capsys.readouterr().err
    monkeypatch.undo()
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
