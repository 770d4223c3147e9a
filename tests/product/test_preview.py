"""Pictures show the pixels, large enough, by class."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from jdd.product import fonts, preview
from tests.tiny_distilled import make


@pytest.mark.parametrize("zca", [False, True])
def test_pixels_undo_the_transform_and_are_clipped(zca):
    dataset = make(zca=zca)
    want = dataset.transform.inverse(dataset.images)
    np.testing.assert_array_equal(preview.to_pixels(dataset), np.round(want * 255))
    wild = dataset._replace(images=dataset.images * 1000)
    assert set(np.unique(preview.to_pixels(wild))) <= {0, 255}


def test_png_is_lossless_for_grey_and_colour():
    for channels in (1, 3):
        pixels = preview.to_pixels(make(shape=(5, 6, channels)))[0]
        found = np.asarray(Image.open(io.BytesIO(preview.png(pixels))))
        np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)


def _cell(sheet, x, y):
    return sheet[y : y + 64, x : x + 64]


def test_rows_of_classes_are_enlarged_without_smoothing():
    dataset = make(ipc=3)  # 4 x 4 pixels, shown 16 times as large
    sheet = np.asarray(Image.open(io.BytesIO(preview.grid(dataset, names=False))))
    assert sheet.shape == (2 * 16 + 3 * 68 - 4, 2 * 16 + 3 * 68 - 4, 3)
    pixels = preview.to_pixels(dataset)
    for row in range(3):
        for column in range(3):
            cell = _cell(sheet, 16 + 68 * column, 16 + 68 * row)
            np.testing.assert_array_equal(cell[::16, ::16], pixels[3 * row + column])
            assert (cell[:16, :16] == cell[0, 0]).all()


def test_layouts(tmp_path):
    names = tuple(f"a class of the long name {i}" for i in range(12))
    for ipc, count in ((1, 12), (12, 3), (60, 2)):
        path = tmp_path / f"{ipc}.png"
        preview.save(make(ipc=ipc, names=names[:count], shape=(8, 8, 1)), path)
        with Image.open(path) as image:
            assert image.width <= preview.WIDEST and image.height > preview.SMALLEST
    tiny = make(ipc=60, names=names[:2], shape=(8, 8, 1))
    groups = preview.by_class(tiny)
    assert [len(group) for group in groups] == [60, 60]
    cells, tiles = preview._cells(tiny, True)
    assert not tiles and max(cell.column for cell in cells) == 49
    assert cells[60].row == 2 and cells[60].caption == names[1] and cells[50].caption == ""


@pytest.mark.parametrize("name", ["Café", "猫", "قطة", "a 中"])
def test_a_name_is_drawn_whole_or_left_to_its_number(name, monkeypatch):
    dataset = make(ipc=1, names=("one", name, "two"))
    font = fonts.font_for(name, preview.TEXT)
    (_, own, _), tiles = preview._cells(dataset, True)
    assert tiles and own.caption == (name if font else "1")
    assert preview.unnamed(dataset) == "" if font else name in preview.unnamed(dataset)
    if font:  # no letter is the box of a missing one
        missing = fonts._drawn(font, fonts._ABSENT)
        assert all(fonts._drawn(font, one) != missing for one in name)


def test_a_name_without_a_font_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(preview.fonts, "font_for", lambda text, size: _ascii(text, size))
    dataset = make(ipc=2, names=("one", "猫", "Łódź"))
    assert [cell.caption for cell in preview._cells(dataset, True)[0]][::2] == ["one", "1", "2"]
    words = preview.unnamed(dataset)
    assert words.startswith("no font here has the letters of 2 names (猫, Łódź)")
    assert "\n" not in words and len(preview.grid(dataset)) > 100


def _ascii(text, size):
    return fonts._own(size) if text.isascii() else None


def test_ascii_names_take_pillows_own_font():
    assert fonts.font_for("cat", 14) is fonts._own(14)


def test_captions_of_pairs_wrap_below_their_images_as_far_as_the_longest_one_needs() -> None:
    from tests.tiny_pairs import learned

    pairs = learned(rank=-1)
    heights = []
    for words in (1, 6, 12, 60):
        captions = ["word " * words, *[""] * (pairs.size - 1)]
        found = pairs.with_recipe(pairs.recipe | {"captions": [one.strip() for one in captions]})
        sheet = np.asarray(Image.open(io.BytesIO(preview.grid(found))).convert("L"))
        heights.append(sheet.shape[0])
        below = sheet[preview.MARGIN + 128 : preview.MARGIN + 128 + 190, : preview.MARGIN + 128]
        lines = np.diff((below < 200).any(axis=1).astype(int)) == 1  # rows where ink begins
        assert lines.sum() >= min(words / 3, preview.LINES)
    assert heights[0] < heights[1] < heights[2] < heights[3]
    assert (heights[3] - heights[0]) / 3 == (preview.LINES - 1) * (preview.TEXT + 4)  # three rows
