"""The keys of methods that distil pairs of images and captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdd.errors import BadInput
from jdd.schema.common import Baselines, Common, Data, Eval, Net
from jdd.schema.key import AUTO, group, like, option, show
from jdd.schema.protocols import OWN, PAIRS


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
    scale: str = option(
        AUTO,
        "hashed: length of a text vector: 1 (unit), or the square root of text.size (root), so "
        "that its entries are as large as pixels (auto: root, digits_captions: unit)",
        choices=("unit", "root"),
        later=True,
        sparse=True,
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
    image_column: str = option(
        "",
        "of Parquet files: the column of images ('': by its type and name)",
        later=True,
        sparse=True,
    )
    caption_column: str = option(
        "",
        "of Parquet files: the column of captions ('': by its name, such as caption or text)",
        later=True,
        sparse=True,
    )
    test: float = option(
        0.2, "fraction of the images set aside when no test split is stated", minimum=0, maximum=0.9
    )


@dataclass(frozen=True)
class Towers:
    """The two nets that meet in one space."""

    size: int = option(64, "length of the embeddings of both towers", minimum=2)
    tau: float = option(0.07, "temperature of the similarities", above=0)
    start: str = option(
        "fresh",
        "initial weights of the image tower: each net's own, or the same for all, in place "
        "of pretrained ones",
        choices=("fresh", "shared"),
        later=True,
    )
    weights: str = option(
        "",
        "safetensors file of pretrained weights of the image tower, by timm's names",
        resumable=True,
        later=True,
    )
    frozen: bool = option(
        False,
        "train the last layer of the image tower alone, next to the text tower",
        later=True,
        sparse=True,
    )


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters of the image tower."""

    rank: int = option(
        0, "train adapters of this rank on a frozen image tower (0: all its weights)", minimum=0,
        later=True,
    )  # fmt: skip
    alpha: float = option(1.0, "weight of the adapters: alpha / rank", above=0, later=True)


@dataclass(frozen=True)
class TowerNet(Net):
    """The image tower."""

    # Trajectories of normalised nets cannot be matched (Wu et al., TMLR 2024): none by default.
    norm: str = like(Net, "norm", default="none")
    heads: int = option(
        AUTO, "attention heads of ViT (auto: 64 channels each)", minimum=1, later=True, sparse=True
    )
    patch: int = option(
        AUTO,
        "pixels per side of ViT's patches (auto: about 8 x 8 patches)",
        minimum=1,
        later=True,
        sparse=True,
    )


@dataclass(frozen=True)
class PairConfig(Common):
    """Keys of every method that distils pairs."""

    pairs: int = option(20, "synthetic pairs of an image and a text vector", minimum=2)
    protocol: str = option(
        "own",
        "how towers are trained on the set: as the method does, or as published: vl (51 epochs, "
        "InfoNCE), lors (101 epochs, batches drawn anew, wBCE; its best test in a column too)",
        choices=tuple(PAIRS),
        later=True,
        sparse=True,
    )
    data: PairData = group(PairData)
    net: TowerNet = group(TowerNet)
    text: Text = group(Text)
    towers: Towers = group(Towers)
    lora: Lora = group(Lora)
    eval: Eval = group(Eval, curve=0, batch=AUTO)
    baselines: Baselines = group(Baselines)


# Keys of data that pairs do not have yet, with the values that they may have.
_FIXED: dict[str, tuple[Any, ...]] = {
    "data.zca": ("none", AUTO), "data.val": (0.0,),
    "data.stream": (False,), "data.layout": ("structure",), "data.dsa": ("none", "", AUTO),
    "data.labels": ("",), "data.noise": ("none",), "experts.sam_rho": (0.0,),
}  # fmt: skip


def validate_pairs(values: Mapping[str, Any]) -> None:
    """Refuse keys that methods of pairs would not obey, and adapters without a common base.

    Raises:
      BadInput: naming the key.
    """
    based = values["towers.start"] == "shared" or values["towers.weights"]
    few = "lora.rank" if values["lora.rank"] else "towers.frozen"
    if values[few] and not based:
        found = f"fresh with {few}: every net would have another frozen base"
        raise BadInput("config.towers.start", found, "--config.towers.start=shared")
    if values["lora.rank"] and values["towers.frozen"]:
        found = f"true with lora.rank={values['lora.rank']}, which freezes the image tower too"
        raise BadInput("config.towers.frozen", found, "false, or --config.lora.rank=0 with it")
    if values["eval.protocol"] != OWN:
        others = " or ".join(name for name in PAIRS if name != OWN)
        found = f"{values['eval.protocol']} with pairs"
        raise BadInput(
            "config.eval.protocol", found, f"own, or for pairs --config.protocol={others}"
        )
    for name, allowed in _FIXED.items():
        if values[name] not in allowed:
            found = f"{show(values[name])} with pairs"
            raise BadInput(f"config.{name}", found, f"{show(allowed[0]) or 'empty'}")
    for name in ("experts.batch", "eval.batch"):
        if values[name] == 1:
            raise BadInput(
                f"config.{name}", "1: a pair is contrasted with others of its batch", "2 or more"
            )


def validate_batch(values: Mapping[str, Any]) -> None:
    """Refuse batches of synthetic pairs that are larger than the set, or of a single pair.

    Raises:
      BadInput: naming the key.
    """
    pairs, batch = values["pairs"], values["batch_syn"]
    if batch == 1 or batch > pairs:
        found = f"{batch} of {pairs} pairs"
        raise BadInput("config.batch_syn", found, f"2 to {pairs}, or 0 for all pairs")


EVAL = {  # values of 'auto' by protocol; those of "own" are a method's, if it has some
    "own": {"eval.epochs": 150, "eval.batch": 64},
    **{
        name: {"eval.epochs": train["epochs"], "eval.batch": train["batch"]}
        for name, train in PAIRS.items()
        if train
    },
}
DEFAULTS = {"steps": 0, "eval.lr": 0.1, "eval.epochs": 150, "data.zca": "none", "data.dsa": "none"}
STARTS = {
    "digits_captions": {
        "data.source": "digits", "data.dsa": "none", "net.name": "MLP", "nets": ("MLP",),
        "experts.lr": 0.1, "experts.batch": 64,
    },
    # 64 pixels on a CPU: an image tower of one hidden layer from one shared start.
    "flickr8k": {
        "net.name": "MLP1", "nets": ("MLP1",), "text.size": 1024, "towers.size": 128,
        "towers.start": "shared", "experts.lr": 1.0, "experts.batch": 512,
        "baselines.full_epochs": 8,
    },
}  # fmt: skip
