"""Images in class folders, on disk or in an archive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jdd.data.facts import Facts
from jdd.data.sources import archive, pixels
from jdd.data.sources.archive import Parts
from jdd.data.sources.decoding import Item, decode_all
from jdd.data.sources.raw import Raw, Request
from jdd.data.sources.shelf import Shelf, Splits
from jdd.errors import BadInput

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Files of text that known archives carry: words for the classes' ids, labels of a flat folder.
_WORDS = ("classes.txt", "words.txt")
_ANNOTATIONS = "val_annotations.txt"
_LAYOUT = "expected are [train|val|test/]class/*.png|jpg"


class _Tree(NamedTuple):
    """All that one walk found: image paths with their places, other paths, text files."""

    images: dict[Parts, int]
    others: list[Parts]
    folders: list[Parts]
    texts: dict[Parts, str]


def read(request: Request, shelf: Shelf) -> Raw:
    """Read ``[split/]class/*`` images from a folder, a zip or a tar, in one sequential pass.

    Splits are folders train, val (valid, validation) and test; without them the class folders
    lie at the top and everything is training data. One folder around it all is looked through.
    Images may lie deeper inside a class folder. Other files are ignored, counted and told.
    Classes whose names are all numbers are in the order of the numbers, others in alphabetical
    order; images are in the order of their paths, so a folder and an archive of it agree.

    Raises:
      BadInput: no images, a class without images, different sizes, a damaged file or archive.
    """
    where, tree = request.path, _unwrap(_collect(request, shelf))
    if not tree.images:
        raise BadInput(where, f"no images found ({len(tree.others)} other files)", _LAYOUT)
    placed, ignored, notes = _place(tree, where)
    names, order = _classes(placed, tree, request.facts, where)
    splits: Splits = {}
    told = []
    for split in ("train", "val", "test"):
        mine = [(cls, paths) for (kind, cls), paths in placed.items() if kind == split]
        found = sorted((path, cls) for cls, paths in mine for path in paths)
        if not found:
            continue
        images, seen = shelf.take([tree.images[path] for path, _ in found])
        splits[split] = (images, np.array([order[cls] for _, cls in found], np.int32))
        told += [f"{split}: {note}" for note in seen]
        notes += _absent(split, splits[split][1], names)
    strays = len(tree.others) + ignored
    if strays:
        told.append(f"{strays} stray file{'s' if strays > 1 else ''} ignored")
    return Raw(shelf.alike(splits), names, 255.0, tuple(notes + told))


def _collect(request: Request, shelf: Shelf) -> _Tree:
    tree = _Tree({}, [], [], {})

    def wanted(parts: Parts) -> bool:
        return _is_image(parts) or parts[-1] in (*_WORDS, _ANNOTATIONS)

    def items() -> Iterator[Item]:
        for entry in archive.walk(request.file, wanted):
            if any(_hidden(part) for part in entry.parts):
                tree.others.extend([] if entry.folder else [entry.parts])
            elif entry.folder:
                tree.folders.append(entry.parts)
            elif entry.data is None:
                tree.others.append(entry.parts)
            elif _is_image(entry.parts):
                yield Item(entry.parts, f"{request.path}:{'/'.join(entry.parts)}", entry.data)
            else:
                tree.texts[entry.parts] = entry.data.decode(errors="replace")

    for parts, image in decode_all(items(), request):
        tree.images[parts] = shelf.add(image)
    return tree


def _is_image(parts: Parts) -> bool:
    return parts[-1].lower().endswith(pixels.SUFFIXES) and not any(_hidden(p) for p in parts)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _unwrap(tree: _Tree) -> _Tree:
    """Drop folders that hold everything: an archive of ``name/train/class/...`` is common."""
    while True:
        tops = {parts[0] for parts in tree.images}
        if len(tops) != 1 or min(map(len, tree.images)) < 3:
            return tree
        top = tops.pop()
        if top.lower() in _SPLITS:
            return tree

        tree = _Tree(
            {p[1:]: image for p, image in tree.images.items()},
            [p[1:] if p[0] == top else p[-1:] for p in tree.others],
            [p[1:] for p in tree.folders if p[0] == top and len(p) > 1],
            {p[1:]: text for p, text in tree.texts.items() if p[0] == top},
        )


Placed = dict[tuple[str, str], list[Parts]]  # (split, class) -> paths of its images


def _place(tree: _Tree, where: str) -> tuple[Placed, int, list[str]]:
    """Give every image its split and class; also count images outside, and say what was done."""
    tops = {parts[0].lower() for parts in tree.images if len(parts) > 1}
    split_layout = any(_SPLITS.get(top) == "train" for top in tops)
    if not split_layout and tops and all(top in _SPLITS for top in tops):
        raise BadInput(where, f"only {', '.join(sorted(tops))} images", f"no train; {_LAYOUT}")
    placed: Placed = {}
    ignored = 0
    for parts in tree.images:
        place = _split_class(parts, split_layout)
        if place is None:
            ignored += 1
        else:
            placed.setdefault(place, []).append(parts)
    if not placed:
        raise BadInput(where, f"{ignored} images, none in a class folder", _LAYOUT)
    for parts in (*tree.folders, *(p[:-1] for p in tree.others)):
        place = _split_class((*parts, "?"), split_layout)
        if place and len(parts) == 1 + split_layout and not any(_hidden(p) for p in parts):
            placed.setdefault(place, [])
    notes: list[str] = []
    for split in ("val", "test"):
        _unlabelled(placed, split, tree, notes)
    _check_filled(placed, where)
    if not any(s == "test" for s, _ in placed) and any(s == "val" for s, _ in placed):
        placed = {("test" if s == "val" else s, c): paths for (s, c), paths in placed.items()}
        notes.append("no test split found: the validation split is the test split")
    return placed, ignored, notes


def _split_class(parts: Parts, split_layout: bool) -> tuple[str, str] | None:
    if not split_layout:
        return ("train", parts[0]) if len(parts) > 1 else None
    split = _SPLITS.get(parts[0].lower())
    return (split, parts[1]) if split and len(parts) > 2 else None


def _unlabelled(placed: Placed, split: str, tree: _Tree, notes: list[str]) -> None:
    """Handle ``split/images/*`` without classes: label it by the annotations, or leave it out."""
    if {c for s, c in placed if s == split} != {"images"} or ("train", "images") in placed:
        return
    paths = placed.pop((split, "images"))
    lines = next((t for p, t in tree.texts.items() if p[-1] == _ANNOTATIONS), "").splitlines()
    labels = dict(line.split("\t")[:2] for line in lines if "\t" in line) if split == "val" else {}
    for path in paths:
        if path[-1] in labels:
            placed.setdefault((split, labels[path[-1]]), []).append(path)
    missing = sum(path[-1] not in labels for path in paths)
    if missing:
        notes.append(f"{missing} {split} images without class folders left out")


def _check_filled(placed: Placed, where: str) -> None:
    train = {c for s, c in placed if s == "train"}
    for (split, name), paths in sorted(placed.items()):
        if not paths:
            raise BadInput(
                where,
                f"class folder {name!r} ({split}) has no images",
                "add images or remove the folder",
            )
        if name not in train:
            raise BadInput(
                where, f"class {name!r} is in {split} but not in train", "classes must be the same"
            )
    if len(train) < 2:
        raise BadInput(where, f"{len(train)} class ({', '.join(train)})", "at least 2 are needed")


def _classes(
    placed: Placed, tree: _Tree, facts: Facts | None, where: str
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the classes' display names and the label of each class folder."""
    found = {c for s, c in placed if s == "train"}
    known = facts.class_names if facts else ()
    plain = {_plain(name): i for i, name in enumerate(known)}
    if len(found) == len(known) and {_plain(name) for name in found} == set(plain):
        return known, {name: plain[_plain(name)] for name in found}
    numbers = all(name.isascii() and name.isdigit() for name in found)
    ordered = sorted(found, key=lambda name: (int(name), name)) if numbers else sorted(found)
    order = {name: i for i, name in enumerate(ordered)}
    if facts and len(known) == len(found):
        if numbers and [int(name) for name in ordered] == list(range(len(known))):
            return known, order
        odd = next(name for name in ordered if _plain(name) not in plain)
        allowed = f"{facts.name} has {', '.join(known[:20])}, or folders 0 to {len(known) - 1}"
        raise BadInput(where, f"class folder {odd!r}", allowed)
    words = _words(tree)
    names = [words.get(name, name) for name in ordered]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({ident})"
        for name, ident in zip(names, ordered, strict=True)
    ), order


def _plain(name: str) -> str:
    """Reduce a class name to letters and digits: no folder can be called "T-shirt/top"."""
    return "".join(c for c in name.lower() if c.isalnum())


def _words(tree: _Tree) -> dict[str, str]:
    """Read ``id<TAB>word, other words`` lines; the first word names the class."""
    for name in _WORDS:
        text = tree.texts.get((name,), "")
        rows = [line.split("\t") for line in text.splitlines() if "\t" in line]
        if rows:
            return {row[0].strip(): row[1].split(",")[0].strip() for row in rows}
    return {}


def _absent(split: str, labels: np.ndarray, names: tuple[str, ...]) -> list[str]:
    missing = len(names) - len(np.unique(labels))
    return [f"{split}: {missing} of {len(names)} classes have no images"] if missing else []
