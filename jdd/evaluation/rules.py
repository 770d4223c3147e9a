"""Validation of a set's recipe: type and range of every entry that training on the set reads.

Sets come from files, whose content is untrusted. ``validate_recipe`` compares a recipe with one
table before any net is trained or anything is written; a recipe that passes cannot fail later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdd import augment as augmentations
from jdd.errors import BadInput, nearest
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.soft_labels import codec, modes
from jdd.training import schedules, trainer
from jdd.training.option import (
    ABOVE_0,
    OBJECT,
    Rule,
    is_number,
    is_whole,
    one_of,
    options,
    or_null,
    whole,
)
from jdd.training.printed import PAIRED, STORED
from jdd.training.recipe import LOSSES, RELATIONS, Drop, Recipe

OBJECTIVES = ("distill", "adapt", "attack")


_TEXT = Rule(lambda v: isinstance(v, str), "a text")
_BOOL = Rule(lambda v: isinstance(v, bool), "true or false")
_TEXTS = Rule(
    lambda v: isinstance(v, list | tuple) and all(isinstance(x, str) for x in v),
    "a list of texts",
)
_EXPERTS = Rule(
    lambda v: isinstance(v, list) and bool(v) and all(is_whole(x) and x >= 0 for x in v),
    "a list of whole numbers, 0 or more",
)

_NUMBERS = Rule(
    lambda v: isinstance(v, list | tuple) and all(map(is_number, v)),
    "a list of numbers",
)
_STORE = Rule(
    lambda v: isinstance(v, Mapping) and is_whole(v.get("group")) and v["group"] >= 1,
    "the settings of an expert store, its group among them",
)


def _of(*classes: type) -> dict[str, Rule]:
    """Return the rules of the recipe entries of some option classes."""
    return {one.name: one.rule for cls in classes for one in options(cls) if one.rule}


# By section; a missing entry has its default.
_TABLE: dict[str, dict[str, Rule]] = {
    "": {
        "method": _TEXT,
        "dataset": _TEXT,
        "class_names": _TEXTS,
        "ipc": whole(0),
        "seed": or_null(whole(0)),
        "steps": whole(0),
        "objective": or_null(OBJECT),
    },
    "net": {"name": _TEXT, "options": or_null(OBJECT)},
    "train": _of(Recipe) | {"init": OBJECT},
    "train.drop": _of(Drop),
    "train.schedule": _of(*schedules.KINDS.values()) | {"kind": one_of(*schedules.KINDS)},
    "train.init": {
        "kind": one_of("fresh", "fixed", "experts"),
        "seed": whole(0),
        "purpose": _TEXT,
        "experts": _EXPERTS,
        "epoch": whole(0),
        "store": _STORE,
    },
    "augment": {
        "name": one_of("", "none", *augmentations.KINDS),
        "strategy": _TEXT,
        "align_corners": _BOOL,
    },
    "normalisation": {"mean": _NUMBERS, "std": _NUMBERS},
    "labels": {
        "kind": one_of("own", "stored"),
        "store": _TEXT,
        "mode": one_of(*modes.MODES),
        "form": one_of(*codec.FORMS),
        "teachers": _TEXTS,
    },
    "objective": {
        "kind": one_of(*OBJECTIVES),
        "source": _TEXT,
        "attack_class": whole(0),
        "target_class": whole(0),
    },
}  # fmt: skip

# Required entries of a section, by its kind.
_NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "train.drop": {"": ("after_epoch", "factor")},
    "train.schedule": {"": ("kind",)} | {k: cls.needs for k, cls in schedules.KINDS.items()},
    "train.init": {"": ("kind",), "fixed": ("seed", "purpose"), "experts": ("experts", "epoch")},
    "labels": {"": ("kind",), "stored": ("store", "form", "teachers")},
    "objective": {
        "": ("kind",),
        "adapt": ("source",),
        "attack": ("attack_class", "target_class"),
    },
}

# The flag that overrides the set's entry.
RATE = "give --config.eval.lr=0.01"
_FLAGS = {
    "train.batch": "--config.eval.batch=256",
    "train.epochs": "--config.eval.epochs=1000",
    "train.steps": "--config.eval.steps=1000",
    "augment.name": "--config.data.dsa=none",
    "augment.strategy": "--config.data.dsa=none",
}


def validate_recipe(dset: AnyProduct, where: str) -> None:
    """Refuse a recipe that nets cannot be trained with.

    Raises:
      BadInput: naming ``where``, the entry, and what is allowed.
    """
    for section in _TABLE:
        if bad := _refused(dset.recipe, section):
            entry, words = bad
            name = f"{section}.{entry}".lstrip(".")
            found = _section(dset.recipe, section)
            if entry not in found:
                raise BadInput(where, f"recipe.{section} has no {entry}", words)
            raise _refusal(where, name, found[entry], words, _flag(dset.recipe, name))
    _validate_task(dset, where)
    _validate_rates(dset, where)
    if isinstance(dset, PairSet):
        _validate_pairs(dset, where)
    else:
        _validate_combinations(dset, where)


def has_invalid_entry(train: Mapping[str, Any]) -> bool:
    """Return whether some entry of a ``recipe["train"]`` is invalid by itself."""
    sections = ("train", "train.drop", "train.schedule")
    return any(_refused({"train": train}, section) for section in sections)


def _refused(recipe: Mapping[str, Any], section: str) -> tuple[str, str] | None:
    """Return the first missing or invalid entry, and the allowed values."""
    rules, found = _TABLE[section], _section(recipe, section)
    for name in _needed(section, found):
        if name not in found:
            return name, rules[name].words
    for name, rule in rules.items():
        if name in found and not rule.holds(found[name]):
            return name, rule.words
    return None


def rate(dset: AnyProduct) -> float | tuple[float, ...] | None:
    """Return the learning rate for training on the set: one number, or one for every step.

    This is the recipe's rate, else the set's learned rate; None if neither is usable. For pairs
    with learned rates, which are used branch by branch, it is their mean.
    """
    if isinstance(dset, PairSet) and dset.applied_rates:
        return float(np.mean(list(dset.applied_rates.values())))
    found = dset.recipe["train"].get("lr")
    found = dset.lr if found is None else found
    many = isinstance(found, list | tuple)
    rates = tuple(found) if many else (found,)  # type: ignore[arg-type]
    if not rates or not all(ABOVE_0.holds(r) for r in rates):
        return None
    return tuple(map(float, rates)) if many else float(rates[0])


def _validate_rates(dset: AnyProduct, where: str) -> None:
    train, found = dset.recipe["train"], rate(dset)
    if found is None:
        stated = train.get("lr")
        stated = dset.lr if stated is None else stated
        raise BadInput(where, f"learning rate {stated}", RATE)
    if isinstance(found, tuple) and (train.get("steps") or 0) > len(found):
        raise BadInput(where, f"{train['steps']} steps, {len(found)} rates", RATE)
    if isinstance(found, tuple) and train.get("schedule"):
        raise BadInput(where, "a schedule and a rate for every step", RATE)


def _flag(recipe: Mapping[str, Any], entry: str) -> str:
    """Return a hint at the flag that overrides an entry; '' for sets of stored labels."""
    given = entry in _FLAGS and recipe["train"].get("order") != "stored"
    return f"; or give {_FLAGS[entry]}" if given else ""


def _refusal(where: str, entry: str, value: Any, words: str, flag: str = "") -> BadInput:
    options = words.removeprefix("one of ").split(", ") if words.startswith("one of ") else []
    near = nearest(value, options) if isinstance(value, str) else None
    hint = f" (did you mean {near}?)" if near else ""
    return BadInput(where, f"recipe.{entry} is {value!r}", words + hint + flag)


def _section(recipe: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    at: Any = recipe
    for name in path.split(".") if path else ():
        at = at.get(name) or {}
    return dict(at)


def _needed(section: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = _NEEDED.get(section, {})
    if not found:
        return ()
    return kinds.get("", ()) + kinds.get(str(found.get("kind", "")) or "?", ())


TASKS = ("classify", "adapt", "attack", "retrieval")


def _validate_task(dset: AnyProduct, where: str) -> None:
    """Refuse a task that is unknown, or does not match the kind of product."""
    task, paired = dset.recipe.get("task", "classify"), isinstance(dset, PairSet)
    if task not in TASKS:
        raise BadInput(where, f"recipe.task is {task!r}", f"one of {', '.join(TASKS)}")
    if (task == "retrieval") != paired:
        words = "retrieval" if paired else "classify, adapt or attack"
        raise BadInput(where, f"recipe.task is {task!r} of a product of kind {dset.kind!r}", words)


def _validate_pairs(pairs: PairSet, where: str) -> None:
    """Refuse a recipe whose order or loss does not apply to pairs."""
    train = pairs.recipe["train"]
    if train["loss"] not in PAIRED or train["order"] not in ("shuffled", "drawn"):
        found = f"recipe.train.loss is {train['loss']!r} with order {train['order']!r}, of pairs"
        raise BadInput(
            where, found, f"one of {', '.join(PAIRED)}, with order 'shuffled' or 'drawn'"
        )
    for name, plain in (("cutmix", 0), ("factor", 1)):
        if train.get(name, plain) != plain:
            found = f"recipe.train.{name} is {train[name]!r}, of pairs"
            raise BadInput(where, found, f"{plain}, or leave it out")
    if train.get("test_norm", "running") not in ("running", "batch"):
        found = f"recipe.train.test_norm is {train['test_norm']!r}, of pairs"
        raise BadInput(where, found, "running or batch")


def _validate_combinations(dset: DistilledSet | GeneratorSet, where: str) -> None:
    """Refuse entries that are incompatible with each other or with the set's images."""
    train, augment = dset.recipe["train"], dset.recipe["augment"]
    name = augment["name"] or "none"
    if name != "none":
        try:
            augmentations.kind(name).names(augment["strategy"])
        except BadInput as error:
            found = f"recipe.augment.strategy: {error.found}"
            flag = _flag(dset.recipe, "augment.strategy")
            raise BadInput(where, found, error.allowed + flag) from None
    _validate_formed(dset, where)
    for name, plain in (("rates", "own"), ("test_every", 0)):
        if train.get(name, plain) != plain:
            raise BadInput(
                where, f"recipe.train.{name} is {train[name]!r}", "leave it out: of pairs"
            )
    if train["order"] == "drawn":
        raise BadInput(where, "recipe.train.order is 'drawn'", "another order: it is of pairs")
    stored, soft = train["order"] == "stored", train["loss"] in STORED
    if stored != soft:
        found = f"recipe.train.loss is {train['loss']!r} with order {train['order']!r}"
        raise BadInput(where, found, f"one of {', '.join(STORED if stored else LOSSES)}")
    count, classes = dset.size, dset.classes
    if train["loss"] in PAIRED or isinstance(dset, GeneratorSet) and train["order"] != "shuffled":
        found = f"recipe.train.loss is {train['loss']!r} with order {train['order']!r}"
        raise BadInput(where, found, f"one of {', '.join(LOSSES)}, with order 'shuffled'")
    weighted = isinstance(dset, DistilledSet) and dset.weights is not None
    if weighted and train["loss"] not in ("cross_entropy", *STORED):
        found = f"weights with recipe.train.loss {train['loss']!r}"
        allowed = f"{', '.join(('cross_entropy', *STORED))}, or a set without weights"
        raise BadInput(where, found, allowed)
    if stored:
        _validate_labels(dset, where)
    if train["order"] == "classwise" and not 1 <= train["per_class"] <= count // classes:
        found = f"recipe.train.per_class is {train['per_class']!r}"
        raise BadInput(where, found, f"1 to {count // classes}, the images of a class")
    if train["classes_per_step"] > classes:
        found = f"recipe.train.classes_per_step is {train['classes_per_step']!r}"
        raise BadInput(where, found, f"1 to {classes}, or 0 for all")
    batch, parts = min(train["batch"], count), train.get("parts", 1)
    if not trainer.cuts(batch, parts):
        found = f"recipe.train.parts is {parts!r}, of a step of {batch} images"
        raise BadInput(where, found, "equal parts of two images or more")
    objective = dset.recipe.get("objective") or {}
    for key in ("attack_class", "target_class"):
        if objective.get(key, 0) >= classes:
            found = f"recipe.objective.{key} is {objective[key]!r}"
            raise BadInput(where, found, f"0 to {classes - 1}")


