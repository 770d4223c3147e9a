"""Directories at URLs: what is pushed is pulled, whole, wherever a command or the network ends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jdd import main
from jdd.errors import BadInput, StorageError
from jdd.run.session import locked
from jdd.storage import remote, remote_lease, remote_manifest, remote_pull
from tests import buckets

URL = "bucket://b/run"
OLD = {"a.json": b"1", "checkpoints/distill/2/x": b"two", "log.jsonl": b"1\n", "same": b"same"}
NEW = {"a.json": b"2", "checkpoints/distill/4/x": b"four", "log.jsonl": b"1\n2\n", "same": b"same"}


class Killed(BaseException):
    """The machine is gone: nothing more is read, written or cleaned up."""


@pytest.fixture(autouse=True)
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "bucket"
    folder.mkdir()
    monkeypatch.setenv(buckets.FOLDER, str(folder))
    monkeypatch.setattr(buckets, "hooks", [])
    monkeypatch.setattr(remote, "EVERY", 0.0)
    monkeypatch.setattr(remote, "_SHARE", 0)
    monkeypatch.setattr(remote_lease, "PAUSE", 0.0)
    monkeypatch.setattr(remote_pull, "_WAIT", 0.0)
    yield
    assert not remote._HELD


@contextlib.contextmanager
def command(machine: Path, url: str = URL) -> Iterator[Path]:
    """Work at a URL, as a run does; a machine is its cache folder."""
    directory = remote.working(url, machine)
    with locked(directory):
        yield directory


def fill(directory: Path, files: dict[str, bytes]) -> None:
    """Make ``files`` all that is in a directory."""
    for _, path in list(remote_pull.files(directory)):
        path.unlink()
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def files(directory: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in remote_pull.files(directory)}


def seen(machine: Path, url: str = URL) -> dict[str, bytes]:
    """Return what a command that reads finds."""
    return files(remote.reading(url, machine, "all"))


def at_names() -> dict[str, bytes]:
    """Return the objects of the state by their names, without those of jdd itself."""
    every = {name.removeprefix("b/run/"): data for name, data in buckets.objects().items()}
    return {name: data for name, data in every.items() if not name.startswith(".jdd/")}


def pushed(machine: Path, state: dict[str, bytes]) -> None:
    with command(machine) as directory:
        fill(directory, state)


def test_what_is_pushed_is_pulled(tmp_path: Path) -> None:
    pushed(tmp_path / "a", OLD)
    assert at_names() == OLD == seen(tmp_path / "b")
    assert not any(".jdd/lock" in name for name in buckets.objects())
    with command(tmp_path / "c") as directory:
        assert files(directory) == OLD and directory.name == "run"
        fill(directory, NEW)
        (directory / ".half.7.part").write_bytes(b"half")
        remote.checkpointed()
        assert seen(tmp_path / "d") == NEW == at_names()
    assert seen(tmp_path / "b") == NEW  # a copy that was there
    assert files(remote.working(URL, tmp_path / "a")) == NEW
    assert not any("staged" in name for name in buckets.objects())


def test_a_reader_needs_no_checkpoints(tmp_path: Path) -> None:
    pushed(tmp_path / "a", OLD | {"experts/g0/e0/x": b"net", "checkpoints/best.json": b"{}"})
    names = set(files(remote.reading(URL, tmp_path / "b")))
    assert names == {"a.json", "log.jsonl", "same", "experts/g0/e0/x", "checkpoints/best.json"}
    names = set(files(remote.reading(URL, tmp_path / "b", "figures")))
    assert names == {"a.json", "log.jsonl", "same", "checkpoints/best.json"}
    inner = remote.reading(f"{URL}/a.json", tmp_path / "b")
    assert inner.read_bytes() == b"1" and inner.name == "a.json"


def test_a_push_that_is_killed_anywhere_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill is before the first, the second, ... read, write or deletion of the push."""
    outcomes = []
    monkeypatch.setattr("jdd.storage.remote_threads._AT_ONCE", 1)
    for number in range(1, 100):
        folder = tmp_path / str(number)
        (folder / "bucket").mkdir(parents=True)
        monkeypatch.setenv(buckets.FOLDER, str(folder / "bucket"))
        pushed(folder / "a", OLD)
        calls = 0

        def kill(verb: str, name: str, number: int = number) -> None:
            nonlocal calls
            calls += 1
            if calls >= number:
                raise Killed

        with contextlib.suppress(Killed), command(folder / "a") as directory:
            fill(directory, NEW)
            buckets.hooks.append(kill)
        buckets.hooks.clear()
        found = seen(folder / "b")
        assert found in (OLD, NEW)
        outcomes.append(found == NEW)
        if calls < number:
            break
        # The same machine goes on from its local copy; another one, once the lock is old.
        with command(folder / "a") as directory:
            assert files(directory) == NEW
        assert seen(folder / "c") == NEW == at_names()
    assert outcomes == sorted(outcomes) and 5 < outcomes.count(False) < len(outcomes) - 5


