"""Random real pairs: what every method that distils pairs is held to.

    n = pairs images, drawn without replacement, each with one of its captions

The draw is a function of the seed (``jdd/rng.py``). No step is taken. Students learn by InfoNCE at
one rate for both towers.

Differs from the authors' code: there is none to differ from.
"""

from __future__ import annotations

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.data.pairs import PairSplit
from jdd.methods.base import Method, Problem, State
from jdd.methods.pairs import draw, pair_recipe
from jdd.product.pairs import PairSet
from jdd.specs.random_pairs import Config


def make(config: Config, problem: Problem) -> Method:
    """Build the choice for a resolved config and its problem."""
    train = cast(PairSplit, problem.data.train)

    def init(seed: int) -> State:
        rows = draw(rng.host(seed, "random_pairs/choice"), train, config.pairs)
        images, text = train.images[train.image_of[rows]], train.text[rows]
        variables = {"images": jnp.asarray(images), "text": jnp.asarray(text)}
        return State(variables, {"captions": jnp.asarray(rows, jnp.int32)})

    def sample(seed: int, step: int) -> dict[str, Any]:
        raise ValueError("pairs that are chosen have no steps")

    def product(state: State, steps: int) -> PairSet:
        rows = np.asarray(state.aux["captions"])
        found = pair_recipe(config, problem, steps, lr=config.eval.lr)
        found |= {"captions": [train.captions[i] for i in rows], "selected": rows.tolist()}
        images, text = (np.asarray(state.variables[name]) for name in ("images", "text"))
        return PairSet(images, text, found, problem.data.transform)

    return Method(init, sample, None, product, optax.identity())
