"""Append-only buffers for decoded images, in memory or on disk.

A buffer takes an image and returns its place (an index). When all images are added, it returns the
images at given places as an array, in the order of the places.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jdd import memory
from jdd.data.sources import pixels
from jdd.data.sources.pixels import Decoded
from jdd.errors import BadInput

Splits = dict[str, tuple[Any, np.ndarray]]
_BYTES = 1 << 24  # of a file that are rewritten at a time
_LOOK = 256  # images between two checks of the free memory


class ImageBuffer(Protocol):
    """The interface of a buffer, as sources use it."""

    def add(self, image: Decoded) -> int:
        """Append one image and return its place."""

    def take(self, places: Sequence[int]) -> tuple[Any, list[str]]:
        """Return the images at ``places`` and the notes on how they were decoded."""

    def alike(self, splits: Splits) -> Splits:
        """Return the splits with one common number of channels."""


def _validate_memory(count: int, images: int, image: Decoded) -> None:
    height, width = image.array.shape[:2]
    memory.need(
        count,
        "config.data",
        f"{images} images of {width}x{height} in memory, the last of which take",
        "--config.data.stream=true leaves them on disk, or a smaller --config.data.size",
    )


class Held:
    """Buffer in memory; images that were taken are removed from it.

    Images arrive one by one, and no single allocation is large enough to fail: without a check of
    the free memory the system would kill the process.
    """

    def __init__(self) -> None:
        self._images: list[Decoded | None] = []

    def add(self, image: Decoded) -> int:
        if len(self._images) % _LOOK == 0:
            _validate_memory(_LOOK * image.array.nbytes, len(self._images) + _LOOK, image)
        self._images.append(image)
        return len(self._images) - 1

    def take(self, places: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        images = [image for place in places if (image := self._images[place]) is not None]
        for place in places:
            self._images[place] = None
        channels = max(image.array.shape[2] for image in images)
        height, width = images[0].array.shape[:2]
        _validate_memory(len(images) * height * width * channels, len(images), images[0])
        out = np.empty((len(images), *images[0].array.shape[:2], channels), np.uint8)
        for i, image in enumerate(images):
            out[i] = image.array  # one channel broadcasts to three
        seen = np.array([image.seen for image in images], np.uint8)
        sizes = np.array([image.size for image in images])
        return out, pixels.notes(seen, sizes, out.shape[1:])

    def alike(self, splits: Splits) -> Splits:
        channels = max(images.shape[-1] for images, _ in splits.values())
        return {
            split: (
                images if images.shape[-1] == channels else np.repeat(images, channels, axis=-1),
                labels,
            )
            for split, (images, labels) in splits.items()
        }


class Spool:
    """Buffer in a file of uint8 pixels, image after image; holds no image in memory.

    ``take`` returns the places themselves: the file is read once it is complete.
    """

    def __init__(self, path: Path):
        self._path, self._file = path, open(path, "wb")
        self.shape: tuple[int, ...] = ()  # of one image
        self.count = 0
        self._seen, self._channels = bytearray(), bytearray()
        self._sizes = array("I")  # w, h
        self._needed = 0  # channels of what was taken

    def add(self, image: Decoded) -> int:
        self._seen.append(image.seen)
        self._sizes.extend(image.size)
        return self._put(image.array[None])

    def extend(self, images: np.ndarray) -> int:
        """Append several images and return the place of the first."""
        self._seen.extend(bytes(len(images)))
        self._sizes.extend(images.shape[2:0:-1] * len(images))
        return self._put(images)

    def _put(self, images: np.ndarray) -> int:
        own = images.shape[3]
        self._channels.extend([own] * len(images))
        if not self.shape:
            self.shape = images.shape[1:]
        if images.shape[1:3] != self.shape[:2]:
            sizes = " and ".join(f"{h}x{w}" for h, w in (self.shape[:2], images.shape[1:3]))
            raise BadInput("images", f"of {sizes} pixels", "one size: give --config.data.size")
        if own > self.shape[2]:
            self._colour()
        if own < self.shape[2]:
            images = np.repeat(images, self.shape[2], axis=3)
        self._file.write(np.ascontiguousarray(images).data)
        self.count += len(images)
        return self.count - len(images)

    def _colour(self) -> None:
        """Rewrite the grey images so far as RGB, when the first colour image arrives."""
        self._file.close()
        wide = self._path.with_suffix(".rgb")
        with open(self._path, "rb") as grey, open(wide, "wb") as out:
            while piece := grey.read(_BYTES):
                out.write(np.repeat(np.frombuffer(piece, np.uint8), 3).data)
        os.replace(wide, self._path)
        self._file, self.shape = open(self._path, "ab"), (*self.shape[:2], 3)

    def take(self, places: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        rows = np.asarray(places, np.int64)
        seen, channels = (np.frombuffer(bytes(a), np.uint8) for a in (self._seen, self._channels))
        sizes = np.array(self._sizes, np.int64).reshape(-1, 2)
        own = int(channels[rows].max())
        self._needed = max(self._needed, own)
        return rows, pixels.notes(seen[rows], sizes[rows], (*self.shape[:2], own))

    def alike(self, splits: Splits) -> Splits:
        return splits

    def close(self) -> None:
        """Flush the remaining bytes to disk and close the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def finish(self) -> None:
        """Convert a closed file back to grey if no colour image was taken from it."""
        if not self._needed or self._needed == self.shape[2]:
            return
        narrow = self._path.with_suffix(".grey")
        with open(self._path, "rb") as wide, open(narrow, "wb") as out:
            while piece := wide.read(3 * _BYTES):
                out.write(np.ascontiguousarray(np.frombuffer(piece, np.uint8)[::3]).data)
        os.replace(narrow, self._path)
        self.shape = (*self.shape[:2], 1)
