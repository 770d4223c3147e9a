"""Config keys of training options, generated from their declarations in ``jdd/training/recipe.py``.

They exist for every method whose set is evaluated by training, and override the method's recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from jdd.errors import BadInput
from jdd.schema.key import option, show
from jdd.training import schedules
from jdd.training.option import Option, options
from jdd.training.printed import OPTIMIZERS
from jdd.training.recipe import AS_RECIPE, Recipe

T = TypeVar("T")
_SCHEDULE = option(
    AS_RECIPE,
    "what becomes of the learning rate: as the method's recipe has it, or steps down",
    choices=(AS_RECIPE, *schedules.OFFERED),
    later=True,
    sparse=True,
)
_OPTIMIZER = option(
    AS_RECIPE,
    "optimiser of the nets trained on the set: the method's recipe's, or another, at the rate "
    "eval.lr (muon: of matrices, convolutions' among them, and nadamw of other weights)",
    choices=(AS_RECIPE, *OPTIMIZERS),
    later=True,
    sparse=True,
)


def _declared() -> dict[str, Option]:
    """Return the options with a key generated here, by that key."""
    kinds = [schedules.KINDS[name] for name in schedules.OFFERED]
    return {one.keys[0]: one for cls in (Recipe, *kinds) for one in options(cls) if one.help}


def _field(one: Option) -> Any:
    assert one.rule is not None
    rule = one.rule
    return option(
        one.default, one.help, choices=rule.choices,
        minimum=rule.minimum, maximum=rule.maximum, later=True, sparse=True,
    )  # fmt: skip


def with_options(group: type[T]) -> type[T]:
    """Return the group ``eval`` with a field for every option that has a key generated here."""
    own = {"schedule": _SCHEDULE, "optimizer": _OPTIMIZER}
    fields: list[tuple[str, Any, Any]] = [(name, str, key) for name, key in own.items()]
    for key, one in _declared().items():
        assert one.rule is not None
        fields.append((key.removeprefix("eval."), one.rule.type, _field(one)))
    made = dataclasses.make_dataclass(group.__name__, fields, bases=(group,), frozen=True)
    made.__module__, made.__doc__ = group.__module__, group.__doc__
    return made


def validate(values: Mapping[str, Any]) -> None:
    """Refuse values of these keys that training cannot use; ``values`` by dotted name.

    Raises:
      BadInput: naming the key and what is allowed.
    """
    for name, one in _declared().items():
        if one.rule is not None and not one.rule.holds(values[name]):
            raise BadInput(f"config.{name}", show(values[name]), one.rule.words)
    if values["eval.cutmix"] and ("relabel.mix" in values or "pairs" in values):
        allowed = "0: views are mixed by relabel.mix" if "relabel.mix" in values else "0 for pairs"
        raise BadInput("config.eval.cutmix", show(values["eval.cutmix"]), allowed)
    _validate_optimizer(values)
    if "pairs" in values and values["eval.test_norm"] not in ("running", "batch"):
        raise BadInput("config.eval.test_norm", values["eval.test_norm"], "running or batch: pairs")
    for kind in schedules.OFFERED:
        for one in options(schedules.KINDS[kind]):
            name = one.keys[0]
            if values["eval.schedule"] != kind and values[name] != one.default:
                found = f"{show(values[name])} with eval.schedule={values['eval.schedule']}"
                raise BadInput(f"config.{name}", found, f"--config.eval.schedule={kind} with it")


def _validate_optimizer(values: Mapping[str, Any]) -> None:
    """Refuse another optimiser at the rate of the recipe's, and where a method has its own key."""
    name = values["eval.optimizer"]
    if name == AS_RECIPE:
        return
    if "post.optimizer" in values:
        allowed = f"leave it out; --config.post.optimizer={name} if that is one of its choices"
        raise BadInput("config.eval.optimizer", name, allowed)
    if not values["eval.lr"]:
        found = f"{name}, at the rate of the recipe's optimiser"
        raise BadInput("config.eval.optimizer", found, "--config.eval.lr=0.001 with it")
