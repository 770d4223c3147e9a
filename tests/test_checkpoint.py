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