def test_another_machine_settles_what_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(tmp_path / "a", OLD)

    def kill(verb: str, name: str) -> None:
        if verb == "delete" or (verb == "write" and name == "b/run/log.jsonl"):
            raise Killed

    with contextlib.suppress(Killed), command(tmp_path / "a") as directory:
        fill(directory, NEW)
        buckets.hooks.append(kill)
    buckets.hooks.clear()
    assert at_names() not in (OLD, NEW)
    monkeypatch.setattr(remote_lease, "STALE", -1.0)
    with command(tmp_path / "b") as directory:
        assert files(directory) == NEW == at_names()


def test_a_reader_during_a_push_sees_one_state(tmp_path: Path) -> None:
    pushed(tmp_path / "a", OLD)
    states = [NEW, OLD, NEW]
    busy = False

    def change(verb: str, name: str) -> None:
        nonlocal busy
        if states and not busy and verb == "read" and ".jdd" not in name:
            busy = True  # a whole push between the manifest and this object
            pushed(tmp_path / "a", states.pop())
            busy = False

    buckets.hooks.append(change)
    assert seen(tmp_path / "b") == NEW and not states


def test_two_commands_at_one_url(tmp_path: Path) -> None:
    with command(tmp_path / "a") as directory:
        fill(directory, OLD)
        before = buckets.objects()
        with pytest.raises(BadInput, match=rf"{URL}: in use by process \d+ on .*, its last sign"):
            with command(tmp_path / "b"):
                pytest.fail("both work there")
        with pytest.raises(BadInput, match="in use by process"), command(tmp_path / "a"):
            pytest.fail("both work there")  # on the same machine
        assert buckets.objects() == before
    assert at_names() == OLD


def test_two_commands_that_start_in_the_same_moment(tmp_path: Path) -> None:
    """Both find no lock; the one whose lock is overwritten is refused."""
    other = json.dumps({"id": "x", "host": "other", "process": 7, "time": 1e12})
    wrote = False

    def overwritten(verb: str, name: str) -> None:
        nonlocal wrote
        if verb == "read" and name.endswith("lock.json") and wrote:
            lock = Path(remote_lease.os.environ[buckets.FOLDER]) / "b%2Frun%2F.jdd%2Flock.json"
            lock.write_text(other)
        wrote = wrote or verb == "write"

    buckets.hooks.append(overwritten)
    with pytest.raises(BadInput, match="in use by process 7 on other"), command(tmp_path / "a"):
        pytest.fail("it is not its own")
    assert json.loads(buckets.objects()["b/run/.jdd/lock.json"])["host"] == "other"


def test_a_stale_lock_is_taken_over_and_its_owner_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        remote_lease.Lost, match="has taken it over and pushed; this command writes nothing"
    ):
        with command(tmp_path / "a") as slept:
            fill(slept, OLD)
            remote.push()
            monkeypatch.setattr(remote_lease, "STALE", -1.0)
            with monkeypatch.context() as patch:  # another process has no mirrors of this one
                patch.setattr(remote, "_HELD", {})
                with command(tmp_path / "b") as directory:
                    assert files(directory) == OLD
                    fill(directory, NEW)
            fill(slept, {"late": b"late"})
    assert re.search(
        rf"{URL}: the lock of process \d+ on .* is taken over", capsys.readouterr().out
    )
    assert at_names() == NEW == seen(tmp_path / "c")
    with command(tmp_path / "a") as directory:
        assert files(directory) == NEW


def test_a_lock_that_is_another_s_is_found_before_and_after_the_data(tmp_path: Path) -> None:
    other = json.dumps({"id": "x", "host": "other", "process": 7, "time": 1e12}).encode()
    for moment in ("b/run/.jdd/manifest.json", "b/run/log.jsonl"):
        url = f"{URL}-{moment[-4:]}"
        moment = moment.replace("b/run", f"b/run-{moment[-4:]}")

        def taken(verb: str, name: str, moment: str = moment, url: str = url) -> None:
            if name == moment:
                buckets.hooks.clear()
                remote.Objects(url).write(remote_lease.NAME, other)

        with pytest.raises(remote_lease.Lost, match="process 7 on other has taken it over"):
            with command(tmp_path / "a", url) as directory:
                fill(directory, OLD)
                buckets.hooks.append(taken)
        assert remote_manifest.read(remote.Objects(url)) is None


