"""Images with captions from folders and archives, in every layout that captions come in."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdd import config as configs
from jdd import main
from jdd.data import pairs
from jdd.data.sources import caption_files
from jdd.errors import BadInput
from jdd.schema.pairs import PairData, Text

WORDS = ("red", "green", "blue", "grey")


def png(i: int, side: int = 6) -> bytes:
    """A picture of one colour with some noise."""
    draw = np.random.default_rng(i)
    image = draw.integers(0, 60, (side, side, 3))
    image[..., i % 3] += 150
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(folder: Path, count: int = 12, side: int = 6) -> Path:
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        (folder / "images" / f"{i:02d}.png").write_bytes(png(i, side))
    return folder


def load(folder: Path, tmp_path: Path, **keys: object) -> pairs.PairDataset:
    own = {"name": "mine", "path": str(folder), "cache_dir": str(tmp_path / "cache")}
    return pairs.load(PairData(**own | keys), Text(size=32))  # type: ignore[arg-type]


def notes_of(found: pairs.PairDataset) -> tuple[str, ...]:
    """The notes but for the one on small test splits, as these are."""
    assert " to test on: recall at 10" in found.notes[-1]
    return found.notes[:-1]


# Each says: image 00 is "a red, small one" and "red", in train; 01 is "green", in test.
LAYOUTS = {
    "karpathy.json": json.dumps({"images": [
        {"filename": "00.png", "filepath": "images", "split": "restval",
         "sentences": [{"raw": "a red, small one", "tokens": ["a"]}, {"raw": "red"}]},
        {"filename": "01.png", "split": "test", "sentences": [{"raw": "green"}]},
    ]}),
    "list.json": json.dumps([
        {"file_name": "images/00.png", "captions": ["a red, small one", "red"], "split": "train"},
        {"image": "01", "caption": "green", "split": "test"},
    ]),
    "lines.jsonl": "\n".join(map(json.dumps, [
        {"file_name": "00.png", "text": "a red, small one", "split": "training"},
        {"file_name": "00.png", "text": "red", "split": "train"},
        {"file_name": "01.png", "text": "green", "split": "test"},
    ])),
    "header.csv": 'image,split,caption\n00.png,train,"a red, small one"\n00.png,train,red\n'
                  "01.png,test,green\n",
    "unquoted.csv": "split,file,comment\ntrain,00.png,a red, small one\ntrain,00.png,red\n"
                    "test,01.png,green\n",
    "windows.tsv": "\ufefffile\tcaption\tsplit\r\nimages\\00.png\ta red, small one\ttrain\r\n"
                   "00.png\tred\ttrain\r\n01.png\tgreen\ttest\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_says_the_same(name, tmp_path):
    folder = pictures(tmp_path / "a", 2)
    (folder / name).write_text(LAYOUTS[name], encoding="utf-8", newline="")
    found = load(folder, tmp_path)
    assert found.train.captions == ("a red, small one", "red")
    assert found.train.image_of.tolist() == [0, 0] and found.test.captions == ("green",)
    assert found.val is None and found.train.images.shape == (1, 6, 6, 3)
    assert not notes_of(found)


def test_files_without_splits():
    coco = {"images": [{"id": 7, "file_name": "a.jpg"}],
            "annotations": [{"image_id": 7, "caption": c} for c in ("one", "two")]}  # fmt: skip
    rows = caption_files.parse(json.dumps(coco).encode(), "x")
    assert [(r.file, r.caption, r.split) for r in rows] == [
        ("a.jpg", "one", ""),
        ("a.jpg", "two", ""),
    ]
    tokens = b'1.jpg#0\tA "b" c , d .\n1.jpg#1\tE\n'
    rows = caption_files.parse(tokens, "x")
    assert [(r.file, r.caption) for r in rows] == [("1.jpg", 'A "b" c , d .'), ("1.jpg", "E")]
    rows = caption_files.parse(b'{"a.png": ["x", "y"], "b.png": "z"}', "x")
    assert [(r.file, r.caption) for r in rows] == [("a.png", "x"), ("a.png", "y"), ("b.png", "z")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"file,caption\na.png,caf\xe9\n", "line 2 is not UTF-8"),
        (b"", "line 1"),
        (b"[1]", "entry 1: 1"),
        (b'[{"file": "a.png"}]', "entry 1 has file"),
        (b'{"file": "a.png", "caption": "x"}\n{"file": "b.png" "x"}', "line 2: no JSON"),
        (b'[{"file": "a.png", "caption": 3}]', "caption 3"),
        (b'[{"file": "a.png", "caption": "x", "split": "trian"}]', "split 'trian'"),
        (b"name,words,more\n", "a header of name, words, more"),
        (b"caption,file\nhello, there,a.png\n", "line 2 has 3 columns, the header 2"),
        (b"file,caption\n", "no captions"),
        (b'{"images": [{"id": 1}], "annotations": []}', "file_name"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_their_place(data, words):
    with pytest.raises(BadInput, match=words):
        caption_files.parse(data, "captions")


def test_bad_rows_are_left_out_and_named(tmp_path):
    folder = pictures(tmp_path / "a", 4)
    rows = ["00.png,red", "01.png,green", "02.png,", "09.png,none", "00.png,red", "02.png,blue"]
    (folder / "captions.csv").write_text("file,caption\n" + "\n".join(rows))
    found = load(folder, tmp_path, test=0.34)
    assert len(found.train.images) == 2 and len(found.test.images) == 1
    notes = " ".join(found.notes)
    for words in (
        "1 of 6 captions left out: no such image (line 5: 09.png)",
        "1 of 6 captions left out: empty (line 4: 02.png)",
        "1 of 6 captions left out: the same words of the same image (line 6: 00.png)",
        "1 of 4 images left out: no caption (such as images/03.png)",
        "no test split stated: 1 of 3 images are it",
    ):
        assert words in notes
    assert load(folder, tmp_path, test=0.34).fingerprint == found.fingerprint  # from the cache


BAD = [("00.png", "red"), ("01.png", "green"), ("02.png", " "), ("09.png", "x"), ("00.png", "red")]
BAD_ROWS = {
    "c.csv": "file,caption\n" + "".join(f'{f},"{c}"\n' for f, c in BAD),
    "c.tsv": "file\tcaption\n" + "".join(f"{f}\t{c}\n" for f, c in BAD),
    "c.jsonl": "\n".join(json.dumps({"file": f, "caption": c}) for f, c in BAD),
    "c.json": json.dumps(
        {"images": [{"filename": f, "sentences": [{"raw": c}]} for f, c in BAD]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_bad_rows_of_every_layout_are_named_by_their_row(name, packed, tmp_path):
    folder = pictures(tmp_path / "a", 3)
    (folder / name).write_text(BAD_ROWS[name])
    place = {"c.csv": "line {}", "c.tsv": "line {}", "c.jsonl": "line {}", "c.json": "image {}"}
    first = 2 if name in ("c.csv", "c.tsv") else 1
    if packed:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
            for file in folder.rglob("*.*"):
                out.write(file, file.relative_to(folder))
        folder = tmp_path / "a.zip"
    notes = load(folder, tmp_path, test=0.5).notes
    for row, (why, file) in {
        2: ("empty", "02.png"),
        3: ("no such image", "09.png"),
        4: ("the same words of the same image", "00.png"),
    }.items():
        at = place[name].format(row + first)
        assert f"1 of 5 captions left out: {why} ({at}: {file})" in notes


@pytest.mark.parametrize("name", BAD_ROWS)
def test_text_that_is_not_utf8_is_refused_by_its_line(name, tmp_path):
    folder = pictures(tmp_path / "a", 3)
    data = BAD_ROWS[name].encode().replace(b"green", b"gr\xe9en")
    (folder / name).write_bytes(data)
    line = {"c.csv": 3, "c.tsv": 3, "c.jsonl": 2, "c.json": 1}[name]
    with pytest.raises(BadInput, match=rf"line {line} is not UTF-8 \(byte 0xe9\)"):
        load(folder, tmp_path)


def test_vectors_are_as_long_as_the_root_of_their_size_unless_asked(tmp_path):
    folder = pictures(tmp_path / "photos")
    lines = [f"{i:02}.png,a picture of {i}\n" for i in range(12)]
    (folder / "captions.csv").write_text("file,caption\n" + "".join(lines))
    own = PairData(name="mine", path=str(folder), cache_dir=str(tmp_path / "cache"))
    root, unit = (pairs.load(own, Text(size=64, scale=scale)) for scale in ("auto", "unit"))
    np.testing.assert_allclose(np.linalg.norm(root.train.text, axis=1), 8, rtol=1e-5)
    np.testing.assert_allclose(root.train.text, 8 * unit.train.text, rtol=1e-6)
    assert root.fingerprint != unit.fingerprint


def test_an_animated_picture_counts_by_its_first_frame(tmp_path):
    folder = pictures(tmp_path / "a", 3)
    frames = [Image.fromarray(np.full((6, 6, 3), v, np.uint8)) for v in (10, 200)]
    frames[0].save(folder / "images/03.gif", save_all=True, append_images=frames[1:])
    (folder / "c.csv").write_text("file,caption,split\n03.gif,x,train\n00.png,y,test\n")
    found = load(folder, tmp_path)
    assert np.round(found.transform.inverse(found.train.images) * 255).max() == 10
    assert any("frame" in note for note in found.notes)


def test_an_archive_is_its_folder(tmp_path):
    folder = pictures(tmp_path / "a", 5)
    (folder / "captions.csv").write_text(
        "file,caption\n" + "".join(f"{i:02d},{WORDS[i % 4]} {i}\n" for i in range(5))
    )
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        for file in sorted(folder.rglob("*"), reverse=True):
            out.write(file, file.relative_to(folder))
    first, second = load(folder, tmp_path), load(tmp_path / "a.zip", tmp_path)
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first.train.images, second.train.images)
    mean = first.train.images.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(mean, 0, atol=1e-5)  # normalised by the training images


def test_the_first_captions_of_an_image_are_used(tmp_path):
    folder = pictures(tmp_path / "a", 4)
    lines = [f"{i:02d}.png,{word} {i}\n" for word in WORDS for i in range(4)]
    (folder / "captions.csv").write_text("file,caption\n" + "".join(lines))
    own = PairData(name="mine", path=str(folder), cache_dir=str(tmp_path), test=0.25)
    found = pairs.load(own, Text(size=32, captions=2))
    words = [c.split()[0] for c in found.train.captions]
    assert words == ["red", "green"] * 3 and found.train.image_of.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("rows", "keys", "words"),
    [
        ({"captions.csv": "file,caption\n9.png,x\n"}, {}, "line 2: no image is called 9.png"),
        ({}, {}, "no file of captions"),
        ({"a.csv": "x", "b.json": "x"}, {}, "2 files that may hold captions.*captions=FILE"),
        ({}, {"captions": "none.csv"}, "none.csv: No such file"),
        ({"c.csv": "file,caption\n0.png,x\n"}, {"path": "nowhere"}, "nowhere does not exist"),
        ({"c.csv": "file,caption\n00.png,x\n"}, {}, "config.data.test: 0.2 of 1 images"),
        (
            {"c.csv": "file,caption,split\n00.png,x,train\n00.png,y,test\n"},
            {},
            "one split an image",
        ),
    ],
)
def test_what_cannot_be_joined_is_refused(rows, keys, words, tmp_path):
    folder = pictures(tmp_path / "a", 3)
    for name, text in rows.items():
        (folder / name).write_text(text)
    with pytest.raises(BadInput, match=words):
        load(folder, tmp_path, **keys)


def test_a_name_of_two_images_is_refused_and_their_paths_are_not(tmp_path):
    folder = pictures(tmp_path / "a", 3)
    (folder / "more").mkdir()
    (folder / "more" / "00.png").write_bytes(png(7))
    (folder / "captions.csv").write_text("file,caption\n00.png,x\n01.png,y\n")
    with pytest.raises(BadInput, match="several images are called 00.png"):
        load(folder, tmp_path)
    (folder / "captions.csv").write_text("file,caption\nmore/00.png,x\n01.png,y\nimages/00.png,z\n")
    assert len(load(folder, tmp_path).train.images) == 2


def test_a_run_on_own_pictures(tmp_path, capsys):
    folder = pictures(tmp_path / "a", 12, 8)
    lines = [f"{i:02d}.png,{('red', 'green', 'blue')[i % 3]} thing\n" for i in range(12)]
    (tmp_path / "captions.csv").write_text("file,caption\n" + "".join(lines))
    words = [
        "--config=random_pairs:my_pictures,pairs=4", f"--config.data.path={folder}",
        f"--config.data.captions={tmp_path / 'captions.csv'}", f"--workdir={tmp_path / 'run'}",
        "--config.net.width=4", "--config.net.depth=1", "--config.eval.n=1",
        "--config.eval.epochs=2", "--config.baselines.random=1", "--config.baselines.full_epochs=1",
        "--config.text.size=16", "--config.towers.size=8", "--config.progress=false",
    ]  # fmt: skip
    assert main.main(words) == 0, capsys.readouterr().err
    assert "mean recall" in capsys.readouterr().out
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")  # 2 images to test on
    assert "2 images and 2 captions to test on: recall at 10 is of 10 or all there are" in page
    again = ["--mode=evaluate", f"--set={tmp_path / 'run/distilled.npz'}", *words[1:3]]
    again += [f"--workdir={tmp_path / 'e'}", *words[6:9], "--config.progress=false"]
    assert main.main(again) == 0, capsys.readouterr().err


def test_own_keys_are_of_pairs_alone():
    with pytest.raises(BadInput, match="captions"):
        configs.load("mtt:digits", {"data.captions": "x.csv"})
