"""data.stream: the same set, read from a file row by row, and never more than is asked for."""

import tracemalloc

import numpy as np
import pytest

from jdd.data import Rows, Streamed, cache, load
from jdd.data.sources.image_buffer import Spool
from jdd.data.streamed import RowSums, sums_of
from tests.data.tiny_sets import encode, pixels, refused, tree, write_folder, write_tar, write_zip


def both(config):
    return load(config), load({**config, "stream": True})


def alike(held, streamed, exact=True):
    assert streamed.fingerprint == held.fingerprint and streamed.notes == held.notes
    assert streamed.class_names == held.class_names and streamed.shape == held.shape
    for name in ("train", "val", "test"):
        a, b = getattr(held, name), getattr(streamed, name)
        if a is None:
            assert b is None
            continue
        assert isinstance(b.images, Streamed) and b.images.dtype == np.float32
        assert b.images.shape == a.images.shape and len(b.images) == len(a.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_allclose(np.asarray(b.images), a.images, atol=0 if exact else 1e-5)


@pytest.mark.parametrize(
    "more", [{}, {"val": 3}, {"size": 4}, {"test": 0.4}, {"zca": "kornia"}, {"zca": "frepo"}]
)
def test_a_folder_is_the_same_set_streamed(tmp_path, more):
    splits = ("",) if "test" in more else ("train", "test")
    path = write_folder(tmp_path / "set", tree(splits=splits, count=6))
    alike(*both({"name": "mine", "path": str(path), **more}), exact="zca" not in more)


def test_archives_and_grey_images_among_colours(tmp_path):
    files = tree(count=4) | {
        "train/ant/0.png": encode(pixels(90, grey=True)),
        "test/ant/1.png": encode(pixels(91, grey=True)),
    }
    files = dict(sorted(files.items(), key=lambda item: item[0][::-1]))  # stored in another order
    for path in (write_zip(tmp_path / "a.zip", files), write_tar(tmp_path / "a.tar", files)):
        held, streamed = both({"name": "mine", "path": str(path)})
        assert any("grey" in note for note in held.notes)
        alike(held, streamed)
    grey = write_folder(tmp_path / "grey", tree(grey=True))
    alike(*both({"name": "mine", "path": str(grey)}))
    (grey / "preview.png").write_bytes(encode(pixels(92)))  # of no class, and in colour
    held, streamed = both({"name": "mine", "path": str(grey)})
    assert held.shape[-1] == 1
    alike(held, streamed)


def test_images_of_two_sizes_are_refused(tmp_path):
    spool = Spool(tmp_path / "pixels")
    spool.extend(np.zeros((2, 8, 8, 1), np.uint8))
    refused(lambda: spool.extend(np.zeros((2, 10, 10, 1), np.uint8)), "images", "8x8 and 10x10")
    spool.close()


def test_npz_and_what_cannot_stream(tmp_path):
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (20, 6, 6), np.uint8), np.arange(20) % 2
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=x, labels=y)
    alike(*both({"name": "mine", "path": str(path)}))
    alike(*both({"name": "mine", "path": str(path), "size": 3}))
    for wrong, word in ((x / 255.0, "float64"), (np.asfortranarray(x), "Fortran")):
        np.savez(tmp_path / "b.npz", images=wrong, labels=y)
        call = {"name": "mine", "path": str(tmp_path / "b.npz"), "stream": True}
        refused(lambda call=call: load(call), "config.data.stream", word)
    refused(lambda: load({"name": "digits", "stream": True}), "config.data.stream")
    np.savez(tmp_path / "c.npz", images=x[..., None, None], labels=y)
    refused(lambda: load({"name": "m", "path": str(tmp_path / "c.npz"), "stream": True}), "images")


