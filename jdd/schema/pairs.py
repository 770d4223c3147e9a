"""The keys of methods that distil pairs of images and captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdd.errors import BadInput
from jdd.schema.common import Baselines, Common, Data, Eval, Net
from jdd.schema.key import AUTO, group, like, option, show


@dataclass(frozen=True)
class Text:
    """How captions become vectors."""

    encoder: str = option(
        "hashed",
        "text vectors: hashed word n-grams with tf-idf, or a trained BERT (needs jdd[text])",
        choices=("hashed", "bert"),
        later=True,
        sparse=True,
    )
    size: int = option(
        256, "length of a text vector: hash cells of word n-grams (bert: the model's)", minimum=8
    )
    captions: int = option(
        5, "captions of an image that are used at most: the first ones", minimum=1
    )
    path: str = option(
        "",
        "bert: a Hugging Face folder with config.json, tokenizer.json and model.safetensors",
        resumable=True,
        later=True,
        sparse=True,
    )
    pool: str = option(
        "cls",
        "bert: the vector of a text is its first token's last state, or the mean of all",
        choices=("cls", "mean"),
        later=True,
        sparse=True,
    )
    words: int = option(
        0,
        "bert: tokens of a caption that are read at most (0: as many as the model has positions)",
        minimum=0,
        later=True,
        sparse=True,
    )


@dataclass(frozen=True)
class PairData(Data):
    """The real images and their captions."""

    captions: str = option(
        "",
        "file of captions: CSV, TSV, JSON lines, Karpathy's or COCO's JSON, Flickr's tokens "
        "('': the one next to the images)",
        resumable=True,
        later=True,
    )
    test: float = option(
        0.2, "fraction of the images set aside when no test split is stated", minimum=0, maximum=0.9
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
    data: PairData = group(PairData)
    net: TowerNet = group(TowerNet)
    text: Text = group(Text)
    towers: Towers = group(Towers)
    eval: Eval = group(Eval, curve=0, batch=64)
    baselines: Baselines = group(Baselines)


# Keys of data that pairs do not have yet, with the values that they may have.
_FIXED: dict[str, tuple[Any, ...]] = {
    "data.zca": ("none", AUTO), "data.val": (0.0,),
    "data.stream": (False,), "data.dsa": ("none", "", AUTO), "experts.sam_rho": (0.0,),
}  # fmt: skip


def validate_pairs(values: Mapping[str, Any]) -> None:
    """Refuse keys that methods of pairs would not obey.

    Raises:
      BadInput: naming the key.
    """
    for name, allowed in _FIXED.items():
        if values[name] not in allowed:
            found = f"{show(values[name])} with pairs"
            raise BadInput(f"config.{name}", found, f"{show(allowed[0]) or 'empty'}")


DEFAULTS = {"steps": 0, "eval.lr": 0.1, "eval.epochs": 150, "data.zca": "none", "data.dsa": "none"}
STARTS = {
    "digits_captions": {
        "data.source": "digits", "data.dsa": "none", "net.name": "MLP", "nets": ("MLP",),
        "experts.lr": 0.1, "experts.batch": 64,
    },
}  # fmt: skip
