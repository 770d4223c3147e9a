"""Which split and class each picture of a folder tree belongs to, by the structure of the tree.

``place`` accepts these layouts, with any single folder around them:

- ``CLASS/**``: everything is training data;
- ``SPLIT/CLASS/**``, where a split is ``train``, ``val`` or ``test`` in one of the usual forms
  (``training_set``, ``seg_train/seg_train``, ``test_images``);
- ``CLASS/SPLIT/**``;
- ``PART/CLASS/**`` with numbered parts (``fold1``, ``fold2``), taken together.

A folder called ``train`` is a split only where it holds class folders: among other classes that
hold pictures it is a class. What is a guess is stated in a note.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from jdd.data import class_names
from jdd.data.sources.archive import Parts
from jdd.errors import BadInput

LAYOUTS = ("structure", "classes", "splits", "class_splits", "parts")
EXPECTED = "expected are pictures in [train/|val/|test/]CLASS/"
BY_HAND = "--config.data.layout=classes|splits|class_splits|parts settles it"

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
    groundtruth gt""".split()
)
_PICTURES = frozenset("images image imgs img jpegimages pictures photos rgb".split())
_HIDDEN = frozenset(("__MACOSX", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "lost+found"))


class Placed(NamedTuple):
    """The paths of every (split, class), those outside any, and sentences on what was decided."""

    paths: dict[tuple[str, str], list[Parts]]
    outside: list[Parts]
    notes: tuple[str, ...]


def hidden(name: str) -> bool:
    """Return whether a file or folder is the system's own: ``.name``, ``__MACOSX``, ``@eaDir``."""
    return name.startswith(".") or name in _HIDDEN


def split_of(name: str) -> tuple[str, frozenset[str]] | None:
    """Return the split that a folder's name says, and its other words; None where it says none."""
    words = re.findall(r"[a-z]+", name.lower())
    found = [
        (word, m) for word in words if (m := _COMPOUND.fullmatch(word)) or word in _SPLIT_WORDS
    ]
    if len(found) != 1:
        return None
    word, compound = found[0]
    split = _SPLIT_WORDS[compound[1] if compound else word]
    rest = re.sub(r"[^a-z0-9]+", " ", name.lower().replace(word, " ")).split()
    return split, frozenset(rest) - _NEUTRAL


def place(
    paths: Iterable[Parts],
    empty: Iterable[Parts],
    layout: str,
    known: Sequence[str],
    where: str,
) -> Placed:
    """Give every picture its split and class.

    Args:
      paths: paths of the pictures, split at "/".
      empty: paths of folders without pictures: one in the place of a class is an error.
      layout: one of ``LAYOUTS``; ``structure`` decides by the tree.
      known: class names of the dataset, () where it has none of its own.
      where: the folder or archive, for errors.

    Raises:
      BadInput: no picture lies in a class folder, a class is empty, or classes differ by split.
    """
    pictures, masks = _without_masks(list(paths))
    notes = [f"{len(masks)} masks next to pictures left out ({_shown(masks)})"] if masks else []
    wrap = _wrapping(pictures)
    inside = [parts[wrap:] for parts in pictures]
    form, guess = (layout, "") if layout != "structure" else _form(inside, known, where)
    placed: dict[tuple[str, str], list[Parts]] = {}
    outside = list(masks)
    cut = _cut(inside) if form == "splits" else {}
    for parts, short in zip(pictures, inside, strict=True):
        home = _home(short, form, cut)
        if home is None:
            outside.append(parts)
        else:
            placed.setdefault(home, []).append(parts)
    if not placed:
        raise BadInput(where, f"{len(outside)} images, none in a class folder", EXPECTED)
    head = pictures[0][:wrap]
    for folder in empty:
        home = _home((*folder[wrap:], "?"), form, cut) if folder[:wrap] == head else None
        if home and len(folder) - wrap == _depth(home, form, cut, folder[wrap:]):
            placed.setdefault(home, [])
    return Placed(placed, outside, (*notes, *([guess] if guess else [])))


def _without_masks(paths: list[Parts]) -> tuple[list[Parts], list[Parts]]:
    """Take out what lies in a folder of masks next to a folder of the pictures they belong to."""
    children: dict[Parts, set[str]] = {}
    for parts in paths:
        for depth in range(len(parts) - 1):
            children.setdefault(parts[:depth], set()).add(parts[depth])
    masks = {
        (*parent, name)
        for parent, names in children.items()
        for name in names
        if _is_mask(name, names)
    }
    if not masks:
        return paths, []
    inside = [any(parts[:d] in masks for d in range(1, len(parts))) for parts in paths]
    pictures = [parts for parts, mask in zip(paths, inside, strict=True) if not mask]
    return pictures, [parts for parts, mask in zip(paths, inside, strict=True) if mask]


def _is_mask(name: str, siblings: Collection[str]) -> bool:
    words = re.findall(r"[a-z]+", name.lower().replace("ground_truth", "groundtruth"))
    rest = [word for word in words if word not in _MASKS]
    if len(rest) == len(words):
        return False
    for other in siblings:
        theirs = re.findall(r"[a-z]+", other.lower())
        if other != name and [w for w in theirs if w not in _PICTURES] == rest:
            if len(theirs) > len(rest) or rest:
                return True
    return False