def _validate_formed(dset: DistilledSet | GeneratorSet, where: str) -> None:
    """Refuse mixing of stored views, and images that cannot stand for several."""
    train = dset.recipe["train"]
    factor, stored = train.get("factor", 1), train["order"] == "stored"
    if not stored and any(train.get(name, 0) for name in RELATIONS):
        found = f"relation graphs (recipe.train.irg_*) with order {train['order']!r}"
        raise BadInput(where, found, "order 'stored': teachers are of sets with stored labels")
    if stored and train.get("cutmix", 0):
        found = f"recipe.train.cutmix is {train['cutmix']!r} with order 'stored'"
        raise BadInput(where, found, "0: the stored views are mixed already")
    if factor == 1:
        return
    found = f"recipe.train.factor is {factor!r}"
    if stored or train["order"] != "shuffled" or isinstance(dset, GeneratorSet):
        raise BadInput(where, found, "1, except of fixed sets with order 'shuffled'")
    if any(side % factor for side in dset.images.shape[1:3]):
        h, w = dset.images.shape[1:3]
        raise BadInput(where, f"{found}, of images of {h}x{w}", "a divisor of both sides")


def _validate_labels(dset: DistilledSet | GeneratorSet, where: str) -> None:
    labels, train = dset.recipe["labels"], dset.recipe["train"]
    if labels["kind"] != "stored" or dset.label_kind != "hard":
        found = f"order 'stored' of {dset.label_kind} labels, and recipe.labels is {labels!r}"
        raise BadInput(where, found, "kind stored, and hard labels in the set itself")
    if not train["epochs"]:
        words = "a whole number, 1 or more: the views of whole epochs are stored"
        raise _refusal(where, "train.epochs", 0, words)
