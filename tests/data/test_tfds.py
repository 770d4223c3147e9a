"""The tfds source, on a set prepared here without TensorFlow."""

import importlib.util
import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from jdd.data import load
from tests.data.test_streamed import alike, both
from tests.data.tiny_sets import pixels, refused

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")
WITHOUT_TENSORFLOW = importlib.util.find_spec("tensorflow") is None
NAMES = ["ant", "bee"]


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """Encoded bytes as images need no TensorFlow to be written."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Scalar(np.int64),
            "image": tfds.features.Image(shape=(6, 6, 3)),
            "label": tfds.features.ClassLabel(names=NAMES),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 12), "test": self._generate_examples(12, 18)}

    def _generate_examples(self, start, stop):
        for i in range(start, stop):
            out = io.BytesIO()
            Image.fromarray(pixels(i)).save(out, "PNG")
            yield i, {"id": i, "image": out.getvalue(), "label": i % 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    logging.getLogger("absl").setLevel(logging.ERROR)
    top = tmp_path_factory.mktemp("tfds")
    TinyPhotos(data_dir=top, file_format="array_record").download_and_prepare()
    return top


def test_a_prepared_set_is_read(data_dir):
    data = load({"name": "tiny_photos", "source": "tfds", "path": str(data_dir)})
    assert data.class_names == ("ant", "bee") and data.shape == (6, 6, 3)
    assert len(data.train.labels) == 12 and len(data.test.labels) == 6
    # record order is tfds's own shuffle: every image still has its label
    labels = {pixels(i).tobytes(): i % 2 for i in range(18)}
    for split in (data.train, data.test):
        back = np.round(data.transform.inverse(split.images) * 255).astype(np.uint8)
        assert [labels[image.tobytes()] for image in back] == split.labels.tolist()


def test_a_prepared_set_is_the_same_streamed(data_dir):
    alike(*both({"name": "tiny_photos", "source": "tfds", "path": str(data_dir)}))


def test_the_folder_of_the_set_itself_and_a_second_read(data_dir, monkeypatch):
    first = load({"name": "photos", "path": str(data_dir / "tiny_photos" / "1.0.0")})
    monkeypatch.setattr("jdd.data.sources.tfds_sets.read", None)  # now from the cache
    again = load({"name": "photos", "path": str(data_dir / "tiny_photos" / "1.0.0")})
    assert first.fingerprint == again.fingerprint


def test_another_set_does_not_pass_for_a_known_one(data_dir):
    path = str(data_dir / "tiny_photos" / "1.0.0")
    refused(lambda: load({"name": "mnist", "path": path}), path, "'tiny_photos'", "'mnist'")


def test_sizes_are_checked_and_changed_as_for_files(data_dir):
    config = {"name": "tiny_photos", "source": "tfds", "path": str(data_dir)}
    assert load({**config, "size": 4}).shape == (4, 4, 3)


def test_a_format_that_needs_tensorflow_is_refused(tmp_path):
    info = tmp_path / "tiny_photos" / "1.0.0" / "dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"name": "tiny_photos", "fileFormat": "tfrecord"}))
    config = {"name": "tiny_photos", "source": "tfds", "path": str(tmp_path)}
    refused(lambda: load(config), "1.0.0", "tfrecord", "array_record")
    info.write_text("{")
    refused(lambda: load(config), "dataset_info.json", "cannot be read")


@pytest.mark.skipif(not WITHOUT_TENSORFLOW, reason="TensorFlow is here: it would be prepared")
@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_an_unprepared_set_without_tensorflow_is_one_line(tmp_path, name, capfd):
    config = {"name": name, "path": str(tmp_path), "source": "tfds"}
    refused(lambda: load(config), "config.data.source", "TensorFlow", "pip install 'jdd[tfds]'")
    assert capfd.readouterr().err == ""


def test_the_default_folder_is_that_of_tfds(tmp_path, monkeypatch, data_dir):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert load({"name": "tiny_photos", "source": "tfds"}).classes == 2


def test_sources_that_cannot_be(tmp_path):
    file = tmp_path / "a.zip"
    file.write_bytes(b"")
    config = {"name": "mnist", "source": "tfds"}
    refused(lambda: load({**config, "path": str(file)}), "config.data.path", "source=folder")
    refused(lambda: load({"name": "tiny_imagenet", "source": "tfds"}), "config.data.source")


def test_tensorflow_datasets_itself_may_be_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(lambda: load({"name": "mnist"}), "config.data.source", "pip install")
