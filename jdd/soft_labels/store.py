"""Soft labels on disk: what a teacher said to every view a student will see, a file an epoch.

    <store>/labels.json    the settings all labels in it were made with
    <store>/e0007.npz      epoch 7, plain arrays with the steps as leading axis:
        index              int32 [steps, b], the images of each step, -1 for padding
        view/NAME          [steps, ...], what a view is; the store does not look into it
        label/NAME         [steps, b, ...], see ``forms.layout``; in mode views
    <store>/images.npz     in modes static and map:
        label/NAME         [n, ...], a label of each image, see ``modes.of_image``

Images and views are stored beside the labels, so that a student replays them without drawing a
random number; FKD's files leave the images to be drawn again in the same order. All steps have b
rows. Where b does not divide the images, the last step of an epoch may end in padding: index -1,
label of zero logits (the relabel stage has none: it fills up with further views). Padding has no
weight in a loss (``rows`` of ``targets``), and has to be cut off where rows see each other: batch
statistics, mixing.

A file appears whole or not at all, and ``labels.json`` before any: what exists is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdd.errors import BadInput
from jdd.product.arrays import read_npz
from jdd.soft_labels import codec, modes
from jdd.storage import settings_files
from jdd.storage.files import write_atomic

AGAIN = "delete it, and its labels are made again"
# What a store means by a setting that it does not name: there have not always been modes.
_UNNAMED = {"mode": "views"}


class LabelStore:
    """A directory of soft labels made with one set of settings.

    Args:
      directory: where it lies or will lie.
      settings: JSON-able; all that the labels depend on (images, teachers, views, batch, epochs,
        seed, ...). Of these the store itself reads ``classes``, ``form``, ``mode`` (views, if it is
        not there), and ``k``, ``temperature`` and ``places`` where form or mode needs them.

    Raises:
      BadInput: the directory holds labels made with other settings; they are named. A form or mode
        that cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str], settings: Mapping[str, Any]):
        self.directory = Path(directory)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.classes, self.form = int(settings["classes"]), str(settings["form"])
        self.k = int(settings.get("k") or 0)
        soft = self.form not in ("logits", "hard")  # these two are of no temperature
        self.temperature = float(settings.get("temperature") or 0) if soft else 1.0
        self.mode = str(settings.get("mode", _UNNAMED["mode"]))
        self.places = tuple(int(size) for size in settings.get("places") or ())
        modes.check(self.mode, self.form, self.classes, self.k, self.temperature, self.places)
        self._of_view = modes.of_view(self.mode, self.form, self.classes, self.k)
        self._of_image = modes.of_image(self.mode, self.classes, self.k, self.places)
        self._check()

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> LabelStore:
        """Return the store that is at ``directory``, with the settings that it was made with.

        Raises:
          BadInput: there is none.
        """
        path = Path(directory) / "labels.json"
        found = settings_files.read(path)
        try:
            return cls(directory, found)
        except (TypeError, KeyError, ValueError) as error:
            allowed = "a folder of labels that jdd wrote"
            raise BadInput(str(path), "no label store's settings", allowed) from error

    def _check(self) -> None:
        settings_files.check(
            self.directory / "labels.json",
            self.settings,
            _UNNAMED,
            kind="a label store",
            what=f"label store {self.directory}",
            broken="give another folder for the labels",
            other="delete it, or name another --workdir",
        )

    def create(self) -> None:
        """Write the settings file, or check the one that is there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._check()  # another run may have made it since
        settings_files.write(self.directory / "labels.json", self.settings)

    def path(self, epoch: int) -> Path:
        """Return where the labels of an epoch lie."""
        return self.directory / f"e{epoch:04d}.npz"

    @property
    def images_path(self) -> Path:
        """Where the labels of images lie, in modes that have them."""
        return self.directory / "images.npz"

    def epochs(self) -> int:
        """Return how many epochs, from 0 on, are there in whole; a truncated file is not."""
        epoch, needed = 0, ["index", *(f"label/{name}" for name in self._of_view)]
        while _whole(self.path(epoch), needed):
            epoch += 1
        return epoch

    def has(self, epochs: int) -> bool:
        """Tell whether the first ``epochs`` epochs are there, and the images' labels."""
        return self.has_images() and self.epochs() >= epochs

    def has_images(self) -> bool:
        """Tell whether the images' labels are there in whole, or the mode has none."""
        needed = [f"label/{name}" for name in self._of_image]
        return not needed or _whole(self.images_path, needed)

    def write(
        self,
        epoch: int,
        index: np.ndarray,
        views: Mapping[str, np.ndarray],
        logits: np.ndarray | None = None,
    ) -> None:
        """Save an epoch, in place of what is there.

        Args:
          index: integers [steps, b], -1 for padding.
          views: plain arrays [steps, ...].
          logits: [steps, b, C] in mode views, else None; what they hold at padding is of no effect.

        Raises:
          BadInput: shapes that do not fit; padding not at the end; views that are not numbers;
            logits that ``forms.encode`` refuses; a folder that cannot be written.
        """
        where, index = f"labels of epoch {epoch}", np.asarray(index)
        if index.ndim != 2 or index.dtype.kind not in "iu" or not _padded_last(index):
            raise BadInput(
                where,
                f"index {index.dtype}{list(index.shape)}",
                "integers [steps, b] from 0 on, -1 only at the end of the last step",
            )
        arrays = {"index": index.astype(np.int32)}
        for name, view in views.items():
            view = np.asarray(view)
            if view.dtype.kind not in "biuf" or view.shape[:1] != index.shape[:1]:
                found = f"view {name} {view.dtype}{list(view.shape)}"
                raise BadInput(where, found, f"numbers of shape [{len(index)}, ...] are needed")
            arrays[f"view/{name}"] = view
        arrays |= self._encoded(where, index, logits)
        write_atomic(self.path(epoch), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def _encoded(
        self, where: str, index: np.ndarray, logits: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        shape = (*index.shape, self.classes) if self._of_view else None
        found = None if logits is None else np.shape(logits)
        if found != shape:
            wanted = f"{list(shape)} is needed" if shape else f"none in mode {self.mode}"
            raise BadInput(where, f"logits of shape {list(found) if found else found}", wanted)
        if logits is None:
            return {}
        # A step at a time: the softmax of a whole epoch in float64 may not fit.
        parts = [
            codec.encode(np.where(i[:, None] < 0, z.dtype.type(0), z),
                         self.form, self.k, self.temperature)
            for i, z in zip(index, np.asarray(logits), strict=True)
        ]  # fmt: skip
        return {f"label/{name}": np.stack([part[name] for part in parts]) for name in parts[0]}

    def write_images(self, labels: Mapping[str, np.ndarray]) -> None:
        """Save the labels of the images, arrays [n, ...] as of ``modes.of_image``.

        Raises:
          BadInput: arrays that are not these; a folder that cannot be written.
        """
        arrays = {f"label/{name}": np.asarray(a) for name, a in labels.items()}
        self._fit_images(f"labels of images in {self.directory}", arrays, "")
        write_atomic(self.images_path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def read_images(self) -> dict[str, np.ndarray]:
        """Return the labels of the images, [n, ...]; {} in modes that have none.

        Raises:
          BadInput: there is no such file, or it is truncated, damaged or not of this store.
        """
        if not self._of_image:
            return {}
        if not self.images_path.exists():
            raise BadInput(str(self.images_path), "no such labels", "the folder of a whole run")
        arrays = _read(self.images_path)
        self._fit_images(str(self.images_path), arrays, AGAIN)
        return {name: arrays[f"label/{name}"] for name in self._of_image}

    def _fit_images(self, where: str, arrays: Mapping[str, np.ndarray], then: str) -> None:
        first = next(iter(arrays.values()), np.zeros(()))
        wanted = {
            f"label/{name}": ((*first.shape[:1], *shape), dtype)
            for name, (shape, dtype) in self._of_image.items()
        }
        _fit(where, arrays, wanted, then)

    def read(self, epoch: int) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return (index, views, labels) of an epoch; ``forms.decode`` opens the labels.

        Raises:
          BadInput: there is no such file, or it is truncated, damaged or not of this store.
        """
        arrays = self._arrays(epoch)
        views, labels = (
            {name.removeprefix(kind): a for name, a in arrays.items() if name.startswith(kind)}
            for kind in ("view/", "label/")
        )
        return arrays["index"], views, labels

    def _arrays(self, epoch: int) -> dict[str, np.ndarray]:
        path = self.path(epoch)
        if not path.exists():
            raise BadInput(str(path), "no such labels", f"{self.epochs()} epochs are there")
        arrays = _read(path)
        rows: tuple[Any, ...] = arrays["index"].shape if "index" in arrays else ()
        rows = rows if len(rows) == 2 else ("steps", "b")
        wanted = {"index": (rows, np.dtype(np.int32))} | {
            f"label/{name}": ((*rows, *shape), dtype)
            for name, (shape, dtype) in self._of_view.items()
        }
        _fit(str(path), arrays, wanted, AGAIN)
        return arrays

    def _files(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for epoch in range(self.epochs()):
            yield str(epoch), self._arrays(epoch)
        yield "images", self.read_images()

    def digest(self) -> str:
        """Return 16 hex digits of the settings and of every array of the whole epochs.

        All files are read. The digits depend on contents alone, not on how NumPy packs them.

        Raises:
          BadInput: as ``read``.
        """
        found = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        for file, arrays in self._files():
            for name, array in sorted(arrays.items()):
                found.update(f"\n{file} {name} {array.dtype.str} {array.shape}\n".encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]


def _whole(path: Path, needed: Sequence[str]) -> bool:
    """Tell by the directory at a file's end, which a truncated one lacks."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in needed} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path)
    except BadInput as error:
        raise BadInput(error.where, error.found, AGAIN) from error


def _fit(
    where: str, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any], then: str
) -> None:
    """Refuse arrays that are not of the shapes and types ``wanted`` by name."""
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise BadInput(where, f"has no array {', '.join(missing)}", then or "all of the mode's")
    for name, (shape, dtype) in wanted.items():
        if (arrays[name].shape, arrays[name].dtype) != (shape, dtype):
            found = f"{name} is {arrays[name].dtype}{list(arrays[name].shape)}"
            sizes = ", ".join(map(str, shape))
            allowed = f"{dtype}[{sizes}] is needed{': ' if then else ''}{then}"
            raise BadInput(where, found, allowed)


def _padded_last(index: np.ndarray) -> bool:
    """Tell whether -1 stands nowhere but at the end, where no step is without an image."""
    flat = index.ravel()
    real = int((flat >= 0).sum())
    steps = index.size > 0 and real > index.size - index.shape[1]
    return bool(steps and (flat[:real] >= 0).all() and (flat[real:] == -1).all())
