"""Random real pairs, as many as a distilled set has: the first thing to beat in retrieval."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.errors import BadInput
from jdd.schema.pairs import DEFAULTS, STARTS, PairConfig, validate_pairs
from jdd.specs.base import Spec, Values


@dataclass(frozen=True)
class Config(PairConfig):
    """Keys of random pairs."""


def validate(values: Values) -> None:
    """Refuse resolved values that do not go together."""
    validate_pairs(values)
    if values["steps"]:
        found = f"{values['steps']} with method={values['method']}"
        raise BadInput("config.steps", found, "0: real pairs are chosen, no step changes them")
    if not values["eval.lr"]:
        raise BadInput(
            "config.eval.lr", "0, and no rate is learned", "above 0, such as --config.eval.lr=0.1"
        )


SPEC = Spec(
    name="random_pairs",
    title="Random pairs",
    make="jdd.methods.random_pairs:make",
    config=Config,
    task="retrieval",
    defaults=DEFAULTS,
    starts=STARTS,
    validate=validate,
    stages=("distill", "evaluate", "report", "full"),
)
