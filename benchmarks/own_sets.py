"""Small sets unlike those that jdd was tuned on, as files that a user could have: ``own_data``.

Each is an npz of 8-bit images, ``x_train``, ``y_train``, ``x_test``, ``y_test``, in at most a few
thousand images. Draws are of fixed seeds.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

Split = tuple[np.ndarray, np.ndarray]  # uint8 [n, h, w(, c)] and labels [n]


class OwnSet(NamedTuple):
    """A set: what it is, its file, and keys that are part of the question."""

    words: str
    make: Callable[[Path], tuple[Split, Split]]
    keys: tuple[str, ...] = ()


def chosen(split: Split, counts: list[int], seed: int) -> Split:
    """Return ``counts[i]`` images of class i, drawn; classes beyond the list are left out."""
    draw = np.random.default_rng(seed)
    images, labels = split
    rows = [draw.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(counts)]
    index = np.concatenate(rows)
    return images[index], labels[index]


def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.round(found.images * 255 / 16).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:360], order[360:]
    return (images[train], found.target[train]), (images[test], found.target[test])


def _folders(archive: Path, part: str, side: int, names: list[str], mode: str) -> Split:
    """Return the pictures of ``PART/NAME/*`` of a zip, resized to ``side``, in archive order."""
    images, labels = [], []
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.namelist():
            place = entry.split("/")
            if len(place) == 3 and place[0] == part and place[1] in names and place[2]:
                picture = Image.open(io.BytesIO(packed.read(entry))).convert(mode)
                if picture.size != (side, side):
                    picture = picture.resize((side, side), Image.Resampling.BOX)
                images.append(np.asarray(picture))
                labels.append(names.index(place[1]))
    return np.stack(images), np.asarray(labels)


def _mnist(folder: Path) -> tuple[Split, Split]:
    digits = [str(c) for c in range(10)]
    archive = folder / "mnist_png.zip"
    return (
        _folders(archive, "train", 28, digits, "L"),
        _folders(archive, "test", 28, digits, "L"),
    )


def _tiny(folder: Path, classes: int, each: int) -> tuple[Split, Split]:
    archive = folder / "tiny_imagenet_100.zip"
    with zipfile.ZipFile(archive) as packed:
        lines = packed.read("classes.txt").decode().splitlines()
    names = [line.split("\t")[0] for line in lines[:classes]]
    train = _folders(archive, "train", 32, names, "RGB")
    return chosen(train, [each] * classes, 0), _folders(archive, "val", 32, names, "RGB")


def _cifar(folder: Path) -> tuple[Split, Split]:
    with np.load(folder / "cifar10.npz") as found:
        arrays = [found[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    return (arrays[0], arrays[1]), (arrays[2], arrays[3])


def digits_shallow(folder: Path) -> tuple[Split, Split]:
    """Return the 8-pixel digits under a name of their own."""
    return _digits()


def digits_few(folder: Path) -> tuple[Split, Split]:
    """Return 40 digits a class."""
    train, test = _digits()
    return chosen(train, [40] * 10, 1), test


def mnist_few(folder: Path) -> tuple[Split, Split]:
    """Return 100 images a class of MNIST."""
    train, test = _mnist(folder)
    return chosen(train, [100] * 10, 2), chosen(test, [100] * 10, 2)


def cifar_small(folder: Path) -> tuple[Split, Split]:
    """Return 200 images a class of CIFAR-10, four pixels averaged into one."""
    train, test = _cifar(folder)
    splits = chosen(train, [200] * 10, 3), chosen(test, [100] * 10, 3)
    first, second = ((_halved(images), labels) for images, labels in splits)
    return first, second


def _halved(images: np.ndarray) -> np.ndarray:
    n, h, w, c = images.shape
    blocks = images.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
    return np.round(blocks).astype(np.uint8)


def textures(folder: Path) -> tuple[Split, Split]:
    """Return grey gratings and noises of six kinds, 24 pixels, 60 training images of each."""
    draw = np.random.default_rng(4)
    y, x = np.mgrid[:24, :24]
    splits = []
    for each in (60, 60):
        images, labels = [], []
        for kind in range(6):
            for _ in range(each):
                images.append(_texture(kind, x, y, draw))
                labels.append(kind)
        splits.append((np.stack(images), np.asarray(labels)))
    return splits[0], splits[1]


def _texture(kind: int, x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    phase, wave = draw.uniform(0, 2 * np.pi), draw.uniform(4, 8)
    across = {0: x, 1: y, 2: x + y, 3: np.hypot(x - draw.uniform(6, 18), y - draw.uniform(6, 18))}
    if kind in across:
        plain = np.sin(2 * np.pi * across[kind] / wave + phase)
    elif kind == 4:  # a checkerboard
        plain = np.sign(np.sin(2 * np.pi * x / wave + phase) * np.sin(2 * np.pi * y / wave + phase))
    else:  # smooth noise
        coarse = draw.normal(size=(6, 6))
        plain = np.kron(coarse, np.ones((4, 4))) / 2
    noisy = 0.5 + 0.2 * plain + 0.15 * draw.normal(size=x.shape)
    return np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)


def imbalanced(folder: Path) -> tuple[Split, Split]:
    """Return MNIST's first six classes with 320 to 10 training images."""
    train, test = _mnist(folder)
    return chosen(train, [320, 160, 80, 40, 20, 10], 5), chosen(test, [100] * 6, 5)


def wide(folder: Path) -> tuple[Split, Split]:
    """Return three MNIST digits in a row, 16 x 48 pixels; the class is the middle one's parity."""
    train, test = _mnist(folder)
    draw = np.random.default_rng(6)
    splits = []
    for (images, labels), n in ((train, 600), (test, 400)):
        index = draw.permutation(len(images))[: 3 * n]
        small = [
            np.asarray(Image.fromarray(images[i]).resize((16, 16), Image.Resampling.BOX))
            for i in index
        ]
        rows = np.stack(small).reshape(n, 3, 16, 16).transpose(0, 2, 1, 3).reshape(n, 16, 48)
        splits.append((rows, labels[index].reshape(n, 3)[:, 1] % 2))
    return splits[0], splits[1]


SETS: dict[str, OwnSet] = {
    "digits_shallow": OwnSet(
        "digits, 8 px, in nets of depth 2", digits_shallow, ("--config.net.depth=2",)
    ),
    "digits_few": OwnSet("digits, 8 px, 40 images a class", digits_few),
    "mnist_few": OwnSet("MNIST, 28 px, 100 images a class", mnist_few),
    "cifar_small": OwnSet("CIFAR-10 at 16 px, 200 images a class", cifar_small),
    "tiny_3": OwnSet(
        "3 classes of Tiny-ImageNet at 32 px, 60 images each", lambda folder: _tiny(folder, 3, 60)
    ),
    "tiny_10": OwnSet("10 classes, 60 images each", lambda folder: _tiny(folder, 10, 60)),
    "tiny_40": OwnSet("40 classes, 40 images each", lambda folder: _tiny(folder, 40, 40)),
    "textures": OwnSet("grey textures, 24 px, 6 classes of 60", textures),
    "imbalanced": OwnSet("MNIST, classes of 320 to 10 images", imbalanced),
    "wide": OwnSet("three digits, 16 x 48 px, 2 classes of 300", wide),
}


def write(name: str, folder: Path, place: Path) -> Path:
    """Return the npz of a set in ``place``, written if it is not there.

    Args:
      folder: holds ``mnist_png.zip``, ``tiny_imagenet_100.zip`` and ``cifar10.npz``.
    """
    path = place / f"{name}.npz"
    if not path.exists():
        place.mkdir(parents=True, exist_ok=True)
        (x_train, y_train), (x_test, y_test) = SETS[name].make(folder)
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
        part.rename(path)
    return path
