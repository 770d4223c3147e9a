"""Herding of pairs: real pairs whose mean embedding approximates that of all (Welling 2009)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jdd.schema.experts import Experts
from jdd.schema.key import group
from jdd.schema.pairs import STARTS, PairConfig
from jdd.specs import random_pairs
from jdd.specs.base import STAGES


# Towers are trained on all pairs for recall, not for their trajectories: with momentum and decay,
# and so is the baseline of all pairs.
@dataclass(frozen=True)
class Config(PairConfig):
    """Keys of herding and k-center of pairs."""

    experts: Experts = group(Experts, count=1, group=1, momentum=0.9, weight_decay=5e-4)


SPEC = dataclasses.replace(
    random_pairs.SPEC,
    name="herding_pairs",
    make="jdd.methods.herding_pairs:make",
    title="Herding of pairs",
    config=Config,
    starts={
        "digits_captions": STARTS["digits_captions"]
        | {"experts.lr": 0.01, "experts.epochs": 10, "baselines.full_epochs": 20},
        # Plain SGD at the rate of VL's experts.
        "flickr8k": STARTS["flickr8k"]
        | {"experts.momentum": 0.0, "experts.weight_decay": 0.0, "experts.epochs": 8},
    },
    stages=STAGES,
)
