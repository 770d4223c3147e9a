"""Images in class folders, on disk or in an archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from jdd.data import class_names
from jdd.data.catalogue import Facts
from jdd.data.sources import archive, layout, pixels
from jdd.data.sources.archive import Parts
from jdd.data.sources.decoding import Item, decode_all
from jdd.data.sources.image_buffer import ImageBuffer, Splits
from jdd.data.sources.request import Raw, Request
from jdd.errors import BadInput
from jdd.storage.files import hidden

# Text files in known archives: words for the classes' ids, labels of a flat folder.
_WORDS = ("classes.txt", "words.txt")
_ANNOTATIONS = "val_annotations.txt"


class _Tree(NamedTuple):
    """The result of one walk: image paths with their places, other paths, text files."""

    images: dict[Parts, int]
    others: list[Parts]
    folders: list[Parts]
    texts: dict[Parts, str]


Homes = dict[tuple[str, str], list[Parts]]  # (split, class) -> paths of its images


def read(request: Request, buffer: ImageBuffer) -> Raw:
    """Read class folders from a folder, a zip or a tar, in one sequential pass.

    ``layout.place`` assigns a split and a class to each picture; without a training split
    everything is training data. Pictures may lie deeper inside a class folder. Other files are
    ignored and counted. Classes whose names are all numbers are in the order of the numbers,
    others in alphabetical order; those of a known dataset are matched by ``class_names.match``.
    Images are in the order of their paths, so a folder and an archive of it agree.

    Raises:
      BadInput: no images, a class without images, different sizes, names that are not the
        dataset's, a damaged file or archive.
    """
    where, tree = request.path, _collect(request, buffer)
    if not tree.images:
        unread = pixels.unread([parts[-1] for parts in tree.others])
        for parts in tree.others[:8] if request.file.is_dir() else ():
            if other := archive.other_format(request.file.joinpath(*parts)):
                raise BadInput(f"{where}/{'/'.join(parts)}", *other)
        found = f"no images found, {counted(tree.others, 'other')}"
        raise BadInput(where, found, unread or layout.EXPECTED)
    known = request.facts.class_names if request.facts else ()
    empty = [*tree.folders, *(parts[:-1] for parts in tree.others)]
    empty = [parts for parts in empty if not any(map(hidden, parts))]
    placed = layout.place(tree.images, empty, request.layout, known, where)
    homes, notes = dict(placed.paths), list(placed.notes)
    for split in ("val", "test"):
        _unlabelled(homes, split, tree, notes)
    homes = _one_name(homes, where, notes)
    _validate_filled(homes, where)
    if not any(s == "test" for s, _ in homes) and any(s == "val" for s, _ in homes):
        homes = {("test" if s == "val" else s, c): paths for (s, c), paths in homes.items()}
        notes.append("no test split found: the validation split is the test split")
    names, labels = _classes(homes, tree, request.facts, where, notes)
    splits: Splits = {}
    counts = []
    for split in ("train", "val", "test"):
        mine = [(cls, paths) for (kind, cls), paths in homes.items() if kind == split]
        rows = sorted((path, cls) for cls, paths in mine for path in paths)
        if not rows:
            continue
        images, seen = buffer.take([tree.images[path] for path, _ in rows])
        splits[split] = (images, np.array([labels[cls] for _, cls in rows], np.int32))
        counts += [f"{split}: {note}" for note in seen]
        notes += _absent(split, splits[split][1], names)
    if strays := [*tree.others, *placed.outside]:
        example = "/".join(min(strays))
        such = ", such as" if len(strays) > 1 else ":"
        counts.append(f"{counted(strays, 'stray')} ignored{such} {example}")
    if unread := pixels.unread([parts[-1] for parts in tree.others]):
        counts.append(unread)
    return Raw(buffer.alike(splits), names, 255.0, tuple(notes + counts))


def counted(files: list[Parts], kind: str) -> str:
    """Return the number of files of a kind, by suffix: ``2 stray files (2 .txt)``."""
    endings = Counter(PurePosixPath(parts[-1]).suffix.lower() or parts[-1] for parts in files)
    listed = [f"{n} {ending}" for ending, n in endings.most_common(4)]
    more = [f"{len(endings) - 4} other endings"] if len(endings) > 4 else []
    inside = f" ({', '.join(listed + more)})" if files else ""
    return f"{len(files)} {kind} file{'s' * (len(files) != 1)}{inside}"


def _collect(request: Request, buffer: ImageBuffer) -> _Tree:
    tree = _Tree({}, [], [], {})

    def wanted(parts: Parts) -> bool:
        return _is_image(parts) or parts[-1] in (*_WORDS, _ANNOTATIONS)

    def items() -> Iterator[Item]:
        for entry in archive.walk(request.file, wanted):
            if any(map(hidden, entry.parts)):
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
        tree.images[parts] = buffer.add(image)
    return tree


def _is_image(parts: Parts) -> bool:
    return parts[-1].lower().endswith(pixels.SUFFIXES) and not any(map(hidden, parts))


def _unlabelled(homes: Homes, split: str, tree: _Tree, notes: list[str]) -> None:
    """Handle ``split/images/*`` without classes: label it by the annotations, or leave it out.

    The single folder may also have the name of the split: ``test/test/*``.
    """
    names = [c for s, c in homes if s == split]
    if len(names) != 1 or ("train", names[0]) in homes:
        return
    if names[0] != "images" and not layout.split_of(names[0]):
        return
    paths = homes.pop((split, names[0]))
    lines = next((t for p, t in tree.texts.items() if p[-1] == _ANNOTATIONS), "").splitlines()
    labels = dict(line.split("\t")[:2] for line in lines if "\t" in line) if split == "val" else {}
    for path in paths:
        if path[-1] in labels:
            homes.setdefault((split, labels[path[-1]]), []).append(path)
    missing = sum(path[-1] not in labels for path in paths)
    if missing:
        notes.append(f"{missing} {split} images without class folders left out")


def _one_name(homes: Homes, where: str, notes: list[str]) -> Homes:
    """Rename the class folders of all splits to those of the training split, matched loosely."""
    train = class_names.ordered(c for s, c in homes if s == "train")
    out: Homes = {}
    for (split, name), paths in homes.items():
        if split != "train" and name not in train:
            plain = [c for c in train if class_names.plain(c) == class_names.plain(name)]
            if len(plain) == 1 and (split, plain[0]) not in homes:
                notes.append(f"{split}: class folder {name} is {plain[0]} of train")
                name = plain[0]
        out[split, name] = paths
    return out


def _validate_filled(homes: Homes, where: str) -> None:
    train = {c for s, c in homes if s == "train"}
    for (split, name), paths in sorted(homes.items()):
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
    homes: Homes, tree: _Tree, facts: Facts | None, where: str, notes: list[str]
) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Return the classes' display names and the label of each class folder."""
    folders = class_names.ordered(c for s, c in homes if s == "train")
    if facts and facts.class_names:
        found = class_names.match(folders, facts.class_names, where, facts.name)
        missing = sorted({*range(facts.classes)} - {*found.labels.values()})
        if missing:
            absent = ", ".join(facts.class_names[label] for label in missing[:8])
            found_there = f"{len(folders)} classes, without {absent}"
            allowed = f"{facts.name} has {facts.classes}; or give it a name of your own"
            raise BadInput(where, found_there, allowed)
        notes += found.notes
        return facts.class_names, found.labels
    words = _words(tree)
    names = [words.get(name, name) for name in folders]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({ident})"
        for name, ident in zip(names, folders, strict=True)
    ), {name: label for label, name in enumerate(folders)}


def _words(tree: _Tree) -> dict[str, str]:
    """Read ``id<TAB>word, other words`` lines; the first word names the class."""
    for name in _WORDS:
        text = next((t for p, t in sorted(tree.texts.items()) if p[-1] == name), "")
        rows = [line.split("\t") for line in text.splitlines() if "\t" in line]
        if rows:
            return {row[0].strip(): row[1].split(",")[0].strip() for row in rows}
    return {}


def _absent(split: str, labels: np.ndarray, names: tuple[str, ...]) -> list[str]:
    missing = len(names) - len(np.unique(labels))
    return [f"{split}: {missing} of {len(names)} classes have no images"] if missing else []