def test_images_are_decoded_once_and_a_broken_off_file_is_none(tmp_path, monkeypatch):
    path = write_folder(tmp_path / "set", tree())
    config = {"name": "mine", "path": str(path), "stream": True}
    (path / "train/ant/0.png").write_bytes(b"no image")
    refused(lambda: load(config), "0.png")
    assert not list(cache.folder().glob("stream-*/"))
    (path / "train/ant/0.png").write_bytes(encode(pixels(0)))
    first = load(config)
    images = np.array(first.train.images[:])
    monkeypatch.setattr("jdd.data.sources.folder.read", None)  # decoding again would fail
    monkeypatch.setattr("jdd.data.dataset.channel_stats", None)  # as would reading it all
    assert load(config).fingerprint == first.fingerprint
    (file,) = cache.folder().glob("stream-*/pixels.u8")
    monkeypatch.undo()
    config["cache_dir"] = str(file.parents[1])
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:7] + bytes([whole[7] ^ 1]) + whole[8:]):
        file.write_bytes(damaged)
        assert load(config).fingerprint == first.fingerprint
        assert file.read_bytes() == whole  # made again
    file.unlink()
    load(config)
    assert file.read_bytes() == whole
    about = file.with_name("about.npz")
    about.write_bytes(about.read_bytes()[:-40])
    np.testing.assert_array_equal(load(config).train.images[:], images)
    (tmp_path / "file").write_text("")
    refused(lambda: load({**config, "cache_dir": str(tmp_path / "file")}), "config.data.cache_dir")


def test_an_image_damaged_during_a_run_is_refused_when_it_is_read(tmp_path):
    pixels = np.arange(5 * 48, dtype=np.uint8).reshape(5, 4, 4, 3)
    known = RowSums(sums_of(pixels), tmp_path / "stream-x/pixels.u8")
    images = Streamed(pixels, sums=known)
    np.testing.assert_array_equal(images[[3, 1, 3]], pixels[[3, 1, 3]])
    pixels[2, 1, 1, 0] ^= 8
    np.testing.assert_array_equal(images.part([0, 4])[:], pixels[[0, 4]])
    refused(lambda: images[1:4], "pixels.u8", "image 2 of 5 is damaged", f"delete {tmp_path}")


class Counted(np.ndarray):
    """A file of pixels that notes how many rows are read at a time."""

    most = 0

    def __getitem__(self, at):
        found = super().__getitem__(at)
        if found.ndim == 4:
            Counted.most = max(Counted.most, len(found))
        return found


def test_rows_are_read_when_they_are_asked_for():
    draw = np.random.default_rng(0)
    stored = draw.integers(0, 256, (12, 4, 4, 3), np.uint8)
    images = Streamed(stored.view(Counted), np.arange(12)[::-1])
    plain, Counted.most = stored[::-1], 0
    for at in (3, -1, slice(2, 5), np.arange(12) % 5 == 0, np.array([[1, 2], [4, 1]])):
        np.testing.assert_array_equal(images[at], plain[at])
        assert Counted.most <= 4
    np.testing.assert_array_equal(images[2, 1:3, 0], plain[2, 1:3, 0])
    np.testing.assert_array_equal(images[[1, 2], :2], plain[[1, 2], :2])
    own = images.part(slice(1, 9)).part(np.arange(8) % 2 == 0)
    np.testing.assert_array_equal(own[:], plain[1:9][::2])
    rows = Rows(images, np.array([[0, 5], [3, 3]]))
    np.testing.assert_array_equal(np.asarray(rows), plain[[[0, 5], [3, 3]]])
    np.testing.assert_array_equal(rows[1], plain[[3, 3]])
    assert len(images[[]]) == 0 and images[[]].shape == (0, 4, 4, 3)


def test_memory_of_loading_does_not_grow_with_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr("jdd.data.transform._NUMBERS", 1 << 16)
    monkeypatch.setattr("jdd.data.sources.npz._BYTES", 1 << 16)
    peaks = []
    for n in (400, 1600):  # 1.2 and 4.9 MB of pixels, four times that in float32
        path = tmp_path / f"{n}.npz"
        np.savez(path, images=np.zeros((n, 32, 32, 3), np.uint8), labels=np.arange(n) % 2)
        tracemalloc.start()
        data = load({"name": "mine", "path": str(path), "stream": True, "val": 0.1})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(data.train.images) + len(data.val.images) + len(data.test.images) == n
    assert peaks[1] < peaks[0] + (1 << 19) < 2 << 20
    assert {p.name for p in cache.folder().glob("stream-*/*")} == {"about.npz", "pixels.u8"}
