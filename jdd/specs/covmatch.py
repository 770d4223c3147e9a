"""CovMatch: pairs by matching cross-covariances, without experts (Lee & Chung, NeurIPS 2025)."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.errors import BadInput
from jdd.schema import pairs as schema
from jdd.schema.key import AUTO, option
from jdd.schema.pairs import PairConfig, validate_batch, validate_pairs
from jdd.specs.base import Spec, Values


@dataclass(frozen=True)
class Config(PairConfig):
    """Keys of CovMatch."""

    rho: float = option(
        AUTO,
        "scale of the real cross-covariance (auto: 2 below 200 pairs, else 1)",
        above=0,
    )
    feature_weight: float = option(
        AUTO,
        "lambda: weight of the distances of mean embeddings (auto: 0.1; from 500 pairs on 0.6)",
        minimum=0,
    )
    batch_real: int = option(256, "real pairs in a batch", minimum=2)
    real_batches: int = option(1, "real batches averaged per distillation step", minimum=1)
    batch_syn: int = option(0, "synthetic pairs per distillation step (0: all)", minimum=0)
    lr_img: float = option(AUTO, "learning rate of the images", minimum=0)
    lr_txt: float = option(AUTO, "learning rate of the text vectors", minimum=0)
    momentum: float = option(0.5, "momentum of the SGD of images and text", minimum=0, maximum=1)
    lr_net: float = option(0.1, "learning rate of the towers on real pairs", minimum=0)
    net_momentum: float = option(0.9, "momentum of the towers' SGD", minimum=0, maximum=1)
    reset_every: int = option(50, "steps after which the towers are drawn anew", minimum=1)


DEFAULTS = {
    "steps": 10000, "lr_img": 1.0, "lr_txt": 1.0, "eval.lr": 0.1, "eval.epochs": 150,
    "data.zca": "none", "data.dsa": "none",
}  # fmt: skip
# The towers and captions of VL's start; steps and rates by a few trials with seed 0.
STARTS = {
    "digits_captions": {
        **schema.STARTS["digits_captions"],
        "net.name": "MLP1", "nets": ("MLP1",), "text.captions": 1, "text.size": 64,
        "towers.size": 48, "towers.start": "shared", "steps": 2000, "lr_img": 10.0,
        "lr_txt": 10.0,
    },
}  # fmt: skip


def _rho(values: Values) -> float:
    return 2.0 if values["pairs"] < 200 else 1.0


def _feature_weight(values: Values) -> float:
    return 0.1 if values["pairs"] < 500 else 0.6


def validate(values: Values) -> None:
    """Refuse resolved values that do not go together."""
    validate_pairs(values)
    validate_batch(values)
    if not values["eval.lr"]:
        raise BadInput(
            "config.eval.lr", "0, and no rate is learned", "above 0, such as --config.eval.lr=0.1"
        )


SPEC = Spec(
    name="covmatch",
    title="CovMatch",
    make="jdd.methods.covmatch:make",
    config=Config,
    task="retrieval",
    defaults=DEFAULTS,
    starts=STARTS,
    derived={"rho": _rho, "feature_weight": _feature_weight},
    validate=validate,
    stages=("distill", "evaluate", "report", "full"),
)
