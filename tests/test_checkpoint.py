"""Trees on disk: they come back to the bit, and no library's own line precedes jdd's."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest

from jdd.errors import BadInput
from jdd.storage import checkpoints

TREE = {"images": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.int32(4)}


@pytest.fixture
def logged(caplog):
    """All that Orbax logs from warnings on: absl's logger passes nothing to the root by itself."""
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def same(a, b):
    return all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in b)


def lines(logged):
    return [r.getMessage() for r in logged.records if r.levelno >= logging.WARNING]


def test_a_resumed_step_is_read_without_a_stray_line(logged, tmp_path):
    steps = checkpoints.Steps(tmp_path / "distill")
    steps.save(4, TREE)
    steps.close()
    again = checkpoints.Steps(tmp_path / "distill")
    assert again.latest() == checkpoints.latest(tmp_path / "distill") == 4
    assert same(again.restore(4, TREE), TREE)
    again.close()
    checkpoints.save(tmp_path / "e0001", TREE)  # as experts are stored
    assert same(checkpoints.restore(tmp_path / "e0001", TREE), TREE)
    assert lines(logged) == []


def test_a_damaged_step_is_one_error_of_ours(logged, tmp_path):
    steps = checkpoints.Steps(tmp_path / "distill")
    steps.save(4, TREE)
    steps.close()
    with pytest.raises(BadInput, match=r"step.* is int32\[\]; this run needs int32\[2\]"):
        checkpoints.restore(tmp_path / "distill/4/default", {**TREE, "step": np.zeros(2, np.int32)})
    (tmp_path / "distill/4/default/_METADATA").unlink()
    shutil.rmtree(tmp_path / "distill/4/default/ocdbt.process_0")
    with pytest.raises(BadInput, match="unreadable checkpoint .*; delete it"):
        checkpoints.restore(tmp_path / "distill/4/default", TREE)
    assert lines(logged) == []


def damage(path, how, at=0.5):
    """Flip a bit in the middle of a file, or cut it there."""
    data = bytearray(path.read_bytes())
    place = int(len(data) * at)
    if how == "cut":
        del data[place:]
    else:
        data[place] ^= 16
    path.write_bytes(bytes(data))


def test_a_flipped_bit_is_never_another_value(tmp_path, capfd):
    tree = {"w": np.linspace(0, 1, 300, dtype=np.float32), "n": np.int32(3)}
    checkpoints.save(tmp_path / "whole/e0001", tree)
    files = [p.relative_to(tmp_path) for p in (tmp_path / "whole/e0001").rglob("*") if p.is_file()]
    refused = 0
    for number, file in enumerate(sorted(files) * 3):
        shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        place = tmp_path / str(number) / file.relative_to("whole")
        damage(place, "flip", (number // len(files) + 0.5) / 3)
        try:
            assert same(checkpoints.restore(tmp_path / str(number) / "e0001", tree), tree)
        except checkpoints.Damaged as error:
            refused += 1
            assert str(error).count("\n") == 0 and "makes it again" in str(error)
    # Without digests some of these were other values, and threads printed tracebacks.
    assert refused >= len(files) and capfd.readouterr().err == ""


def test_without_digests_damage_is_not_found_and_the_key_switches_them_off(tmp_path):
    tree = {"w": np.zeros(4000, np.float32)}
    checkpoints.save(tmp_path / "e0001", tree)
    checkpoints.save(tmp_path / "other", {"w": np.ones(4000, np.float32)})
    shutil.rmtree(tmp_path / "e0001")
    shutil.copytree(tmp_path / "other", tmp_path / "e0001")  # readable, and not what was written
    with pytest.raises(checkpoints.Damaged, match="arrays are not those written"):
        checkpoints.restore(tmp_path / "e0001", tree)
    assert checkpoints.restore(tmp_path / "e0001", tree, verify=False)["w"][0] == 1
    assert checkpoints.without_digest([tmp_path / "e0001"]) == 0
    (tmp_path / ".digests").unlink()
    assert checkpoints.restore(tmp_path / "e0001", tree)["w"][0] == 1
    assert checkpoints.without_digest([tmp_path / "e0001"]) == 1


def test_the_older_whole_checkpoint_is_used_if_the_newest_is_damaged(tmp_path, capfd):
    steps = checkpoints.Steps(tmp_path / "whole")
    for step in (2, 4):
        steps.save(step, {"x": np.full(500, step, np.float32)})
    steps.close()
    like = {"x": np.zeros(500, np.float32)}
    files = [p for p in (tmp_path / "whole/4").rglob("*") if p.is_file()]
    older = 0
    for number, (file, how) in enumerate([(f, h) for f in sorted(files) for h in ("flip", "cut")]):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder / file.relative_to(tmp_path / "whole"), how)
        steps, lines = checkpoints.Steps(folder), list[str]()
        step, tree = steps.newest(like, say=lines.append)
        steps.close()
        assert (tree["x"] == step).all() and step in (2, 4)
        if step == 2:
            older += 1
            assert len(lines) == 1 and lines[0].endswith("goes on from step 2")
            assert checkpoints.latest(folder) == 2  # so that step 4 is written again
        else:
            assert lines == []
    assert older >= 5 and capfd.readouterr().err == ""


def test_no_whole_checkpoint_is_one_line(tmp_path):
    steps = checkpoints.Steps(tmp_path)
    steps.save(4, TREE)
    for file in (tmp_path / "4").rglob("*"):
        if file.is_file():
            damage(file, "cut")
    with pytest.raises(checkpoints.Damaged, match=f"; delete {tmp_path}, and the same command"):
        steps.newest(TREE)
    steps.close()
