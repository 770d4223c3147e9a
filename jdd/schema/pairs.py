"""The keys of methods that distil pairs of images and captions."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.common import Baselines, Common, Eval, Net
from jdd.schema.key import group, like, option


@dataclass(frozen=True)
class Text:
    """How captions become vectors."""

    size: int = option(256, "length of a text vector: hash cells of word n-grams", minimum=8)
    captions: int = option(
        5, "captions of an image that are used, 1 to 5 (digits_captions)", minimum=1, maximum=5
    )


@dataclass(frozen=True)
class Towers:
    """The two nets that meet in one space."""

    size: int = option(64, "length of the embeddings of both towers", minimum=2)
    tau: float = option(0.07, "temperature of the similarities", above=0)


@dataclass(frozen=True)
class TowerNet(Net):
    """The image tower."""

    # Trajectories of normalised nets cannot be matched (Wu et al., TMLR 2024): none by default.
    norm: str = like(Net, "norm", default="none")


@dataclass(frozen=True)
class PairConfig(Common):
    """Keys of every method that distils pairs."""

    pairs: int = option(20, "synthetic pairs of an image and a text vector", minimum=2)
    net: TowerNet = group(TowerNet)
    text: Text = group(Text)
    towers: Towers = group(Towers)
    eval: Eval = group(Eval, curve=0, batch=64)
    baselines: Baselines = group(Baselines)


DEFAULTS = {"steps": 0, "eval.lr": 0.1, "eval.epochs": 150, "data.zca": "none"}
STARTS = {
    "digits_captions": {
        "data.source": "digits", "data.dsa": "none", "net.name": "MLP", "nets": ("MLP",),
        "experts.lr": 0.1, "experts.batch": 64,
    },
}  # fmt: skip
