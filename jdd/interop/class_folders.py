"""A distilled set as a folder (or archive) of images, one subfolder per class."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jdd.data.class_names import safe
from jdd.data.sources import archive, pixels
from jdd.errors import BadInput
from jdd.product import preview
from jdd.product.arrays import recipe_json
from jdd.product.distilled_set import DistilledSet
from jdd.storage import json_files
from jdd.storage.files import hidden, new_folder

SIDECAR = "recipe.json"
LAYOUT = "one folder of png or jpg images a class is needed"


class Folders(NamedTuple):
    """Images read from class folders: uint8 [n, h, w, c], and the relative path of each file."""

    pixels: np.ndarray
    files: tuple[str, ...]
    sidecar: dict[str, Any] | None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The class folders, sorted."""
        return tuple(sorted({PurePosixPath(file).parent.name for file in self.files}))


def read(path: Path) -> Folders:
    """Read a directory, .zip or .tar of class folders; files that are not images are ignored.

    Raises:
      BadInput: no images, a damaged one, several sizes, or an entry that points outside.
    """
    members = _members(path)
    sidecar = _sidecar(members, path)
    files = sorted(name for name in members if name.lower().endswith(pixels.SUFFIXES))
    files = [name for name in files if PurePosixPath(name).parent.name]
    if not files:
        raise BadInput(str(path), "no images in class folders", LAYOUT)
    if sidecar and isinstance(sidecar.get("files"), list):
        files = _listed(sidecar["files"], files, path)
    depths = {len(PurePosixPath(name).parts) for name in files}
    if len(depths) > 1:
        raise BadInput(str(path), "images at several depths of folders", LAYOUT)
    decoded = [pixels.decode(members[name], f"{path}:{name}", None, 0) for name in files]
    images = [one.array for one in decoded]
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        sizes = ", ".join(f"{w}x{h}" for h, w in sorted(shapes)[:4])
        raise BadInput(str(path), f"images of different sizes ({sizes})", "one size is needed")
    if any(image.shape[2] == 3 for image in images):
        images = [np.repeat(i, 3, axis=2) if i.shape[2] == 1 else i for i in images]
    stacked, seen = np.stack(images), np.array([one.seen for one in decoded], np.uint8)
    notes = pixels.notes(seen, np.array([one.size for one in decoded]), stacked.shape[1:])
    return Folders(stacked, tuple(files), sidecar, tuple(notes))


def write(dataset: DistilledSet, path: Path) -> Path:
    """Write ``path/<class>/<number>.png`` and ``path/recipe.json``, all or nothing.

    Values are rounded to 256 levels and clipped to [0, 255]: the folder is for viewing and sharing,
    while the accuracy was measured on the ``.npz``. ``recipe.json`` holds soft labels and the
    recipe.

    Raises:
      BadInput: ``path`` exists and is not empty, or cannot be written.
    """
    values, digits = preview.to_pixels(dataset), len(str(dataset.classes - 1))
    files = [""] * len(values)
    with new_folder(path) as part:
        for c, group in enumerate(preview.by_class(dataset)):
            # The number preserves label order for readers that sort the folders.
            folder = f"{c:0{digits}d}_{safe(dataset.class_names[c])}"
            (part / folder).mkdir(parents=True)
            for place, index in enumerate(group):
                files[index] = f"{folder}/{place:04d}.png"
                (part / files[index]).write_bytes(preview.png(values[index]))
        sidecar = {
            "schema_version": dataset.recipe["schema"],
            "recipe": json.loads(recipe_json(dataset.recipe)),
            "label_kind": dataset.label_kind,
            "lr": dataset.lr,
            "files": files,
            "labels": dataset.labels.tolist(),
        }
        sidecar["digest"] = json_files.digest(sidecar)
        (part / SIDECAR).write_text(json.dumps(sidecar, indent=1), encoding="utf-8")
    return path


def _members(path: Path) -> dict[str, bytes]:
    def wanted(parts: tuple[str, ...]) -> bool:
        if any(map(hidden, parts)):
            return False
        return parts[-1].lower().endswith(pixels.SUFFIXES) or parts[-1] == SIDECAR

    found = archive.walk(path, wanted)
    return _unwrap({"/".join(entry.parts): entry.data for entry in found if entry.data is not None})


def _unwrap(members: dict[str, bytes]) -> dict[str, bytes]:
    """Drop a single folder that wraps all others."""
    tops = {PurePosixPath(name).parts[0] for name in members}
    deep = all(len(PurePosixPath(name).parts) > 2 or name.endswith(SIDECAR) for name in members)
    if len(tops) == 1 and deep and SIDECAR not in members:
        return _unwrap({name.split("/", 1)[1]: data for name, data in members.items()})
    return members


def _sidecar(members: dict[str, bytes], path: Path) -> dict[str, Any] | None:
    if SIDECAR not in members:
        return None
    found = json_files.parse(members[SIDECAR], f"{path}:{SIDECAR}", "remove or mend it")
    if "recipe" not in found:
        return None
    if "digest" in found and found.pop("digest") != json_files.digest(found):
        edited = f"export the set again; if {SIDECAR} was edited, delete its digest"
        raise BadInput(f"{path}:{SIDECAR}", "damaged: not what was written", edited)
    return found


def _listed(listed: list[Any], files: list[str], path: Path) -> list[str]:
    if sorted(map(str, listed)) != files:
        odd = sorted(set(map(str, listed)) ^ set(files))
        raise BadInput(
            str(path),
            f"{SIDECAR} and the images disagree about {odd[0] if odd else 'a file listed twice'}",
            f"restore the images or remove {SIDECAR}",
        )
    return list(listed)