def test_a_lock_is_renewed_while_its_owner_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_lease, "BEAT", 0.01)
    with command(tmp_path / "a") as directory:
        lease = remote._HELD[directory]._lease
        first = lease.owner()
        for _ in range(1000):
            if lease.owner() != first:
                break
            time.sleep(0.01)
        else:
            pytest.fail("it is never renewed")


def test_a_command_that_was_killed_is_no_owner_on_its_machine(tmp_path: Path) -> None:
    def kill(verb: str, name: str) -> None:
        raise Killed

    with contextlib.suppress(Killed), command(tmp_path / "a") as directory:
        fill(directory, OLD)
        buckets.hooks.append(kill)
    buckets.hooks.clear()
    with pytest.raises(BadInput, match="in use by"), command(tmp_path / "b"):
        pytest.fail("elsewhere it may still run")
    with command(tmp_path / "a"):
        pass
    assert at_names() == OLD


def down(verb: str, name: str) -> None:
    raise buckets.Down("no route to host")


def test_a_failed_push_is_one_line_and_made_up_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with command(tmp_path / "a") as directory:
        fill(directory, OLD)
        buckets.hooks.append(down)
        remote.checkpointed()
        line = f"{URL}: not pushed (Down: no route to host); it is tried again"
        assert capsys.readouterr().out.startswith(line)
        buckets.hooks.clear()
        remote.checkpointed()
        assert at_names() == OLD
    with pytest.raises(StorageError, match=f"in {directory}, and the same command") as caught:
        with command(tmp_path / "a"):
            fill(directory, NEW)
            buckets.hooks.append(down)
    assert caught.value.exit_code == 5
    buckets.hooks.clear()
    assert seen(tmp_path / "b") == OLD
    with command(tmp_path / "a"):
        assert files(directory) == NEW
    assert seen(tmp_path / "b") == NEW


def test_a_manifest_whose_answer_was_lost_is_adopted(tmp_path: Path) -> None:
    """It is there, and the network failed before it was confirmed."""
    with command(tmp_path / "a") as directory:
        fill(directory, OLD)
        remote.push()
        fill(directory, NEW)
        mirror = remote._HELD[directory]
        written = remote_manifest.write

        def lost(objects: remote.Objects, manifest: remote.Manifest) -> None:
            written(objects, manifest)
            buckets.hooks.append(down)
            objects.read("any")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote_manifest, "write", lost)
            mirror.push()
        buckets.hooks.clear()
        assert seen(tmp_path / "b") == NEW != at_names()
        fill(directory, NEW | {"more": b"more"})
    assert seen(tmp_path / "b") == at_names() == NEW | {"more": b"more"}


def test_work_after_a_lost_answer_is_not_pulled_over(tmp_path: Path) -> None:
    """The manifest is there, and the network stayed down to the end of the command."""
    pushed(tmp_path / "a", OLD)
    written = remote_manifest.write

    def lost(objects: remote.Objects, manifest: remote.Manifest) -> None:
        written(objects, manifest)
        buckets.hooks.append(down)
        objects.read("any")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(remote_manifest, "write", lost)
        with command(tmp_path / "a") as directory:
            fill(directory, NEW)
            remote.push()
            fill(directory, NEW | {"more": b"more"})
    buckets.hooks.clear()
    with command(tmp_path / "a") as directory:
        assert files(directory) == NEW | {"more": b"more"}
    assert seen(tmp_path / "b") == NEW | {"more": b"more"}


def test_a_copy_for_reading_is_no_working_directory(tmp_path: Path) -> None:
    pushed(tmp_path / "a", OLD | {"checkpoints/2/x": b"x"})
    copy = remote.reading(URL, tmp_path / "b")
    with pytest.raises(BadInput, match=f"only read.*--workdir={URL}"):
        remote.of(copy)
    assert "checkpoints/2/x" in at_names()


def test_an_emptied_bucket_is_no_reason_to_delete_the_local_copy(tmp_path: Path) -> None:
    pushed(tmp_path / "a", OLD)
    for path in (tmp_path / "bucket").iterdir():
        path.unlink()
    with pytest.raises(BadInput, match="holds nothing, and its local copy"):
        remote.working(URL, tmp_path / "a")
    assert seen_locally(tmp_path / "a") == OLD


