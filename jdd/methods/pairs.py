"""What methods that distil pairs share: their recipe."""

from __future__ import annotations

from typing import Any, cast

from jdd.data.pairs import PairDataset
from jdd.methods.base import Problem, recipe
from jdd.schema.pairs import PairConfig


def pair_recipe(config: PairConfig, problem: Problem, steps: int, **train: Any) -> dict[str, Any]:
    """Return the recipe of a set of pairs: the entries of ``recipe`` and those of two towers.

    ``text`` records how captions become vectors, and all that encoding new text takes
    (``jdd.data.text.from_json``); ``towers`` the architecture of the two nets.
    """
    encoder = cast(PairDataset, problem.data).encoder
    found = recipe(problem, steps, **{"loss": "nce", **train})
    return found | {
        "schema": 2,
        "task": "retrieval",
        "ipc": 0,
        "pairs": config.pairs,
        "text": {
            "encoder": config.text.encoder,
            "size": config.text.size,
            "captions": config.text.captions,
            **(encoder.to_json() if encoder else {}),
        },
        "towers": {"size": config.towers.size, "tau": config.towers.tau},
    }
