"""EL2N: real images chosen by the error of nets early in training (Paul et al., NeurIPS 2021)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jdd.errors import BadInput
from jdd.schema.experts import Experts
from jdd.schema.key import group, option
from jdd.specs import random
from jdd.specs.base import STAGES, Values

BAND = 0.5


@dataclass(frozen=True)
class Config(random.Config):
    """Keys of EL2N."""

    experts: Experts = group(Experts, count=10, momentum=0.9, weight_decay=5e-4)
    select: str = option(
        "easiest",
        "images of each class that are chosen, by the error of nets early in training",
        choices=("easiest", "band", "hardest"),
    )
    band: float = option(
        BAND,
        "select=band: quantile of the scores around which they lie, 0 the easiest, 1 the hardest",
        minimum=0,
        maximum=1,
    )


# A tenth of the training of the baseline on the whole set, as in the paper.
DEFAULTS = random.DEFAULTS | {"experts.epochs": 5}
STARTS = {"digits": random.STARTS["digits"] | {"experts.epochs": 2}}


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    random.validate(values)
    if values["select"] != "band" and values["band"] != BAND:
        found = f"{values['band']:g} with select={values['select']}"
        raise BadInput("config.band", found, "--config.select=band with it")


SPEC = dataclasses.replace(
    random.SPEC,
    name="el2n",
    make="jdd.methods.el2n:make",
    title="EL2N",
    config=Config,
    stages=STAGES,
    validate=validate,
    defaults=DEFAULTS,
    published={},
    starts=STARTS,
)
