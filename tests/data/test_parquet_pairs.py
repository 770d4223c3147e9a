"""Images with captions from Parquet: columns, splits, several captions, bad rows by number."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jdd.data import pairs
from jdd.data.sources import parquet_pairs
from jdd.errors import BadInput
from tests.data.test_captioned import load, notes_of, png

pa = pytest.importorskip("pyarrow")
pq = importlib.import_module("pyarrow.parquet")
FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def cells(numbers: Any) -> Any:
    """A column of encoded images, as ``datasets`` writes it; None for a null."""
    made = [None if i is None else {"bytes": png(i), "path": None} for i in numbers]
    return pa.array(made, type=FILE)


def written(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def words(split: pairs.PairSplit) -> list[tuple[int, str]]:
    return list(zip(split.image_of.tolist(), split.captions, strict=True))


def test_splits_by_file_name_and_rows_that_share_an_image(tmp_path):
    place = tmp_path / "data"
    train = [0, 1, 0, 2]
    written(place / "train-00000-of-00002.parquet", image=cells(train), caption=list("abcd"))
    written(place / "train-00001-of-00002.parquet", image=cells([1, 3]), caption=["e", "f"])
    written(place / "test-00000-of-00001.parquet", image=cells([4]), caption=["g"])
    found = load(tmp_path, tmp_path)
    assert words(found.train) == [(0, "a"), (0, "c"), (1, "b"), (1, "e"), (2, "d"), (3, "f")]
    assert words(found.test) == [(0, "g")] and not notes_of(found)
    back = np.round(found.transform.inverse(found.train.images) * 255).astype(np.uint8)
    for i, image in enumerate(back):
        np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(png(i)))))
    again = load(tmp_path, tmp_path)  # from the cache
    assert again.fingerprint == found.fingerprint and words(again.train) == words(found.train)


SHAPES: dict[str, dict[str, Any]] = {
    "a list": {"caption": [["a", "b"], ["c"], ["d"]]},
    "one a row": {"text": ["a", "c", "d"]},
    "bytes of text": {"captions": [[b"a", b"b"], [b"c"], [b"d"]]},
    "objects": {"sentences": [[{"raw": "a"}, {"raw": "b"}], [{"raw": "c"}], [{"raw": "d"}]]},
    "an object of lists": {"sentences": [{"raw": ["a", "b"]}, {"raw": ["c"]}, {"raw": ["d"]}]},
    "numbered": {"caption_0": ["a", "c", "d"], "caption_1": ["b", None, None]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_captions_of_every_shape_and_a_column_of_splits(shape, tmp_path):
    split = ["train", "val", "test"]
    columns = SHAPES[shape] | {"split": split, "image": [png(i) for i in range(3)], "id": [1, 2, 3]}
    found = load(written(tmp_path / "test.parquet", **columns), tmp_path)
    own = ["a"] if shape == "one a row" else ["a", "b"]
    assert list(found.train.captions) == own and found.test.captions == ("d",)
    assert found.val is not None and found.val.captions == ("c",) and not notes_of(found)


def test_a_single_split_is_the_training_data(tmp_path):
    path = written(tmp_path / "test-0.parquet", image=cells(range(5)), caption=list("abcde"))
    found = load(path, tmp_path)
    assert (len(found.train.images), len(found.test.images)) == (4, 1)
    assert "no test split stated: 1 of 5 images" in found.notes[0]


def test_rows_left_out_are_named(tmp_path):
    image = cells([0, 1, 2, None, 0, 3, 0])
    caption = ["a", " ", None, "d", "a", "f", "a  "]
    split = ["train", "train", "train", "train", "train", "test", "test"]
    path = written(tmp_path / "x.parquet", image=image, caption=caption, split=split)
    found = load(path, tmp_path)
    assert words(found.train) == [(0, "a")] and words(found.test) == [(0, "f"), (1, "a")]
    assert notes_of(found) == (
        f"2 of 7 captions left out: empty ({path}, row 1)",
        f"1 of 7 captions left out: no image ({path}, row 3)",
        f"1 of 7 captions left out: the same words of the same image ({path}, row 4)",
        f"images in two splits: 1 (such as {path}, row 0 and {path}, row 6)",
    )


def test_an_animated_picture_counts_by_its_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((4, 4, 3), v, np.uint8)) for v in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    path = written(tmp_path / "x.parquet", image=[buffer.getvalue(), png(1, 4)], text=["a", "b"],
                   split=["train", "test"])  # fmt: skip
    found = load(path, tmp_path)
    assert np.round(found.transform.inverse(found.train.images) * 255).max() == 10
    assert any("frame" in note for note in found.notes)


def not_utf8() -> Any:
    data = pa.array([b"fine", b"caf\xe9"])
    return pa.Array.from_buffers(pa.string(), 2, data.buffers())


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an image": ({"image": [png(0), b"nothing"], "text": list("ab")}, {},
                 "row 1: not an image; replace or remove the image of this row"),
    "a string": ({"image": cells([0, 1]), "text": not_utf8()}, {},
                 r"row 1: a caption that is not UTF-8 \(byte 0xe9\)"),
    "bytes": ({"image": cells([0, 1]), "text": [b"a", b"\xff"]}, {}, "row 1: a caption that is"),
    "numbers": ({"image": cells([0]), "text": [3]}, {}, "row 0: caption 3"),
    "a split": ({"image": cells([0]), "text": ["a"], "split": ["trian"]}, {}, "row 0: split 'tri"),
    "no image": ({"text": ["a"], "x": [1]}, {}, "no column of images among text, x"),
    "no text": ({"image": cells([0]), "words": ["a"]}, {}, "config.data.caption_column=NAME"),
    "two": ({"image": cells([0]), "text": ["a"], "caption": ["b"]}, {},
            "caption, text may all hold captions; --config.data.caption_column=caption"),
    "unknown": ({"image": cells([0]), "text": ["a"]}, {"caption_column": "no"},
                "config.data.caption_column: no is no column"),
    "not images": ({"image": cells([0]), "text": ["a"]}, {"image_column": "text"},
                   "config.data.image_column: text is no column of images .* one of image"),
    "nothing": ({"image": cells([0]), "text": [""]}, {}, r"no pair: empty \(.*row 0"),
    "a path": ({"image": pa.array([{"bytes": None, "path": "no.png"}], type=FILE), "text": ["a"]},
               {}, "row 0: .*no.png: No such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_its_row(case, tmp_path):
    columns, keys, message = REFUSED[case]
    path = written(tmp_path / "x.parquet", **columns)
    with pytest.raises(BadInput, match=message):
        load(path, tmp_path, **keys)


def test_keys_choose_among_columns(tmp_path):
    path = written(
        tmp_path / "x.parquet", image=cells([0, 1]), other=cells([2, 3]), text=["a", "b"],
        caption=["c", "d"], split=["train", "test"],
    )  # fmt: skip
    found = load(path, tmp_path, image_column="other", caption_column="text")
    assert found.train.captions == ("a",)
    plain = load(path, tmp_path, caption_column="caption")
    assert plain.train.captions == ("c",) and plain.fingerprint != found.fingerprint


def test_damaged_files_and_a_missing_pyarrow_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(BadInput, match="cannot be read"):
        load(path, tmp_path)
    missing = importlib.import_module

    def without(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return missing(name)

    monkeypatch.setattr(parquet_pairs.importlib, "import_module", without)
    with pytest.raises(BadInput, match=r"pip install 'jdd\[text\]'"):
        load(path, tmp_path)


def test_columns_are_keys_of_parquet_alone(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(BadInput, match="config.data.image_column"):
        load(tmp_path / "a", tmp_path, image_column="image")


def test_images_in_files_of_their_own_are_read_anew(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "b.png").write_bytes(png(1))
    named = pa.array([{"bytes": None, "path": f"{name}.png"} for name in "ab"], type=FILE)
    path = written(tmp_path / "x.parquet", image=named, text=["a", "b"], split=["train", "test"])
    first = load(path, tmp_path)
    (tmp_path / "a.png").write_bytes(png(2))
    again = load(path, tmp_path)
    assert again.fingerprint != first.fingerprint
