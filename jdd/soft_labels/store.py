"""Store of soft labels on disk: the views of a student's training and their labels, by epoch.

    <store>/labels.json    the settings that all its labels were made with
    <store>/e0007.npz      epoch 7, plain arrays with the steps as leading axis:
        index              int32 [steps, b], the images of each step, -1 for padding
        view/NAME          [steps, ...], the fields of views, opaque to the store
        label/NAME         [steps, b, ...], see ``codec.layout``; in mode views
    <store>/images.npz     in modes static and map:
        label/NAME         [n, ...], a label of each image, see ``modes.of_image``

Image indices and views are stored next to the labels, so that a student replays them without random
numbers (with FKD's files the images are drawn again in the same order). All steps have b rows. If b
does not divide the number of images, the last step of an epoch may end in padding: index -1, label
of zero logits (the relabel stage adds further views instead). Padding has weight 0 in a loss
(``rows`` of ``targets``) and must be removed before operations across rows: batch statistics,
mixing.

Files are written atomically, ``labels.json`` first: files that exist are complete.
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
from jdd.storage import settings_files, zips
from jdd.storage.files import write_atomic

AGAIN = "delete it, and its labels are made again"
# Values of settings that older stores do not name: they had no modes.
_UNNAMED = {"mode": "views"}


def digest(images: np.ndarray) -> str:
    """Return a 16-hex-digit hash of images, as recorded in a store's settings."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()[:16]


class LabelStore:
    """A directory of soft labels made with one set of settings.

    Args:
      directory: the folder of the store, which need not exist.
      settings: JSON-able; everything the labels depend on (images, teachers, views, batch, epochs,
        seed, ...). The store itself reads ``classes``, ``form``, ``mode`` (default: views), and
        ``k``, ``temperature`` and ``places`` if the form or mode needs them.

    Raises:
      BadInput: the directory holds labels made with other settings, which are named; an invalid
        form or mode.
    """

    def __init__(self, directory: str | os.PathLike[str], settings: Mapping[str, Any]):
        self.directory = Path(directory)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.classes, self.form = int(settings["classes"]), str(settings["form"])
        self.k = int(settings.get("k") or 0)
        soft = self.form not in ("logits", "hard")  # these two do not depend on the temperature
        self.temperature = float(settings.get("temperature") or 0) if soft else 1.0
        self.mode = str(settings.get("mode", _UNNAMED["mode"]))
        self.places = tuple(int(size) for size in settings.get("places") or ())
        modes.validate(self.mode, self.form, self.classes, self.k, self.temperature, self.places)
        self._of_view = modes.of_view(self.mode, self.form, self.classes, self.k)
        self._of_image = modes.of_image(self.mode, self.classes, self.k, self.places)
        self._validate()

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> LabelStore:
        """Return the existing store at ``directory``, with its own settings.

        Raises:
          BadInput: there is no store.
        """
        path = Path(directory) / "labels.json"
        found = settings_files.read(path)
        try:
            return cls(directory, found)
        except (TypeError, KeyError, ValueError) as error:
            allowed = "a folder of labels that jdd wrote"
            raise BadInput(str(path), "no label store's settings", allowed) from error

    def _validate(self) -> None:
        settings_files.validate(
            self.directory / "labels.json",
            self.settings,
            _UNNAMED,
            kind="a label store",
            what=f"label store {self.directory}",
            broken="delete it if this command made the labels, and it is written again; else give "
            "another folder for the labels",
            other="delete it, or name another --workdir",
        )

    def create(self) -> None:
        """Write the settings file, or check the existing one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._validate()  # another run may have written it in the meantime
        settings_files.write(self.directory / "labels.json", self.settings)

    def path(self, epoch: int) -> Path:
        """Return the path of an epoch's file."""
        return self.directory / f"e{epoch:04d}.npz"

    @property
    def images_path(self) -> Path:
        """The path of the images' labels, in modes that have them."""
        return self.directory / "images.npz"

    def epochs(self) -> int:
        """Return the number of complete epochs from 0 on; a truncated file is not complete."""
        epoch, needed = 0, ["index", *(f"label/{name}" for name in self._of_view)]
        while _whole(self.path(epoch), needed):
            epoch += 1
        return epoch

    def has(self, epochs: int) -> bool:
        """True if the first ``epochs`` epochs and the images' labels are complete."""
        return self.has_images() and self.epochs() >= epochs

    def has_images(self) -> bool:
        """True if the images' labels are complete, or the mode has none."""
        needed = [f"label/{name}" for name in self._of_image]
        return not needed or _whole(self.images_path, needed)

    def write(
        self,
        epoch: int,
        index: np.ndarray,
        views: Mapping[str, np.ndarray],
        logits: np.ndarray | None = None,
    ) -> None:
        """Write an epoch, replacing an existing one.

        Args:
          index: integers [steps, b], -1 for padding.
          views: plain arrays [steps, ...].
          logits: [steps, b, C] in mode views, else None; values at padding are ignored.

        Raises:
          BadInput: shapes that do not fit; padding not at the end; views that are not numbers;
            logits that ``codec.encode`` refuses; a folder that cannot be written.
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
        # One step at a time: the softmax of a whole epoch in float64 may not fit into memory.
        parts = [
            codec.encode(np.where(i[:, None] < 0, z.dtype.type(0), z),
                         self.form, self.k, self.temperature)
            for i, z in zip(index, np.asarray(logits), strict=True)
        ]  # fmt: skip
        return {f"label/{name}": np.stack([part[name] for part in parts]) for name in parts[0]}

    def write_images(self, labels: Mapping[str, np.ndarray]) -> None:
        """Write the labels of the images, arrays [n, ...] in the layout of ``modes.of_image``.

        Raises:
          BadInput: arrays of another layout; a folder that cannot be written.
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
        """Return (index, views, labels) of an epoch; ``codec.decode`` decodes the labels.

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
        """Return a 16-digit hex hash of the settings and of every array of the complete epochs.

        Reads all files. The hash depends on the contents alone, not on how NumPy packs them.

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
    """True if a file has the directory at its end, which a truncated one lacks."""
    try:
        with zips.opened(path) as archive:
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
    """Refuse arrays whose names, shapes or dtypes differ from ``wanted``."""
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
    """True if -1 occurs only at the end, and every step has an image."""
    flat = index.ravel()
    real = int((flat >= 0).sum())
    steps = index.size > 0 and real > index.size - index.shape[1]
    return bool(steps and (flat[:real] >= 0).all() and (flat[real:] == -1).all())
