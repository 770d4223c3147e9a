"""Matching of names to classes: one rule for class folders, label files and foreign sets.

A folder is matched to the dataset's classes by its name, in this order:

1. exactly, also as jdd's export writes it (``7_a_b`` is class 7 where that class is ``a b``);
2. loosely: without case, accents' encoding, spaces and punctuation, without a leading number,
   singular for plural, number words (``three``), a prefix such as ``class_``, and the synonyms of
   ``SYNONYMS``; a note lists these matches;
3. if all folders are numbers, they are labels, from 0.

Anything else is refused: a wrong guess would train one class as another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jdd.data.catalogue import lookup
from jdd.errors import BadInput, nearest

# Other words for classes of known datasets, by the class's own name without spaces and case.
SYNONYMS = {
    "airplane": ("plane", "aeroplane"),
    "automobile": ("car",),
    "tshirttop": ("tshirt", "top"),
    "trouser": ("pants",),
    "ankleboot": ("boot",),
}
_WORDS = "zero one two three four five six seven eight nine ten".split()
_NUMBER = re.compile(r"(?:(?:class|label|digit|number)[ _-]*)?0*(\d+)", re.IGNORECASE | re.ASCII)
_PREFIX = re.compile(r"(\d+)[ _.-]+(.+)", re.ASCII | re.DOTALL)
_SHOWN = 8  # names in a note or an error


class Match(NamedTuple):
    """The label of every name that was matched, and sentences on what was matched loosely."""

    labels: dict[str, int]
    notes: tuple[str, ...]


def safe(name: str) -> str:
    """Return a class name as the name of a folder on any system."""
    return re.sub(r"[^\w.+-]", "_", name).strip(".") or "_"


def plain(name: str) -> str:
    """Reduce a name to letters and digits: no folder can be called "T-shirt/top"."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in text if c.isalnum())


def number_of(name: str) -> int | None:
    """Return the number a name stands for (``7``, ``07``, ``class_7``), None for other names."""
    found = _NUMBER.fullmatch(name)
    return int(found[1]) if found else None


def ordered(folders: Iterable[str]) -> tuple[str, ...]:
    """Return folders in label order: numbers by value, everything else alphabetically."""
    names = sorted(set(folders))
    numbers = {name: int(name) for name in names if name.isascii() and name.isdigit()}
    return tuple(
        sorted(names, key=lambda n: (numbers[n], n)) if len(numbers) == len(names) else names
    )


def unnumbered(folders: Sequence[str]) -> tuple[str, ...]:
    """Return folder names without leading numbers; unchanged if two would become equal."""
    short = [m[2] if (m := _PREFIX.fullmatch(name)) else name for name in folders]
    return tuple(short) if len(set(short)) == len(short) else tuple(folders)


