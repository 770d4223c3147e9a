"""Finished runs of pairs for tests: real pairs of the digits, with what a method would learn."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import jdd
from jdd import config as configs
from jdd.product.pairs import PairSet, Similarity
from jdd.run import pipeline

KEYS = {"pairs": 12, "text.captions": 1, "text.size": 32, "towers.size": 8, "progress": False}
CHANCE = {"recall": 0.08, "tr1": 0.02, "tr5": 0.08, "tr10": 0.15, "ir1": 0.02, "ir5": 0.08}
CHANCE["ir10"] = 0.15


@functools.cache
def chosen() -> PairSet:
    """Return twelve real pairs, each with its own caption."""
    with tempfile.TemporaryDirectory() as place:
        loaded = configs.load("random_pairs:digits_captions", KEYS)
        pipeline.run(loaded, place, "distill", None, "test")
        found = jdd.load(f"{place}/distilled.npz")
    assert isinstance(found, PairSet)
    return found


def learned(loss: str = "wbce", rank: int = 2, **entries: Any) -> PairSet:
    """Return pairs with learned rates and, for a rank above -1, learned similarities."""
    pairs, draw = chosen(), np.random.default_rng(0)
    recipe = {name: value for name, value in pairs.recipe.items() if name != "selected"}
    recipe |= {"method": "my_method", "steps": 100, **entries}
    drop = recipe["train"]["drop"] | {"after_epoch": 40}
    recipe["train"] = recipe["train"] | {"loss": loss, "lr": None, "drop": drop}
    recipe["train"] |= {"epochs": 75, "passes": 76}
    similarity = None
    if rank >= 0:
        w = np.linspace(0.8, 1.2, pairs.size).astype(np.float32)
        left, right = draw.normal(size=(2, pairs.size, rank)).astype(np.float32)
        similarity = Similarity(w, left, 0.1 * right, 1.5)
    return pairs._replace(recipe=recipe, rates={"image": 0.1, "text": 0.2}, similarity=similarity)


def score(mean: float, **more: Any) -> dict[str, Any]:
    """Return a result's entry: the mean recall of three nets, and the six recalls."""

    def one(value: float) -> dict[str, Any]:
        values = [value - 0.01, value, value + 0.01]
        return {"mean": value, "std": 0.0082, "n": 3, "values": values}

    six = {name: one(mean * factor) for name, factor in
           zip(("tr1", "tr5", "tr10", "ir1", "ir5", "ir10"), (0.5, 1, 1.5, 0.4, 1, 1.6),
               strict=True)}  # fmt: skip
    return {**one(mean), **six, **more}


def finished(place: Path, pairs: PairSet, mean: float = 0.4, **more: Any) -> Path:
    """Write a finished run of ``pairs`` whose towers reach a mean recall of ``mean``."""
    place.mkdir(exist_ok=True)
    pairs.save(place / "distilled.npz")
    result = {
        "method": pairs.recipe["method"], "dataset": "digits_captions", "ipc": 0, "seed": 0,
        "accuracy": {}, "task": "retrieval", "primary": "recall", "pairs": pairs.size,
        "metrics": {"MLP": score(mean)}, "candidates": {"images": 355, "captions": 1775},
        "chance": CHANCE, "steps": 100,
        "baselines": {"random": score(0.2, net="MLP"), "full": score(0.6, net="MLP", epochs=50)},
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"stage": "distill", "step": step, "loss": 2 / (1 + step),
         "lr_image": 0.1 + step * 1e-3, "lr_text": 0.1 + step * 2e-3}
        for step in range(0, 100, 5)
    ]  # fmt: skip
    rows += [
        {"stage": "curve", "step": step, "net": "MLP", "recall": recall, "std": 0.01, "n": 2}
        for step, recall in ((0, 0.2), (50, 0.3), (100, mean))
    ]
    lines = "".join(json.dumps(row | {"seconds": 1.0}) + "\n" for row in rows)
    (place / "metrics.jsonl").write_text(lines)
    (place / "result.json").write_text(json.dumps(result | more))
    (place / "config.json").write_text(json.dumps({"lr_img": 100.0, "steps": 100}))
    return place
