"""How pictures are read: depth, transparency, orientation, frames, scale; docs/data.md."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, features

import jdd
from jdd import interop
from jdd.data import CATALOGUE, cache, load, load_raw
from jdd.data.sources import depth
from jdd.data.sources import pixels as reader
from tests.data.tiny_sets import (
    encode,
    pixels,
    refused,
    tree,
    write_folder,
    write_zip,
)

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types of a PNG


def raw_png(rows, bits, colour, *chunks):
    """A PNG of rows of bytes as the file holds them: depths that Pillow does not write."""
    per_row = {GREY: 1, PALETTE: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}[colour] * bits
    out = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", len(rows[0]) * 8 // per_row, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    for kind, body in ((b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")):
        out += struct.pack(">I", len(body)) + kind + body
        out += struct.pack(">I", zlib.crc32(kind + body))
    return out


def saved(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def read(data, channels=None, size=0):
    return reader.decode(data, "a.png", channels, size)


def noted(tmp_path, files, **options):
    """The notes of a set of plain pictures and ``files`` in train/ant, held and streamed."""
    top = write_folder(tmp_path / "set", tree() | {f"train/ant/{n}": d for n, d in files.items()})
    call = {"name": "mine", "path": str(top), **options}
    held, streamed = load_raw(call), load_raw({**call, "stream": True})
    assert held.notes == streamed.notes == load_raw(call).notes  # the last from the cache
    assert np.array_equal(held.splits["train"][0], np.asarray(streamed.splits["train"][0]))
    return held.notes


# Depth.

_WORD = struct.pack(">H", 40000)
_COLOUR = np.full((6, 6, 3), 200, np.uint8)


def tiff(bits, order="<", big=False):
    """The header of a TIFF of three channels and its one entry."""
    word, n = ("Q", "Q") if big else ("I", "H")
    mark = struct.pack(order + ("HHH" if big else "H"), *((43, 8, 0) if big else (42,)))
    start = 16 if big else 8
    out = (b"II" if order == "<" else b"MM") + mark + struct.pack(order + word, start)
    inline = struct.pack(order + "HHH", *[bits] * 3)
    entry = struct.pack(f"{order}HH{word}", 258, 3, 3)
    if big:
        return out + struct.pack(order + n, 1) + entry + inline + b"\0\0"
    return out + struct.pack(order + n, 1) + entry + struct.pack(order + word, 22) + inline


DEEP = {
    "grey.png": (raw_png([_WORD * 6] * 6, 16, GREY), 16),
    "colour.png": (raw_png([_WORD * 18] * 6, 16, RGB), 16),
    "dim.png": (raw_png([b"\0\xc8" * 18] * 6, 16, RGB), 16),  # 200 of 65535
    "rgba.png": (raw_png([_WORD * 24] * 6, 16, RGBA), 16),
    "la.png": (raw_png([_WORD * 12] * 6, 16, GREY_ALPHA), 16),
    "grey.tif": (saved(Image.fromarray(np.full((6, 6), 40000, np.uint16)), "TIFF"), 16),
    "float.tif": (saved(Image.fromarray(np.full((6, 6), 0.5, np.float32)), "TIFF"), 32),
    "little.tif": (tiff(16), 16),
    "big.tif": (tiff(12, ">"), 12),
    "huge.tif": (tiff(16, "<", True), 16),
    "word.pgm": (b"P5 6 6 65535\n" + _WORD * 36, 16),
    "word.ppm": (b"P6 # by hand\n6 6 # wide\n65535\n" + _WORD * 108, 16),
    "ten.pgm": (b"P2 6 6 1023\n" + b"512 " * 36, 10),
    "word.jp2": (
        saved(Image.fromarray(np.full((6, 6), 40000, np.uint16)), "JPEG2000", irreversible=False),
        16,
    ),
    "twelve.jpg": (b"\xff\xd8\xff\xe0\0\4ab\xff\xc1\0\x11\x0c" + bytes(14), 12),
    "icon.ico": (b"\0\0\1\0\1\0" + bytes(16) + raw_png([_WORD * 18] * 6, 16, RGB), 16),
    "ten.avif": (b"\0\0\0\x18ftypavif" + bytes(20) + b"av1C\x81\x04\x4c\0", 10),
    "twelve.avif": (b"\0\0\0\x18ftypavif" + bytes(20) + b"av1C\x81\x04\x6c\0", 12),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_is_refused_in_the_same_words_for_grey_and_colour(name):
    data, bits = DEEP[name]
    assert depth.stated(data) == bits
    line = refused(lambda: reader.decode(data, name, None, 0), name, f"{bits} bits a channel")
    assert line.endswith("save it with 8 bits a channel, scaled so that white is 255")


def test_deep_pictures_are_refused_by_every_reader(tmp_path):
    data = DEEP["colour.png"][0]
    path = write_zip(tmp_path / "a.zip", tree() | {"train/ant/9.png": data})
    for stream in (False, True):
        call = {"name": "mine", "path": str(path), "stream": stream}
        refused(lambda call=call: load(call), f"{path}:train/ant/9.png", "16 bits a channel")
    files = {"ant/0.png": encode(pixels(0, 32)), "bee/0.png": data}
    folder = write_folder(tmp_path / "set", files)
    refused(lambda: interop.load(folder, dataset="cifar10"), "bee/0.png", "16 bits a channel")


@pytest.mark.parametrize(
    "data",
    [
        encode(_COLOUR),
        encode(_COLOUR, "JPEG"),
        saved(Image.fromarray(_COLOUR), "TIFF"),
        saved(Image.fromarray(_COLOUR), "JPEG2000"),
        saved(Image.fromarray(_COLOUR), "ICO", sizes=[(6, 6)]),
        encode(_COLOUR, "BMP") + b"II*\0",
        raw_png([b"\xff\0\x0f"], 4, GREY),
        tiff(8),
    ],
)
def test_8_bits_or_less_are_not_taken_for_more(data):
    assert depth.stated(data) <= 8
    for end in range(0, min(len(data), 200)):  # a header that is cut off says nothing
        assert depth.stated(data[:end]) <= 8


def test_less_than_8_bits_is_scaled_so_that_white_is_255():
    assert read(raw_png([b"\x0f\x48"], 4, GREY)).array.ravel().tolist() == [0, 255, 68, 136]
    assert read(raw_png([b"\x1b"], 2, GREY)).array.ravel().tolist() == [0, 85, 170, 255]
    assert read(raw_png([b"\xa0"], 1, GREY)).array.ravel()[:4].tolist() == [255, 0, 255, 0]
    assert read(b"P2 4 1 15\n0 1 8 15\n").array.ravel().tolist() == [0, 17, 136, 255]
    assert read(b"P6 1 1 31\n\x1f\x10\0").array.ravel().tolist() == [255, 132, 0]
    assert read(b"P1 4 1\n1 0 0 1\n").array.ravel().tolist() == [0, 255, 255, 0]


# Transparency: hidden colours never show.

HIDDEN = np.array([[[200, 10, 10, 0], [200, 10, 10, 255]], [[0, 100, 255, 128], [9, 9, 9, 51]]])
ON_WHITE = [[[255] * 3, [200, 10, 10]], [[127, 177, 255], [206] * 3]]


def test_transparent_pixels_show_white():
    image = Image.fromarray(HIDDEN.astype(np.uint8))
    for kind in ("PNG", "TIFF", "TGA"):
        found = read(saved(image, kind))
        assert found.array.tolist() == ON_WHITE and found.seen & reader.CLEAR
    webp = read(saved(image, "WEBP", lossless=True, exact=True))
    assert webp.array.tolist() == ON_WHITE
    grey = read(saved(Image.fromarray(HIDDEN[..., 2:].astype(np.uint8)), "PNG"))
    assert grey.array[..., 0].tolist() == [[255, 10], [255, 206]] and grey.grey
    assert read(saved(image), channels=1).array[0, 0, 0] == 255
    assert (read(saved(image), size=1).array > 100).all()


def test_transparent_palettes_and_keys_show_white():
    palette = (b"PLTE", bytes([200, 10, 10, 0, 100, 255]))
    file = raw_png([b"\0\1"], 8, PALETTE, palette, (b"tRNS", b"\0\x80"))
    assert read(file).array.tolist() == [[[255] * 3, [127, 177, 255]]]
    one = raw_png([b"\0\1"], 8, PALETTE, palette, (b"tRNS", b"\0"))
    assert read(one).array.tolist() == [[[255] * 3, [0, 100, 255]]]
    gif = Image.frombytes("P", (2, 1), b"\0\1")
    gif.putpalette([200, 10, 10, 0, 100, 255])
    assert read(saved(gif, "GIF", transparency=0)).array.tolist() == [[[255] * 3, [0, 100, 255]]]
    key = (b"tRNS", struct.pack(">HHH", 200, 10, 10))
    colour = raw_png([bytes([200, 10, 10, 200, 10, 11])], 8, RGB, key)
    assert read(colour).array.tolist() == [[[255] * 3, [200, 10, 11]]]
    for bits, row, level, values in (
        (8, b"\x07\x08", 7, [255, 8]),
        (4, b"\x78", 7, [255, 136]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (1, b"\x40", 0, [255] * 8),
    ):
        grey = read(raw_png([row], bits, GREY, (b"tRNS", struct.pack(">H", level))))
        assert grey.array.ravel().tolist() == values and grey.grey and grey.seen & reader.CLEAR


def test_opaque_pictures_keep_their_bits():
    plain = pixels(3)
    opaque = Image.fromarray(np.dstack([plain, np.full((6, 6), 255, np.uint8)]))
    found = read(saved(opaque))
    assert np.array_equal(found.array, plain) and found.seen == 0
    assert np.array_equal(read(encode(plain)).array, plain)
    grey = read(encode(pixels(3, grey=True)))
    assert grey.array.shape == (6, 6, 1) and grey.seen == reader.GREY


# Orientation.

TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, -1)[:, ::-1][::-1, ::-1],
    8: lambda a: np.rot90(a),
}
STORED = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "packed", "WEBP"])
def test_exif_orientation_is_followed(kind, turn):
    if kind in ("TIFF", "packed"):
        more = {"tiffinfo": {274: turn}} | ({"compression": "tiff_lzw"} if kind == "packed" else {})
    else:
        exif = Image.Exif()
        exif[274] = turn
        more = {"exif": exif} | ({"lossless": True} if kind == "WEBP" else {})
    kind = "TIFF" if kind == "packed" else kind
    found = read(saved(Image.fromarray(STORED), kind, **more))
    assert np.array_equal(found.array, TURNS[turn](STORED))
    assert bool(found.seen & reader.TURNED) == (turn > 1)
    assert found.size == ((6, 4) if turn < 5 else (4, 6))


def test_exif_of_a_jpeg_and_damaged_exif():
    exif = Image.Exif()
    exif[274] = 6
    tall = read(saved(Image.fromarray(STORED), "JPEG", exif=exif))
    plain = read(saved(Image.fromarray(STORED), "JPEG"))
    assert np.array_equal(tall.array, np.rot90(plain.array, -1)) and tall.jpeg
    whole = exif.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own words about it
        for damaged in (whole[:9], whole[:14], whole[:8] + b"\xff" * 20, b"Exif\0\0" + b"x" * 30):
            found = read(saved(Image.fromarray(STORED), "JPEG", exif=damaged))
            assert np.array_equal(found.array, plain.array) and found.seen == 0


# Frames, other modes, other endings.


def test_the_first_frame_counts():
    frames = [Image.fromarray(pixels(i, grey=True)) for i in range(3)]
    for kind in ("GIF", "PNG", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        found = read(data)
        assert np.array_equal(found.array[..., 0], pixels(0, grey=True)), kind
        assert found.seen & reader.FRAMES and not read(saved(frames[0], kind)).seen & reader.FRAMES
    two = read(saved(frames[0].convert("RGB"), "MPO", save_all=True, append_images=frames[1:2]))
    assert two.jpeg and not two.seen & reader.FRAMES  # a JPEG with a preview behind it


def test_other_modes_and_formats(monkeypatch):
    lab = saved(Image.new("LAB", (6, 6)), "TIFF")
    assert read(lab).array.shape == (6, 6, 3)

    def convert(self, mode):
        raise ValueError("conversion not supported")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "convert", convert)
        refused(lambda: read(lab), "a.png", "mode LAB", "convert it to .png or .jpg")
    refused(lambda: read(saved(Image.new("RGB", (6, 6)), "SGI")), "a.png", "format SGI")
    assert read(saved(Image.new("CMYK", (6, 6)), "TIFF")).array.tolist() == [[[255] * 3] * 6] * 6


def test_every_ending_that_pillow_opens_is_read(tmp_path):
    kinds = {"gif": "GIF", "tif": "TIFF", "TIFF": "TIFF", "jfif": "JPEG", "jp2": "JPEG2000",
             "ico": "ICO", "tga": "TGA", "bmp": "BMP", "webp": "WEBP", "pnm": "PPM", "jpe": "JPEG",
             "qoi": "QOI"}  # fmt: skip
    kinds |= {"avif": "AVIF"} if features.check("avif") else {}
    image = Image.fromarray(pixels(0, 16))
    files = {
        f"train/ant/{i}.{end}": saved(image, kind) for i, (end, kind) in enumerate(kinds.items())
    }
    files |= {"train/bee/0.png": encode(pixels(1, 16)), "test/ant/0.png": encode(pixels(2, 16))}
    raw = load_raw({"name": "mine", "path": str(write_zip(tmp_path / "a.zip", files))})
    images, labels = raw.splits["train"]
    assert labels.tolist() == [0] * len(kinds) + [1] and not any("stray" in n for n in raw.notes)
    assert all(np.abs(i.astype(int).mean() - pixels(0, 16).mean()) < 8 for i in images[:-1])
    Image.init()
    known = set(Image.registered_extensions()) | {".avif"}
    assert set(reader.SUFFIXES) <= known and not set(reader._PICTURES) & set(reader.SUFFIXES)


def test_what_the_installed_pillow_lacks_is_named(monkeypatch):
    heic = b"\0\0\0\x18ftypheic" + bytes(40)
    refused(lambda: read(heic), "a.png", "HEIC", "convert it to .png or .jpg")
    monkeypatch.setattr(features, "check", lambda name: False)
    avif = b"\0\0\0\x18ftypavif" + bytes(40)
    refused(lambda: read(avif), "a.png", "an AVIF image, which the installed Pillow does not read")
    refused(lambda: read(b"this is text"), "a.png", "not an image")


def test_pictures_that_are_not_read_are_counted_by_their_ending():
    many = [f"train/a/{i}.HEIC" for i in range(12)]
    assert reader.unread([*many, "notes.txt", "Thumbs.db", "a/b.png"]) == (
        "12 files end in .heic, which is not read; convert them to .png or .jpg"
    )
    assert reader.unread(["a.svg"]) == (
        "1 file ends in .svg, which is not read; convert it to .png or .jpg"
    )
    assert reader.unread(["a.svg", *many]) == (
        "12 files end in .heic, 1 in .svg, which are not read; convert them to .png or .jpg"
    )
    assert reader.unread(["README.md", "heic"]) == ""


# Notes for the user.


def test_notes_count_over_the_set(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    clear = Image.fromarray(np.dstack([pixels(1), np.zeros((6, 6), np.uint8)]))
    frames = [Image.fromarray(pixels(i)) for i in range(2)]
    files = {
        "a.png": saved(clear),
        "b.png": saved(clear),
        "c.png": saved(frames[0], exif=exif),
        "d.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "e.png": encode(pixels(9, grey=True)),
    }
    assert noted(tmp_path, files) == (
        "train: 1 of 15 images are grey and were made RGB",
        "train: 2 of 15 images have transparent pixels: shown on white",
        "train: 1 of 15 images were turned upright, as their EXIF orientation says",
        "train: 1 of 15 images have several frames or pages: the first one is read",
    )


def test_squeezed_pictures_are_noted(tmp_path):
    wide = {"a.png": encode(np.zeros((48, 64, 3))), "b.png": encode(np.ones((48, 64, 3)))}
    assert noted(tmp_path, wide, size=6) == (
        "train: 2 of 12 images are not square (64x48): "
        "squeezed to 6x6, the aspect ratio is not preserved",
    )
    (note,) = noted(tmp_path, wide | {"c.png": encode(np.zeros((9, 8, 3)))}, size=6)
    assert "3 of 13 images are not square (such as 64x48)" in note


def test_dark_pictures_are_noted(tmp_path):
    files = {n: encode(np.asarray(pixels(i)) // 128) for i, n in enumerate(tree())}
    raw = load_raw({"name": "mine", "path": str(write_zip(tmp_path / "a.zip", files))})
    assert len(raw.notes) == 2 and "train: all 10 images are dark" in raw.notes[0]
    assert "multiply by 255 / white" in raw.notes[1]


def test_class_folders_of_a_distilled_set_are_read_alike(tmp_path):
    clear = Image.fromarray(np.dstack([pixels(1, 32), np.zeros((32, 32), np.uint8)]))
    files = {
        f"{c}/0.png": encode(pixels(i, 32)) for i, c in enumerate(CATALOGUE["cifar10"].class_names)
    }
    files["cat/0.png"] = saved(clear)
    folder = write_folder(tmp_path / "set", files)
    with pytest.warns(UserWarning, match="1 of 10 images have transparent pixels: shown on white"):
        found = jdd.load(folder, dataset="cifar10")
    assert found.notes[0] == "1 of 10 images have transparent pixels: shown on white"
    shown = found.transform.inverse(found.images)
    np.testing.assert_allclose(shown[3], 1, atol=1e-6)
    np.testing.assert_allclose(shown[0], pixels(0, 32) / 255, atol=1e-6)


def test_pixels_cached_under_older_rules_are_made_again(tmp_path, monkeypatch):
    config = {"name": "mine", "path": str(write_folder(tmp_path / "set", tree()))}
    monkeypatch.setattr(reader, "RULES", 1)
    old = load(config)
    monkeypatch.undo()
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "cache"))
    assert load(config).fingerprint == old.fingerprint
    assert len(list(cache.folder().glob("decoded-*.npz"))) == 2


# Arrays of numbers.

X = np.random.default_rng(0).random((20, 6, 6, 3))
Y = np.arange(20) % 2


def stored(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **{"labels": Y} | arrays)
    return {"name": "mine", "path": str(tmp_path / "a.npz")}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("ends", [(0, 1.0000002), (-1e-9, 1), (-0.0009, 1.00098)])
def test_floats_that_rounding_put_outside_are_clipped(tmp_path, dtype, ends):
    images = X.astype(dtype)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = ends
    found = load_raw(stored(tmp_path, images=images, x_test=images, y_test=Y)).splits["train"][0]
    assert found.dtype == np.float32 and (found[0, 0, 0, 0], found[1, 0, 0, 0]) == (0, 1)
    assert np.array_equal(found[2:], images[2:].astype(np.float32))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 1.0015, ["0 to 1.0015", "0.0 to 1.0, to within 0.001", "numpy.clip(images, 0, 1)"]),
        (0, 200.0, ["0 to 200", "divide by 255"]),
        (-2.1, 2.5, ["-2.1 to 2.5", "undo the normalisation"]),
        (-0.00101, 1, ["from -0.00101 to 1"]),
    ],
)
def test_floats_outside_are_printed_so_that_it_shows(tmp_path, low, high, words):
    images = X.copy()
    images[0, 0, 0, 0], images[1, 0, 0, 0] = low, high
    refused(lambda: load(stored(tmp_path, images=images)), "a.npz:images", *words)


def test_values_of_another_scale_are_noted(tmp_path):
    mask = (X > 0.5).astype(np.int64)
    for stream in (False, True):
        images = mask.astype(np.uint8) if stream else mask
        call = stored(tmp_path, images=images, x_test=images * 16, y_test=Y) | {"stream": stream}
        assert load_raw(call).notes == (
            "images: no value is above 1, and 255 is white; "
            "where white is another value, multiply by 255 / white",
            "x_test: no value is above 16, and 255 is white; "
            "where white is another value, multiply by 255 / white",
        )
        call = stored(tmp_path, images=images * 255, x_test=images * 64, y_test=Y)
        assert load_raw(call | {"stream": stream}).notes == ()
    assert load_raw(stored(tmp_path, images=mask.astype(float), x_test=X, y_test=Y)).notes == ()
    refused(lambda: load(stored(tmp_path, images=X > 0.5)), "images", ".astype('float32')")
    twice = load_raw(stored(tmp_path, images=mask / 255, x_test=X, y_test=Y)).notes
    assert twice[0].startswith("images: no value is above 0.003922, and 1 is white; ")


def test_arrays_that_are_squeezed_are_noted(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 8), np.uint8)
    call = stored(tmp_path, images=images, x_test=images, y_test=Y) | {"size": 4}
    for stream in (False, True):
        notes = load_raw(call | {"stream": stream}).notes
        assert notes == ("images are 8x6: squeezed to 4x4, the aspect ratio is not preserved",)


def test_a_png_is_read_whose_pixels_are_whole_whatever_follows_them():
    image, exif = Image.fromarray(pixels(0, 8)), Image.Exif()
    exif[0x0112] = 6
    whole = saved(image)
    wanted, end = read(whole).array, len(whole) - 12

    def chunk(name, body, crc=0):
        found = zlib.crc32(name + body) ^ crc
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", found)

    text = chunk(b"tEXt", b"Comment\0made by hand", crc=1)
    for after in (b"", whole[end : end + 3], text, text + whole[end:], whole[end:] + b"more"):
        assert np.array_equal(read(whole[:end] + after).array, wanted)
    for after in (b"", whole[end:]):
        turn = chunk(b"eXIf", exif.tobytes()[6:])
        assert np.array_equal(read(whole[:end] + turn + after).array, np.rot90(wanted, -1))
        flipped = whole[:end] + turn[:-5] + bytes([turn[-5] ^ 1]) + turn[-4:] + after
        refused(lambda data=flipped: read(data), "a.png", "a checksum of its content does not fit")
    for cut in (1, 4, 5):  # of the checksum of the pixels, or of what it is of
        refused(lambda cut=cut: read(whole[: end - cut]), "a.png", "damaged image")