def duplicates(names: Sequence[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted({name for name in names if list(names).count(name) > 1})


def match(
    folders: Iterable[str],
    classes: Sequence[str],
    where: str,
    dataset: str,
    what: str = "class folder",
) -> Match:
    """Match names to the classes of a dataset.

    Args:
      folders: the names, at most one of a class; not every class needs one.
      classes: the dataset's class names, in label order.
      where: the file or folder, for errors.
      dataset: the dataset's name, for notes and errors.
      what: the kind of thing that is named, for errors.

    Returns:
      The labels, and a note if names were accepted that are not exact.

    Raises:
      BadInput: names that match no class, or two that match one.
    """
    names = ordered(folders)
    labels = {name: _exactly(name, classes) for name in names}
    loose = {name: _loosely(name, classes, dataset) for name in names if labels[name] is None}
    labels |= loose
    notes: list[str] = []
    numbers = {name: number_of(name) for name in names}
    if None in labels.values() and None not in numbers.values():
        # Numbers that leave out 0 may count from 1.
        if {0} <= set(numbers.values()) <= set(range(len(classes))):
            labels, loose = dict(numbers), {}
            pairs = [
                f"{name} is {classes[label]}" for name, label in labels.items() if label is not None
            ]
            notes.append(f"class folders are numbers, taken as labels of {dataset}: {_few(pairs)}")
    unknown = [name for name in names if labels[name] is None]
    if unknown:
        taken = {label for label in labels.values() if label is not None}
        free = [name for label, name in enumerate(classes) if label not in taken]
        raise _unknown(unknown, classes, free, where, dataset, what)
    found = {name: label for name, label in labels.items() if label is not None}
    _refuse_twice(found, classes, where)
    pairs = [f"{name} is {classes[found[name]]}" for name in loose if name != classes[found[name]]]
    if pairs:
        notes.append(f"class names matched loosely: {_few(pairs)}")
    return Match(found, tuple(notes))


def validate_same(
    theirs: Sequence[str], classes: Sequence[str], where: str, dataset: str, numbers: bool = True
) -> tuple[str, ...]:
    """Check that ``theirs`` are the dataset's classes, possibly in other words; return notes.

    Names that only number the classes (``0`` to ``n - 1``) carry no information: with ``numbers``
    labels are then taken in the dataset's order, which the note states.

    Raises:
      BadInput: another number of classes, another order, or a name that is no class's.
    """
    theirs, classes = list(theirs), list(classes)
    if theirs == classes:
        return ()
    if len(theirs) != len(classes):
        found = f"{len(theirs)} classes ({_few(theirs)})"
        raise BadInput(where, found, f"{dataset} has {len(classes)} ({_few(classes)})")
    counted = [str(c) for c in range(len(classes))]
    facts = lookup(dataset)
    unnamed = classes == counted and not (facts and facts.class_names)
    if numbers and (theirs == counted or unnamed):
        return (f"classes are numbers: taken in the order of {dataset}: {_few(classes)}",)
    matched = match(theirs, classes, where, dataset, "class") if not duplicates(theirs) else None
    if matched is None or [matched.labels[name] for name in theirs] != list(range(len(classes))):
        raise BadInput(
            where, f"classes in the order {_few(theirs)}", f"{dataset} has {_few(classes)}"
        )
    return matched.notes


def _exactly(name: str, classes: Sequence[str]) -> int | None:
    own = [c for c, known in enumerate(classes) if known == name]
    own = own or [c for c, known in enumerate(classes) if safe(known) == name]
    if len(own) == 1:
        return own[0]
    numbered = _PREFIX.fullmatch(name)
    if numbered and int(numbered[1]) < len(classes):
        label, rest = int(numbered[1]), numbered[2]
        if rest in (classes[label], safe(classes[label])):
            return label
    return None


def _loosely(name: str, classes: Sequence[str], dataset: str) -> int | None:
    numbered = _PREFIX.fullmatch(name)
    for word in (name, numbered[2]) if numbered else (name,):
        if plain(word).isdigit() and number_of(word) is None or word != name and word.isdigit():
            continue  # -1, 1.0, 3_5: ambiguous as a digit
        for form in _forms(plain(word)):
            found = [c for c, known in enumerate(classes) if form in _known(known, dataset)]
            if len(found) == 1:
                return found[0]
            if found:
                return None
    return None


def _forms(word: str) -> list[str]:
    """Return a word, its singular or plural, and the number it spells."""
    forms = [word, word[:-1] if word.endswith("s") else f"{word}s"]
    if word in _WORDS:
        forms.append(str(_WORDS.index(word)))
    number = number_of(word)
    return forms if number is None else [*forms, str(number)]


def _known(name: str, dataset: str) -> tuple[str, ...]:
    own = plain(name)
    if dataset == "svhn" and own == "0":  # whose files number the digit 0 as class 10
        return own, "10"
    return own, *SYNONYMS.get(own, ())


def _refuse_twice(labels: dict[str, int], classes: Sequence[str], where: str) -> None:
    by_label: dict[int, str] = {}
    for name, label in labels.items():
        if label in by_label:
            raise BadInput(
                where,
                f"folders {by_label[label]!r} and {name!r} are both class {classes[label]!r}",
                "one folder a class",
            )
        by_label[label] = name


def _unknown(
    unknown: list[str],
    classes: Sequence[str],
    free: Sequence[str],
    where: str,
    dataset: str,
    what: str,
) -> BadInput:
    several = "" if len(unknown) == 1 else "es" if what.endswith("s") else "s"
    hints = [
        f"{name!r} for {near!r}"
        for name in unknown
        if (near := nearest(name, free)) and not near.isdigit()
    ]
    hint = f"did you mean {_few(hints)}? " if hints else ""
    allowed = f"{hint}its classes are {_few(list(classes), 20)}"
    if what != "class":
        allowed += f"; or give folders 0 to {len(classes) - 1} in that order"
    if twice := duplicates(classes):
        allowed += f"; {twice[0]!r} is there twice: call its folders NUMBER_{safe(twice[0])}"
    named = _few([repr(name) for name in unknown])
    found = f"{what}{several} {named} not among the classes of {dataset}"
    return BadInput(where, found, allowed)


def _few(names: Sequence[str], shown: int = _SHOWN) -> str:
    return ", ".join(names[:shown]) + (f", ... ({len(names)})" if len(names) > shown else "")
