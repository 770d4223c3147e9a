"""What methods that distil pairs share: the draw of real pairs, the recipe, nearest captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import optax

from jdd.data.pairs import PairDataset, PairSplit
from jdd.methods.base import Method, Problem, State, recipe
from jdd.product.pairs import PairSet
from jdd.schema.pairs import PairConfig, Towers
from jdd.schema.protocols import PAIRS, of_pairs
from jdd.schema.values import section
from jdd.storage import tensors

VL_PROTOCOL, LORS_PROTOCOL = PAIRS["vl"], PAIRS["lors"]


def pair_recipe(config: PairConfig, problem: Problem, steps: int, **train: Any) -> dict[str, Any]:
    """Return the recipe of a set of pairs: the entries of ``recipe`` and those of two towers.

    ``text`` records how captions become vectors, and all that encoding new text takes
    (``jdd.data.text.from_json``); ``towers`` the architecture of the two nets,
    ``protocol`` the published protocol by which ``train`` is, if it is one, and ``weights_digest``
    the content of pretrained weights.

    Args:
      train: entries of ``recipe["train"]`` that replace the protocol's.
    """
    encoder = cast(PairDataset, problem.data).encoder
    published = of_pairs(config.protocol, config.eval.epochs, config.eval.batch)
    found = recipe(problem, steps, **{"loss": "nce", **published, **train})
    weights = config.towers.weights
    return found | {
        **({"protocol": config.protocol} if published else {}),
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
        **towers(config),
        **({"weights_digest": tensors.digest(Path(weights))} if weights else {}),
    }


def chosen(config: PairConfig, problem: Problem, select: Callable[[int], np.ndarray]) -> Method:
    """Return a method without steps: real pairs, selected once.

    The recipe stores the rows of the captions as ``selected``.

    Args:
      select: ``(seed) -> rows`` of the captions of ``data.train``, int ``[pairs]``.
    """
    train = cast(PairSplit, problem.data.train)

    def init(seed: int) -> State:
        rows = select(seed)
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


def towers(config: PairConfig) -> dict[str, Any]:
    """Return the architecture of the two towers as a recipe's entries: "towers", "lora" if used."""
    found = {"size": config.towers.size, "tau": config.towers.tau}
    found |= {k: v for k, v in section(config.towers).items() if v != getattr(Towers(), k)}
    return {"towers": found} | ({"lora": section(config.lora)} if config.lora.rank else {})


def nearest_captions(text: np.ndarray, train: PairSplit) -> dict[str, Any]:
    """Return the training caption nearest to each text vector, as a recipe's entries.

    Args:
      text: ``[n, d]``; nearness is the cosine, recorded as "caption_cosine".
    """
    unit, real = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
                  for v in (text, train.text))  # fmt: skip
    near = np.argmax(unit @ real.T, axis=1)
    cosines = np.sum(unit * real[near], axis=1)
    return {
        "captions": [train.captions[i] for i in near],
        "caption_cosine": [round(float(c), 4) for c in cosines],
    }


def draw(generator: np.random.Generator, split: PairSplit, count: int) -> np.ndarray:
    """Draw ``count`` different images and one caption of each; return captions' rows, int [count].

    Args:
      count: at most the number of images.
    """
    images = generator.choice(len(split.images), count, replace=False)
    order = np.argsort(split.image_of, kind="stable")
    starts = np.searchsorted(split.image_of[order], np.arange(len(split.images) + 1))
    within = [generator.integers(starts[i], starts[i + 1]) for i in images]
    return np.asarray(order[within])
