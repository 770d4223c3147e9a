"""Split and class of each picture in a folder tree, from the structure of the tree.

``place`` accepts these layouts, with any single folder around them:

- ``CLASS/**``: everything is training data;
- ``SPLIT/CLASS/**``, where a split is ``train``, ``val`` or ``test`` in one of the usual forms
  (``training_set``, ``seg_train/seg_train``, ``test_images``);
- ``CLASS/SPLIT/**``;
- ``PART/CLASS/**`` with numbered parts (``fold1``, ``fold2``), taken together.

A folder called ``train`` is a split only if it holds class folders; next to other classes that hold
pictures it is a class. A note states each guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jdd.data import class_names
from jdd.data.sources.archive import Parts
from jdd.errors import BadInput

LAYOUTS = ("structure", "classes", "splits", "class_splits", "parts")
EXPECTED = "expected are pictures in [train/|val/|test/]CLASS/"
BY_HAND = "--config.data.layout decides by hand"

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What may stand next to the word in a split's folder: training_set, test_images, data_train.
_NEUTRAL = frozenset(
    "set sets data dataset split images image imgs img pictures pics photos files folder".split()
)
_COMPOUND = re.compile(r"(training|train|validation|valid|val|testing|test)(set|data|images|imgs)?")
_MASKS = frozenset(
    """mask masks segmentation segmentations annotation annotations label labels trimap trimaps
    groundtruth""".split()
)
_PICTURES = frozenset("images image imgs img jpegimages pictures photos rgb".split())


class Placed(NamedTuple):
    """The paths of every (split, class), the paths outside any, and notes on each guess."""

    paths: dict[tuple[str, str], list[Parts]]
    outside: list[Parts]
    notes: tuple[str, ...]


def split_of(name: str) -> tuple[str, frozenset[str]] | None:
    """Return the split a folder is named after, and the other words of its name; None if none."""
    words = re.findall(r"[a-z]+", name.lower())
    found = [
        (word, m) for word in words if (m := _COMPOUND.fullmatch(word)) or word in _SPLIT_WORDS
    ]
    if len(found) != 1:
        return None
    word, compound = found[0]
    split = _SPLIT_WORDS[compound[1] if compound else word]
    rest = re.findall(r"[a-z]+", name.lower().replace(word, " ", 1))
    return split, frozenset(rest) - _NEUTRAL - {"v"}


def place(
    paths: Iterable[Parts],
    empty: Iterable[Parts],
    layout: str,
    known: Sequence[str],
    where: str,
) -> Placed:
    """Assign a split and a class to every picture.

    Args:
      paths: paths of the pictures, split at "/".
      empty: paths of folders without pictures: one in the place of a class is an error.
      layout: one of ``LAYOUTS``; ``structure`` decides by the tree.
      known: class names of the dataset, () if unknown.
      where: the folder or archive, for errors.

    Raises:
      BadInput: no picture lies in a class folder, a class is empty, classes differ by split, or
        the tree can be read in two ways.
    """
    pictures, masks = list(paths), dict[Parts, int]()
    if layout == "structure":
        pictures, masks = _without_masks(pictures)
    count = sum(masks.values())
    shown = ", ".join("/".join(folder) for folder in sorted(masks)[:3])
    notes = [f"{count} masks next to pictures left out ({shown})"] if masks else []
    head = _wrapping(pictures)
    deep = [parts[len(head) :] for parts in pictures if parts[: len(head)] == head]
    form, guess = (layout, "") if layout != "structure" else _form(deep, known, where)
    reading = _Reading(form, _split_map(deep, form), _cut(deep) if form == "splits" else {})
    placed: dict[tuple[str, str], list[Parts]] = {}
    outside: list[Parts] = []
    for parts in pictures:
        home = reading.home(parts[len(head) :]) if parts[: len(head)] == head else None
        if home is None:
            outside.append(parts)
        else:
            placed.setdefault(home, []).append(parts)
    if not placed:
        by_hand = form == "splits" and layout == "structure" and len(reading.splits) > 1
        allowed = "; --config.data.layout=classes if these folders are the classes" * by_hand
        raise BadInput(where, f"{len(outside)} images, none in a class folder", EXPECTED + allowed)
    for folder in empty:
        inside = folder[len(head) :]
        if folder[: len(head)] != head or any(folder[:d] in masks for d in range(len(folder) + 1)):
            continue
        home = reading.home((*inside, "?"))
        if home and len(inside) == reading.depth(inside):
            placed.setdefault(home, [])
    return Placed(placed, outside, (*notes, *([guess] if guess else [])))


class _Reading(NamedTuple):
    """How paths are read: the layout, the split of each split folder, folders to skip."""

    form: str
    splits: dict[str, str]
    cut: dict[str, int]

    def home(self, parts: Parts) -> tuple[str, str] | None:
        """Return split and class of a path, None if it lies outside both."""
        if self.form == "classes":
            return ("train", parts[0]) if len(parts) > 1 else None
        if len(parts) < 3:
            return None
        if self.form == "parts":
            return "train", parts[1]
        split = self.splits.get(parts[self.form == "class_splits"])
        if split is None:
            return None
        if self.form == "class_splits":
            return split, parts[0]
        depth = 1 + self.cut.get(parts[0], 0)
        return (split, parts[depth]) if len(parts) > depth + 1 else None

    def depth(self, folder: Parts) -> int:
        """Return how many folders deep a class folder lies."""
        if self.form == "classes":
            return 1
        return 2 + self.cut.get(folder[0], 0)


def _split_map(paths: list[Parts], form: str) -> dict[str, str]:
    """Return the split of each split folder: the folders that ``_form`` decides by."""
    below = _below(paths)
    if form == "class_splits":
        below = {name: set() for names in below.values() for name in names - {""}}
    return _splits(below)


def _without_masks(paths: list[Parts]) -> tuple[list[Parts], dict[Parts, int]]:
    """Remove pictures in folders of masks that lie next to the pictures they belong to.

    Returns:
      The other paths, and the number of pictures in each folder of masks.
    """
    children: dict[Parts, dict[str, set[str]]] = {}
    for parts in paths:
        stem = parts[-1].rpartition(".")[0]
        for depth in range(len(parts) - 1):
            children.setdefault(parts[:depth], {}).setdefault(parts[depth], set()).add(stem)
    masks = {(*parent, name) for parent, stems in children.items() for name in _masks_among(stems)}
    counts: dict[Parts, int] = {}
    pictures = []
    for parts in paths:
        inside = next((parts[:d] for d in range(1, len(parts)) if parts[:d] in masks), None)
        if inside is None:
            pictures.append(parts)
        else:
            counts[inside] = counts.get(inside, 0) + 1
    return pictures, counts


def _masks_among(stems: dict[str, set[str]]) -> set[str]:
    """Return the sibling folders that hold masks of another one's pictures.

    Args:
      stems: the names of the pictures below each folder, without their endings.
    """
    found: dict[str, str] = {}
    for name in stems:
        words = re.findall(r"[a-z]+", name.lower().replace("ground_truth", "groundtruth"))
        rest = [word for word in words if word not in _MASKS]
        if len(rest) == len(words):
            continue
        for other in stems:
            theirs = re.findall(r"[a-z]+", other.lower())
            if other == name or [w for w in theirs if w not in _PICTURES] != rest:
                continue
            if not _same_pictures(stems[name], stems[other]):
                continue
            if len(theirs) > len(rest):  # named as pictures: images, train_images
                return {name, *_masks_among({k: v for k, v in stems.items() if k != name})}
            if rest:
                found[name] = other
    # ``cat`` and ``cat_mask``: only where each folder has its masks; ``ski mask`` is a class.
    pictures = set(stems) - set(found)
    return set(found) if len(pictures) > 1 and pictures == set(found.values()) else set()


def _same_pictures(masks: set[str], pictures: set[str]) -> bool:
    """True if most masks have names of pictures, apart from a word such as ``_mask``."""
    plain = {re.sub(r"[ _-]*(mask|label|seg|gt|annotation|trimap)s?$", "", stem) for stem in masks}
    return 2 * len(plain & pictures) > len(plain)


def _wrapping(paths: list[Parts]) -> Parts:
    """Return the folders that wrap everything: an archive of ``name/train/class`` is common.

    Pictures next to the outermost folder are strays.
    """
    head: Parts = ()
    while True:
        deep = [parts for parts in paths if len(parts) - len(head) >= 3]
        tops = {parts[len(head)] for parts in deep}
        middle = {parts[len(head)] for parts in paths if len(parts) - len(head) == 2}
        if len(tops) != 1 or middle - tops:
            return head
        (top,) = tops
        below = _below([parts[len(head) + 1 :] for parts in deep])
        if _splits({top: set()}) and "train" not in _splits(below).values():
            return head
        if middle and len(below) < 2:
            return head
        head, paths = (*head, top), deep


def _below(paths: list[Parts]) -> dict[str, set[str]]:
    """Return the subfolders with pictures of every top folder; "" for pictures directly in it."""
    found: dict[str, set[str]] = {}
    for parts in paths:
        if len(parts) > 1:
            found.setdefault(parts[0], set()).add(parts[1] if len(parts) > 2 else "")
    return found


def _form(paths: list[Parts], known: Sequence[str], where: str) -> tuple[str, str]:
    """Return the layout of a tree, and a note if it is a guess."""
    below = _below(paths)
    splits = _splits(below)
    if "train" in splits.values():
        return _with_train(below, splits, paths, where)
    if splits and len(splits) == len(below):
        raise BadInput(where, f"only {', '.join(sorted(splits))} images", f"no train; {EXPECTED}")
    for name in sorted(below):
        inner, others = below[name] - {""}, set(below) - {name}
        if inner and inner <= others and (len(inner) > 1 or name in splits):
            allowed = "put the training classes into a folder train"
            if name not in splits:
                allowed = f"remove one of the two, or give the path of {name} itself"
            raise BadInput(where, f"{name} holds folders of the classes next to it", allowed)
    inside = {top: _splits({name: set() for name in names - {""}}) for top, names in below.items()}
    if any("train" in found.values() and len(found) > 1 for found in inside.values()):
        return _class_first(paths, inside, where)
    if below and all(len(found) > 1 for found in inside.values()):
        names = ", ".join(sorted(set().union(*inside.values())))
        raise BadInput(where, f"class folders that hold {names}, and no train", EXPECTED)
    subs = [names - {""} for names in below.values()]
    if len(subs) > 1 and all(len(names) > 1 and names == subs[0] for names in subs):
        return _repeated(sorted(below), sorted(subs[0]), known)
    names = ", ".join(sorted(splits))
    return "classes", f"{names} taken for a class; {BY_HAND}" if splits else ""


def _class_first(
    paths: list[Parts], inside: dict[str, dict[str, str]], where: str
) -> tuple[str, str]:
    """Return the layout CLASS/SPLIT; refuse folders without splits, and several whole sets."""
    without = sorted(top for top, found in inside.items() if "train" not in found.values())
    if without:
        first = next(top for top in inside if top not in without)
        raise BadInput(
            where,
            f"{first} holds splits, and {', '.join(without[:4])} does not",
            f"give the path of {first} if it is the dataset, or every class its splits",
        )
    classes: dict[tuple[str, str], set[str]] = {}
    for parts in paths:
        if len(parts) > 3:
            classes.setdefault((parts[0], parts[1]), set()).add(parts[2])
    trains = [
        frozenset(classes.get((top, name), ()))
        for top, found in inside.items()
        for name, split in found.items()
        if split == "train"
    ]
    if any(len(names) > 1 and trains.count(names) > 1 for names in trains):
        tops = sorted(inside)
        found = f"{len(tops)} folders with splits of the same classes ({', '.join(tops[:4])})"
        raise BadInput(where, found, f"give the path of one, such as .../{tops[0]}")
    return "class_splits", "class folders hold the splits: taken as CLASS/SPLIT"


def _splits(below: dict[str, set[str]]) -> dict[str, str]:
    """Return the folders that are splits by name: their other words are neutral or shared."""
    found = {name: split for name in below if (split := split_of(name))}
    rests = [rest for _, rest in found.values()]
    return {
        name: split for name, (split, rest) in found.items() if not rest or rests.count(rest) > 1
    }


def _with_train(
    below: dict[str, set[str]], splits: dict[str, str], paths: list[Parts], where: str
) -> tuple[str, str]:
    cut = _cut(paths)
    classes: dict[str, set[str]] = {}
    for name, split in splits.items():
        classes.setdefault(split, set()).update(_classes_of(paths, name, cut))
    others = sorted(set(below) - set(splits))
    train, listed = classes["train"], ", ".join(others[:4])
    if not others or any(train & classes[split] for split in classes if split != "train"):
        return "splits", f"folders next to the splits left out: {listed}" if others else ""
    if not train or any(below[name] == {"images"} for name in splits if splits[name] == "train"):
        names = ", ".join(sorted(splits))
        return "classes", f"{names} taken for a class, next to {listed}; {BY_HAND}"
    allowed = "--config.data.layout=splits if train is the training split, classes if a class"
    raise BadInput(where, f"train holds folders, and {listed} lie next to it", allowed)


def _classes_of(paths: list[Parts], top: str, cut: dict[str, int]) -> set[str]:
    depth = 1 + cut.get(top, 0)
    return {p[depth] for p in paths if p[0] == top and len(p) > depth + 1}


def _cut(paths: list[Parts]) -> dict[str, int]:
    """Return how many nested folders wrap each split: ``seg_train/seg_train/class``."""
    found: dict[str, int] = {}
    for top in _splits(_below(paths)):
        mine = [parts[1:] for parts in paths if parts[0] == top and len(parts) > 1]
        depth = 0
        while min(map(len, mine)) - depth >= 3 and len({p[depth] for p in mine}) == 1:
            # A single folder of the same or a neutral name is no class.
            name = mine[0][depth]
            if not (split_of(name) or set(re.findall(r"[a-z]+", name.lower())) <= _NEUTRAL):
                break
            depth += 1
        found[top] = depth
    return found


def _repeated(tops: list[str], subs: list[str], known: Sequence[str]) -> tuple[str, str]:
    """Decide between parts that hold the classes and classes that hold equal folders."""
    shown = [", ".join(names[:3]) + (", ..." if len(names) > 3 else "") for names in (tops, subs)]
    stems = {re.sub(r"\d+", "", name) for name in tops}
    numbered = len(stems) == 1 and all(re.search(r"\d", name) for name in tops)
    named = {class_names.plain(name) for name in known}
    if named and {class_names.plain(name) for name in tops} <= named:
        return "classes", ""
    if numbered and stems != {""} or named and {class_names.plain(n) for n in subs} <= named:
        guess = f"{shown[0]} hold the same class folders ({shown[1]}): taken together as one set"
        return "parts", f"{guess}; {BY_HAND}"
    guess = f"{shown[0]} hold the same folders ({shown[1]}): taken for the classes"
    return "classes", f"{guess}; {BY_HAND}"