def seen_locally(machine: Path) -> dict[str, bytes]:
    return files(remote.local(URL, machine))


def test_a_url_inside_a_pushed_directory_is_refused(tmp_path: Path) -> None:
    pushed(tmp_path / "a", OLD)
    with pytest.raises(BadInput, match=rf"/experts: lies in {URL}, which a run"):
        remote.working(f"{URL}/experts", tmp_path / "b")
    with pytest.raises(BadInput, match="no file, and no directory"):
        remote.reading(f"{URL}/experts", tmp_path / "b")


def manifest(**changed: object) -> bytes:
    good = {"version": 1, "id": "1", "files": {"a": [1, DIGEST]}, "staged": {}, "removed": []}
    return json.dumps(good | changed).encode()


DIGEST = hashlib.sha256(b"a").hexdigest()
HOSTILE = {
    "outside": manifest(files={"../../a": [1, DIGEST]}),
    "absolute": manifest(files={"/tmp/a": [1, DIGEST]}),
    "the lock": manifest(files={".jdd/lock.json": [1, DIGEST]}),
    "removes outside": manifest(removed=["../x"]),
    "staged elsewhere": manifest(staged={"a": "../../other"}),
    "a negative size": manifest(files={"a": [-1, DIGEST]}),
    "no digest": manifest(files={"a": [1, "x"]}),
    "types": manifest(files=[1]),
    "a newer version": manifest(version=2),
    "truncated": manifest()[:-9],
    "no JSON": b"\xff\xfe",
    "a file that grew": manifest(),
    "a file that is not there": manifest(files={"b": [1, DIGEST]}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_damaged_manifest_is_one_line(tmp_path: Path, kind: str) -> None:
    top = remote.Objects(URL)
    top.write(remote_manifest.NAME, HOSTILE[kind])
    top.write("a", b"a" * 10**6)
    for call in (remote.working, remote.reading):
        with pytest.raises(BadInput) as caught:
            call(URL, tmp_path / "m" / "cache")
        assert "\n" not in str(caught.value) and str(caught.value).startswith(URL[:9])
    written = [p for p in (tmp_path / "m").rglob("*") if p.is_file()]
    assert {p.name for p in written} <= {".lock", "mirror.json", ".digests"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("foo://b/run", "foo:// is none that etils.epath opens"),
        ("gs://", "names no bucket"),
        ("gs://b/run", "pip install gcsfs"),
    ],
)
def test_urls_that_nothing_opens(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    for flag in ("--workdir", "--mode=evaluate --set", "--mode=verify --path"):
        assert main.main(f"{flag}={url}".split()) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
    with pytest.raises(SystemExit):
        sys.exit(
            main.main([f"--workdir={url}", "--coordinator=h:1", "--processes=2", "--process=0"])
        )
    assert "a folder that all processes see" in capsys.readouterr().err


def test_the_packages_below_epath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``gs://`` by epath's own backend, with fsspec's memory in place of Cloud Storage."""
    import fsspec
    from etils.epath import backend

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    monkeypatch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda self, name: memory)
    url = "gs://bucket-of-a-test/run"
    with command(tmp_path / "a", url) as directory:
        fill(directory, OLD)
        remote.push()
        fill(directory, NEW)
    assert seen(tmp_path / "b", url) == NEW
    assert not any("staged" in path for path in memory.find("/"))


def test_a_folder_that_epath_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with folders, which are made where they are missing."""
    from etils.epath import gpath, register

    def local(parts: tuple[str | os.PathLike[str], ...]) -> list[str]:
        return [os.fspath(part).removeprefix("disk:/") for part in parts]

    class Disk(gpath.PosixGPath):
        def __new__(cls, *parts: str | os.PathLike[str]) -> Disk:
            return super().__new__(cls, *local(parts))

        def __init__(self, *parts: str | os.PathLike[str]) -> None:
            if sys.version_info >= (3, 12):  # there the path is set here
                super().__init__(*local(parts))

    monkeypatch.setitem(register._URI_PREFIXES_TO_CLS, "disk://", Disk)
    url = f"disk:/{tmp_path}/mount/run"
    with command(tmp_path / "a", url) as directory:
        fill(directory, OLD)
        remote.push()
        fill(directory, NEW)
    assert seen(tmp_path / "b", url) == NEW
    assert (tmp_path / "mount/run/log.jsonl").read_bytes() == NEW["log.jsonl"]
