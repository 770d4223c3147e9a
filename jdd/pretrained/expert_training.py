"""Experts that are trained otherwise than at a constant rate by DSA: rate, augmentation, CutMix."""

from __future__ import annotations

from typing import Any

from jdd.augment import idc
from jdd.schema.experts import Experts
from jdd.training.recipe import Recipe
from jdd.training.schedules import Multistep

FACTOR = 0.2  # of the rate after 2/3 and after 5/6 of the epochs, as NCFM trains its nets


def recipe(plain: Recipe, experts: Experts) -> Recipe:
    """Return the recipe of the experts: ``plain`` with the operations and CutMix of their keys.

    Raises:
      BadInput: an unknown operation in ``experts.augment``.
    """
    made = plain.replace(cutmix=experts.cutmix)
    if not experts.augment:
        return made
    idc.names(experts.augment, "config.experts.augment")
    return made.replace(augment="idc", strategy=experts.augment)


def rates(made: Recipe, experts: Experts, images: int) -> float | tuple[float, ...]:
    """Return the experts' learning rate, or with a schedule that of every step of their training.

    Args:
      made: the recipe of the experts.
      images: the number of real images.
    """
    if experts.schedule == "constant":
        return experts.lr
    per_epoch, epochs = made.steps_per_epoch(images), experts.epochs
    at = max(1, 2 * epochs // 3), max(1, 5 * epochs // 6)
    return Multistep(milestones=at, gamma=FACTOR).rates(experts.lr, epochs * per_epoch, per_epoch)


def settings(experts: Experts) -> dict[str, Any]:
    """Return the entries of a store's settings; none for plain training, as in older stores.

    A schedule ends with the last epoch, so it includes their number.
    """
    found: dict[str, Any] = {}
    if experts.schedule != "constant":
        found = {"schedule": experts.schedule, "epochs": experts.epochs}
    more = {"augment": experts.augment, "cutmix": experts.cutmix}
    return found | {name: value for name, value in more.items() if value}
