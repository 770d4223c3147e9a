"""Evaluation of pairs: two towers trained on them, next to random pairs and all pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jdd import rng
from jdd.data.pairs import PairDataset
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.methods.pairs import draw
from jdd.nets import Net
from jdd.product.pairs import PairSet
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.tasks import RETRIEVAL
from jdd.tasks.base import summaries, tester
from jdd.training import trainer
from jdd.training.recipe import Recipe

Tree = Any


def validate_data(pairs: PairSet, data: PairDataset) -> tuple[str, ...]:
    """Return no notes; refuse pairs that are not of this dataset's shapes.

    Raises:
      BadInput: images of another shape, text vectors of another length or of another encoder.
    """
    if tuple(pairs.images.shape[1:]) != data.shape or pairs.text.shape[1] != data.text_size:
        found = f"images {pairs.images.shape[1:]}, text vectors of {pairs.text.shape[1]}"
        allowed = f"{data.name} has images {data.shape}, text vectors of {data.text_size}"
        raise BadInput("--set", found, allowed)
    _validate_text(pairs.recipe.get("text") or {}, _text(data))
    ours, theirs = data.transform, pairs.transform
    if theirs.whitens or not all(
        np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("mean", "std")
    ):
        found = "images normalised by another mean and deviation"
        raise BadInput(
            "--set", found, f"those of {data.name}: {ours.mean.tolist()}, {ours.std.tolist()}"
        )
    return ()


def _validate_text(made: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse text vectors of another encoder than the set's; what it was fitted on may differ."""
    for entry in ("encoder", "digest", "pool", "words"):
        if entry not in made or made[entry] == here.get(entry):
            continue
        found = f"{here.get(entry, 'none')}, and the set's text vectors are of {made[entry]}"
        if entry == "digest":
            allowed = "the folder of the BERT that the set was made with"
            raise BadInput("config.text.path", f"digest {found}", allowed)
        raise BadInput(f"config.text.{entry}", found, f"leave it out, or {made[entry]}")


def _text(data: PairDataset) -> dict[str, Any]:
    return data.encoder.to_json() if data.encoder else {}


def labels(pairs: PairSet) -> dict[str, np.ndarray]:
    """Return the similarities of pairs in the trainer's form: S = diag(w) + left right^T."""
    n, s = pairs.size, pairs.similarity
    if s is None:
        none = np.zeros((n, 0), np.float32)
        return {"w": np.ones(n, np.float32), "left": none, "right": none}
    scale = np.float32(s.alpha / max(s.left.shape[1], 1))
    return {"w": s.w, "left": scale * s.left, "right": s.right}


def material(pairs: PairSet) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the inputs of both towers, and the similarities in the trainer's form."""
    return {"image": pairs.images, "text": pairs.text}, labels(pairs)


def measure_random(
    context: RunContext, pairs: PairSet, draws: int, session: Session, net: Net
) -> dict[str, Any]:
    """Train one pair of towers on each of ``draws`` draws of as many real pairs.

    By the set's recipe and its learned rates, but InfoNCE whatever the set's loss: real pairs learn
    far less by a binary cross entropy of the identity, which would flatter the set.
    """
    train, n = context.data.train, pairs.size
    rows = [draw(rng.host(context.config.seed, "random", i), train, n) for i in range(draws)]
    index = np.stack(rows)
    inputs = {"image": train.images[train.image_of[index]], "text": train.text[index]}
    recipe = pairs.recipe | {"train": pairs.recipe["train"] | {"loss": "nce"}}
    plain = pairs._replace(similarity=None, recipe=recipe)
    wanted = jax.tree.map(lambda a: train_eval.repeated(a, draws), labels(plain))
    planned = train_eval.plan(plain)
    test = tester(RETRIEVAL, RETRIEVAL.problems(context.data.test))
    found = train_eval.test_nets(
        net, planned, inputs, wanted, test, int(pairs.recipe["seed"]), "random", session,
        context.devices, context.config.eval.at_once,
    )  # fmt: skip
    return {**summarised(found, planned, net, n), "net": net.name}


def summarised(found: np.ndarray, planned: train_eval.Plan, net: Net, n: int) -> dict[str, Any]:
    """Return the summary of the last test; of all tests, each net's best as "best".

    The best test is that of the highest mean recall on the test data, as LoRS' authors report it;
    its "epochs" are those after which nets were tested, from 0. It is never the headline.

    Args:
      found: of ``train_eval.test_nets`` on ``n`` pairs.
    """
    if not planned.test_every:
        return summaries(RETRIEVAL.metrics, found)
    best = np.argmax(found[:, :, 0], axis=1)
    epochs = [epoch for epoch, _ in planned.tests(trainer.make(net, planned.recipe, n))]
    chosen = summaries(RETRIEVAL.metrics, found[np.arange(len(found)), best])
    return summaries(RETRIEVAL.metrics, found[:, -1]) | {"best": chosen | {"epochs": epochs}}


def measure_all(context: RunContext, epochs: int, session: Session, net: Net) -> dict[str, Any]:
    """Train one pair of towers on all training pairs, by the experts' keys."""
    config, train = context.config, context.data.train
    m = len(train.captions)
    inputs = {"image": train.images[None], "text": train.text[None], "of": train.image_of[None]}
    ones, none = np.ones((1, m), np.float32), np.zeros((1, m, 0), np.float32)
    recipe = Recipe(
        momentum=config.experts.momentum,
        weight_decay=config.experts.weight_decay,
        batch=config.experts.batch,
        loss="nce",
    )
    planned = train_eval.Plan(recipe.static, config.experts.lr, epochs)
    test = tester(RETRIEVAL, RETRIEVAL.problems(context.data.test))
    found = train_eval.test_nets(
        net, planned, inputs, {"w": ones, "left": none, "right": none}, test,
        config.experts.seed, "full", session, context.devices,
    )  # fmt: skip
    return {**summaries(RETRIEVAL.metrics, found), "epochs": epochs}