def _wrapping(paths: list[Parts]) -> int:
    """Return how many folders hold everything: an archive of ``name/train/class`` is common."""
    wrap = 0
    while paths and min(map(len, paths)) - wrap >= 3:
        tops = {parts[wrap] for parts in paths}
        if len(tops) > 1 or split_of(next(iter(tops))):
            break
        wrap += 1
    return wrap


def _below(paths: list[Parts]) -> dict[str, set[str]]:
    """Return for every top folder its folders that hold pictures; "" stands for pictures in it."""
    found: dict[str, set[str]] = {}
    for parts in paths:
        if len(parts) > 1:
            found.setdefault(parts[0], set()).add(parts[1] if len(parts) > 2 else "")
    return found


def _form(paths: list[Parts], known: Sequence[str], where: str) -> tuple[str, str]:
    """Return the layout of a tree, and a sentence where it is a guess."""
    below = _below(paths)
    splits = _splits(below)
    if "train" in splits.values():
        return _with_train(below, splits, paths, where)
    if splits and len(splits) == len(below):
        raise BadInput(where, f"only {', '.join(sorted(splits))} images", f"no train; {EXPECTED}")
    subs = [names - {""} for names in below.values()]
    if below and all(names and "" not in names for names in below.values()):
        if all(_splits({name: set() for name in names}).keys() == names for names in subs) and any(
            split_of(name)[0] == "train"  # type: ignore[index]
            for names in subs
            for name in names
        ):
            _refuse_folds(below, where)
            return "class_splits", "class folders hold the splits: taken as CLASS/SPLIT"
        repeated = len(subs) > 1 and all(len(names) > 1 and names == subs[0] for names in subs)
        if repeated:
            return _repeated(sorted(below), sorted(subs[0]), known)
    for name in splits:
        others = set(below) - {name}
        if below[name] - {""} and below[name] <= others:
            raise BadInput(
                where,
                f"{name} holds folders of the classes next to it, and there is no train",
                f"put the training classes into a folder train; or {BY_HAND}",
            )
    names = ", ".join(sorted(splits))
    return "classes", f"{names} taken for a class; {BY_HAND}" if splits else ""


def _refuse_folds(below: dict[str, set[str]], where: str) -> None:
    """Refuse folds with splits of their own: pooled, their test images would be trained on."""
    stems = {re.sub(r"\d+", "", name) for name in below}
    if len(stems) == 1 and stems & {"fold", "fold_", "fold-", "split", "split_", "cv", "cv_"}:
        first = sorted(below)[0]
        found = f"{len(below)} folds with splits of their own ({', '.join(sorted(below)[:4])})"
        raise BadInput(where, found, f"give the path of one, such as .../{first}")


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
    classes = {split: _classes_of(paths, name, cut) for name, split in splits.items()}
    others = sorted(set(below) - set(splits))
    if not others:
        return "splits", ""
    train, listed = classes["train"], ", ".join(others[:4])
    rest = set().union(*(below[name] - {""} for name in others))
    if any(train & names for split, names in classes.items() if split != "train") or (
        len(train) > 1 and not rest
    ):
        return "splits", f"folders next to the splits left out: {listed}"
    if train & rest:
        shown = ", ".join(sorted(train & rest)[:4])
        allowed = "--config.data.layout=splits if train is the training split, classes if a class"
        raise BadInput(where, f"train and {listed} hold the same folders ({shown})", allowed)
    names = ", ".join(sorted(splits))
    return "classes", f"{names} taken for a class, next to {listed}; {BY_HAND}"


def _classes_of(paths: list[Parts], top: str, cut: dict[str, int]) -> set[str]:
    depth = 1 + cut.get(top, 0)
    return {p[depth] for p in paths if p[0] == top and len(p) > depth + 1}


def _cut(paths: list[Parts]) -> dict[str, int]:
    """Return how many folders inside each split hold all of it: ``seg_train/seg_train/class``."""
    found: dict[str, int] = {}
    for top in _splits(_below(paths)):
        mine = [parts[1:] for parts in paths if parts[0] == top and len(parts) > 1]
        depth = 0
        while min(map(len, mine)) - depth >= 3 and len({p[depth] for p in mine}) == 1:
            # A single folder of the same name, or of a neutral one, is no class.
            name = mine[0][depth]
            if not (split_of(name) or set(re.findall(r"[a-z]+", name.lower())) <= _NEUTRAL):
                break
            depth += 1
        found[top] = depth
    return found


def _repeated(tops: list[str], subs: list[str], known: Sequence[str]) -> tuple[str, str]:
    """Choose between parts that hold the classes and classes that hold the same folders."""
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


def _home(parts: Parts, form: str, cut: dict[str, int]) -> tuple[str, str] | None:
    """Return split and class of a path, None where it lies outside both."""
    if form == "classes":
        return ("train", parts[0]) if len(parts) > 1 else None
    if len(parts) < 3:
        return None
    if form == "parts":
        return "train", parts[1]
    split = split_of(parts[form == "class_splits"])
    if split is None:
        return None
    if form == "class_splits":
        return split[0], parts[0]
    depth = 1 + cut.get(parts[0], 0)
    return (split[0], parts[depth]) if len(parts) > depth + 1 else None


def _depth(home: tuple[str, str], form: str, cut: dict[str, int], folder: Parts) -> int:
    """Return how many folders deep a class folder lies."""
    if form == "classes":
        return 1
    return 2 + (cut.get(folder[0], 0) if form == "splits" else 0)


def _shown(paths: list[Parts]) -> str:
    return "/".join(paths[0])
