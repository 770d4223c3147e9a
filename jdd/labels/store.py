"""Soft labels on disk: what a teacher said to every view a student will see, a file an epoch.

    <store>/labels.json    the settings all labels in it were made with
    <store>/e0007.npz      epoch 7, plain arrays with the steps as leading axis:
        index              int32 [steps, b], the images of each step, -1 for padding
        view/NAME          [steps, ...], what a view is; the store does not look into it
        label/NAME         [steps, b, ...], see ``forms.layout``

Images and views are stored beside the labels, so that a student replays them without drawing a
random number; FKD's files leave the images to be drawn again in the same order. All steps have b
rows. Where b does not divide the images, the last step of an epoch may end in padding: index -1,
label of zero logits (the relabel stage has none: it fills up with further views). Padding has no
weight in a loss (``targets.row_weights``), and has to be cut off where rows see each other: batch
statistics, mixing.

A file appears whole or not at all, and ``labels.json`` before any: what exists is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdd.distilled import read_npz
from jdd.errors import BadInput, contrast
from jdd.files import write_atomic
from jdd.labels import forms

AGAIN = "delete it, and the labels of this epoch are made again"


def in_steps(order: np.ndarray, batch: int) -> np.ndarray:
    """Cut an epoch's ``order`` [n] into steps, int32 [steps, min(batch, n)], padded with -1."""
    b = min(batch, len(order))
    steps = -(-len(order) // b)
    index = np.full(steps * b, -1, np.int32)
    index[: len(order)] = order
    return index.reshape(steps, b)


class LabelStore:
    """A directory of soft labels made with one set of settings.

    Args:
      directory: where it lies or will lie.
      settings: JSON-able; all that the labels depend on (images, teachers, views, batch, epochs,
        seed, ...). Of these the store itself reads ``classes``, ``form``, and ``k`` and
        ``temperature`` where the form needs them.

    Raises:
      BadInput: the directory holds labels made with other settings; they are named. A form that
        cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str], settings: Mapping[str, Any]):
        self.directory = Path(directory)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.classes, self.form = int(settings["classes"]), str(settings["form"])
        self.k = int(settings.get("k") or 0)
        soft = self.form not in ("logits", "hard")  # these two are of no temperature
        self.temperature = float(settings.get("temperature") or 0) if soft else 1.0
        forms.check(self.form, self.classes, self.k, self.temperature)
        self._check()

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> LabelStore:
        """Return the store that is at ``directory``, with the settings that it was made with.

        Raises:
          BadInput: there is none.
        """
        path = Path(directory) / "labels.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
            return cls(directory, settings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            allowed = "a folder of labels that jdd wrote"
            raise BadInput(str(path), "no label store's settings", allowed) from error

    def _check(self) -> None:
        path = self.directory / "labels.json"
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["settings"]
            told, asked = contrast(found, self.settings)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                str(path), "not a label store's settings", "give another folder for the labels"
            ) from error
        if told:
            raise BadInput(
                f"label store {self.directory}",
                f"made with {told}",
                f"this run has {asked}: delete it, or name another --workdir",
            )

    def create(self) -> None:
        """Write the settings file, or check the one that is there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._check()  # another run may have made it since
        path = self.directory / "labels.json"
        if not path.exists():
            text = json.dumps({"schema": 1, "settings": self.settings}, indent=1) + "\n"
            write_atomic(path, lambda file: file.write(text.encode()))

    def path(self, epoch: int) -> Path:
        """Return where the labels of an epoch lie."""
        return self.directory / f"e{epoch:04d}.npz"

    def epochs(self) -> int:
        """Return how many epochs, from 0 on, are there in whole; a truncated file is not."""
        epoch = 0
        while self._whole(self.path(epoch)):
            epoch += 1
        return epoch

    def has(self, epochs: int) -> bool:
        """Tell whether the first ``epochs`` epochs are there."""
        return self.epochs() >= epochs

    def _whole(self, path: Path) -> bool:
        """Tell by the directory at a file's end, which a truncated one lacks."""
        try:
            with zipfile.ZipFile(path) as archive:
                return {f"{name}.npy" for name in self._needed()} <= set(archive.namelist())
        except (OSError, zipfile.BadZipFile):
            return False

    def _needed(self) -> list[str]:
        labels = forms.layout(self.form, self.classes, self.k)
        return ["index", *(f"label/{name}" for name in labels)]

    def write(
        self,
        epoch: int,
        index: np.ndarray,
        views: Mapping[str, np.ndarray],
        logits: np.ndarray,
    ) -> None:
        """Save an epoch, in place of what is there.

        Args:
          index: integers [steps, b] as of ``in_steps``.
          views: plain arrays [steps, ...].
          logits: [steps, b, C]; what they hold at padding is of no effect.

        Raises:
          BadInput: shapes that do not fit; padding not at the end; views that are not numbers;
            logits that ``forms.encode`` refuses; a folder that cannot be written.
        """
        where, index = f"labels of epoch {epoch}", np.asarray(index)
        logits = np.asarray(logits)
        if index.ndim != 2 or index.dtype.kind not in "iu" or not _padded_last(index):
            raise BadInput(
                where,
                f"index {index.dtype}{list(index.shape)}",
                "integers [steps, b] from 0 on, -1 only at the end of the last step",
            )
        if logits.shape != (*index.shape, self.classes):
            wanted = f"{[*index.shape, self.classes]} is needed"
            raise BadInput(where, f"logits of shape {list(logits.shape)}", wanted)
        arrays = {"index": index.astype(np.int32)}
        for name, view in views.items():
            view = np.asarray(view)
            if view.dtype.kind not in "biuf" or view.shape[:1] != index.shape[:1]:
                found = f"view {name} {view.dtype}{list(view.shape)}"
                raise BadInput(where, found, f"numbers of shape [{len(index)}, ...] are needed")
            arrays[f"view/{name}"] = view
        # A step at a time: the softmax of a whole epoch in float64 may not fit.
        parts = [
            forms.encode(np.where(i[:, None] < 0, z.dtype.type(0), z),
                         self.form, self.k, self.temperature)
            for i, z in zip(index, logits, strict=True)
        ]  # fmt: skip
        arrays |= {f"label/{name}": np.stack([part[name] for part in parts]) for name in parts[0]}
        write_atomic(self.path(epoch), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

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
        try:
            arrays = read_npz(path)
        except BadInput as error:
            raise BadInput(error.where, error.found, AGAIN) from error
        missing = [name for name in self._needed() if name not in arrays]
        if missing:
            raise BadInput(str(path), f"has no array {', '.join(missing)}", AGAIN)
        rows = arrays["index"].shape
        wanted = {"index": (rows, np.dtype(np.int32))} | {
            f"label/{name}": ((*rows, *shape), dtype)
            for name, (shape, dtype) in forms.layout(self.form, self.classes, self.k).items()
        }
        for name, (shape, dtype) in wanted.items():
            if len(rows) != 2 or (arrays[name].shape, arrays[name].dtype) != (shape, dtype):
                found = f"{name} is {arrays[name].dtype}{list(arrays[name].shape)}"
                raise BadInput(str(path), found, f"{dtype}{list(shape)} is needed: {AGAIN}")
        return arrays

    def digest(self) -> str:
        """Return 16 hex digits of the settings and of every array of the whole epochs.

        All files are read. The digits depend on contents alone, not on how NumPy packs them.

        Raises:
          BadInput: as ``read``.
        """
        found = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        for epoch in range(self.epochs()):
            for name, array in sorted(self._arrays(epoch).items()):
                found.update(f"\n{epoch} {name} {array.dtype.str} {array.shape}\n".encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]


def _padded_last(index: np.ndarray) -> bool:
    """Tell whether -1 stands nowhere but at the end, where no step is without an image."""
    flat = index.ravel()
    real = int((flat >= 0).sum())
    steps = index.size > 0 and real > index.size - index.shape[1]
    return bool(steps and (flat[:real] >= 0).all() and (flat[real:] == -1).all())
