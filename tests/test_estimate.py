"""What a run costs is told before the images are there, from steps that fit the machine."""

from __future__ import annotations

import numpy as np
import pytest

from jdd import data
from jdd.data.facts import FACTS
from jdd.errors import BadInput
from jdd.stages import base
from tests import runs
from tests.conftest import CLASSES
from tests.test_decoupled import OWN, keys_of


@pytest.fixture
def large(monkeypatch):
    """A known dataset that no machine holds."""
    facts = FACTS["tiny_imagenet"]._replace(
        name="large", shape=(16, 16, 3), classes=CLASSES, sizes=(40_000_000, 3_000_000)
    )
    monkeypatch.setitem(FACTS, "large", facts)
    monkeypatch.setattr(base, "_PIXELS", {"cpu": 1 << 11})  # 8 images; of more, 4 are timed
    return facts


def test_a_dataset_that_is_not_here_is_foretold(large, tiny, tmp_path, capsys):
    keys = keys_of(
        tiny, "sre2l", **{"data.name": "large", "data.path": "", "squeeze.batch": 32,
        "eval.batch": 16, "ipc": 8, "image_batch": 24, "class_images": 8, "data.stream": True},
    )  # fmt: skip
    found = runs.run(keys, tmp_path / "none", "estimate")
    assert not (tmp_path / "none").exists()
    out = capsys.readouterr().out
    assert "large is not here: foretold for 40000000 training and 3000000 test images" in out
    for words in ("from 4 of 32 images", "from 4 of 24 images", "from 4 of 16 images"):
        assert words in out
    assert "1250000 steps an epoch" in out  # of the real batch
    pixels = 43_000_000 * 16 * 16 * 3
    assert pixels < found["squeeze"]["disk_bytes"] < pixels + (1 << 20)
    assert found["recover"]["disk_bytes"] == 4 * 24 * 16 * 16 * 3
    labels = 4 * 3 * 2 * (16 * CLASSES * 2)  # epochs, sets, steps of 16 rows of logits
    assert labels < found["relabel"]["disk_bytes"] < 100 * labels
    assert all(found[s]["seconds"] > 0 for s in ("squeeze", "recover", "relabel", "evaluate"))
    for mode in ("all", "squeeze"):
        with pytest.raises(BadInput, match="config.data.path: empty"):
            runs.run(keys, tmp_path / "none", mode)


def test_what_is_there_is_no_placeholder(large, toy, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for config, answer in (
        ({"name": "large"}, True),
        ({"name": "imagenet", "size": 32}, True),
        ({"name": "cifar10"}, True),
        ({"name": "digits"}, False),
        ({"name": "large", "path": str(toy)}, False),
        ({"name": "mine"}, False),
    ):
        assert data.absent(config) is answer, config
    (tmp_path / "cifar10/3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10/3.0.2/dataset_info.json").write_text("{}")
    assert not data.absent({"name": "cifar10"})
    found = data.placeholder({"name": "imagenet", "size": 32})
    assert found.train.images.shape == (1281167, 32, 32, 3) and found.classes == 1000
    assert found.train.images.strides == (0, 0, 0, 0)
    assert np.bincount(found.test.labels).tolist() == [50] * 1000
    assert set(np.bincount(found.train.labels)) == {1281, 1282}


def test_a_share_of_a_step_is_timed_where_it_is_large(large, tiny, tmp_path):
    devices = runs.work({**keys_of(tiny, "sre2l", **OWN)}, tmp_path).devices
    assert base.share(8, (16, 16), devices) == 8 and base.scaled(8, 8) == ""
    assert base.share(9, (16, 16), devices) == 4 and base.share(3, (64, 64), devices) == 3
    assert base.share(99, (8, 8), devices) == 16
