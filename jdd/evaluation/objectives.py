"""What trained nets are asked: to label the test images right, or, attacked, to label some wrong.

``recipe["objective"]`` says what a set is for (``jdd/methods/dd.py:objective_of``); a recipe that
does not say it is to train nets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jdd.data import Split, relabelled
from jdd.evaluation.train_eval import summary


def of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a set is for: kind distill, adapt (with source) or attack (with both classes)."""
    return dict(recipe.get("objective") or {"kind": "distill"})


def named(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a set is for, the classes of an attack with their names too."""
    aim, names = of(recipe), recipe["class_names"]
    if aim["kind"] == "attack":
        for word in ("attack", "target"):
            aim[f"{word}_name"] = str(names[int(aim[f"{word}_class"])])
    return aim


def wanted(recipe: Mapping[str, Any], labels: np.ndarray) -> np.ndarray:
    """Return the labels a net shall give: where it is attacked, class K's are T."""
    aim = of(recipe)
    if aim["kind"] != "attack":
        return labels
    return relabelled(labels, int(aim["attack_class"]), int(aim["target_class"]))


def splits(recipe: Mapping[str, Any], test: Split) -> dict[str, Split]:
    """Return the test images by what is asked of them.

    ``accuracy``: all of them, with their true labels. An attack asks two things more:
    ``success``, images of the attacked class with the attacker's label, and ``others``, images of
    all other classes with their own.
    """
    aim = of(recipe)
    asked = {"accuracy": test}
    if aim["kind"] != "attack":
        return asked
    attacked = test.labels == int(aim["attack_class"])
    asked["success"] = Split(test.images[attacked], wanted(recipe, test.labels[attacked]))
    asked["others"] = Split(test.images[~attacked], test.labels[~attacked])
    return asked


def summaries(asked: Iterable[str], found: np.ndarray) -> dict[str, Any]:
    """Return the summary of the accuracies ``[nets, splits]``; further splits by their names."""
    first, *more = (summary(column) for column in found.T)
    return {**first, **dict(zip(list(asked)[1:], more, strict=True))}


def curve_point(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scalars that the accuracy curve logs of a summary; of an attack, both its own."""
    own = {name: found[name]["mean"] for name in ("success", "others") if name in found}
    return {"accuracy": found["mean"], "std": found["std"], "n": found["n"], **own}


def merged(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one summary of several, over all their values; nested summaries alike."""
    nested = [name for name, value in found[0].items() if isinstance(value, Mapping)]
    whole = summary([value for one in found for value in one["values"]])
    return whole | {name: merged([one[name] for one in found]) for name in nested}
