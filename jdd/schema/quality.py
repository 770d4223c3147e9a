"""Keys of how a generator, or a prior while it trains, is looked at and measured."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.key import option


@dataclass(frozen=True)
class Quality:
    """Quality of generated images, in features of a classifier that jdd trains on the real ones."""

    images: int = option(
        1000,
        "generated images, and at most as many real ones, that the figures are of (0: off)",
        resumable=True,
        minimum=0,
    )
    k: int = option(
        5,
        "neighbour that the balls of precision, recall, density and coverage reach to",
        resumable=True,
        minimum=1,
    )
    net: str = option("ConvNetBN", "classifier whose features are compared", resumable=True)
    width: int = option(32, "channels of its first block", resumable=True, minimum=1)
    epochs: int = option(
        20, "its epochs on the real images; trained once a dataset", resumable=True, minimum=1
    )
    every: int = option(
        500,
        "steps between pictures of a prior, and points of its curve of quality (0: neither)",
        resumable=True,
        minimum=0,
    )
    keep: int = option(6, "pictures of a prior to keep, the last ones", resumable=True, minimum=1)
    curve: int = option(
        200, "generated images of a point of that curve (0: no curve)", resumable=True, minimum=0
    )
