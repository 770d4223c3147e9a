"""Pretrained weights of the image tower count by content in runs and in saved sets."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

import jdd
from jdd import config as configs
from jdd import nets
from jdd.errors import BadInput
from jdd.pretrained import imported
from jdd.run import external_products, pipeline
from jdd.run.retriever import retriever
from jdd.stages import distill, evaluate
from jdd.storage import tensors

VIT = {"net.width": 8, "net.depth": 1, "net.heads": 2, "net.patch": 4}
KEYS = VIT | {
    "net.name": "ViT", "nets": "ViT", "pairs": 4, "text.captions": 1, "text.size": 16,
    "towers.size": 4, "progress": False, "baselines.full": False,
}  # fmt: skip


def written(path, seed):
    image = nets.make("ViT", (8, 8, 1), 4, width=8, depth=1, heads=2, patch=4)
    names, head = imported._expected(image)
    draw = np.random.default_rng(seed)
    save_file(
        {n: draw.normal(size=v[1]).astype(np.float32) for n, v in names.items() if n not in head},
        path,
    )
    return str(path)


def loaded(path):
    return configs.load("random_pairs:digits_captions", KEYS | {"towers.weights": path})


def test_weights_may_move_but_not_change(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path, place = tmp_path / "vit.safetensors", tmp_path / "run"
    written(path, 0)
    pipeline.run(loaded("~/vit.safetensors"), str(place), "distill", None, "test")
    made = jdd.load(place / "distilled.npz")
    assert made.recipe["weights_digest"] == tensors.digest(path)

    moved = path.rename(tmp_path / "moved.safetensors")
    config = configs.resolve(loaded(str(moved)).config)[0]
    context = pipeline.prepare(config, place, "test")
    assert distill._finished(context, 0)
    first = evaluate.settings(context)["weights"]
    with pytest.raises(BadInput, match="vit.safetensors does not exist; the file of the set"):
        external_products.prepare(made, configs.load("random_pairs", {}), tmp_path / "e")

    written(moved, 1)
    with pytest.raises(BadInput, match="config.towers.weights: other weights than those that"):
        pipeline.run(loaded(str(moved)), str(place), "evaluate", None, "test")
    written(path, 1)
    for refused in (
        lambda: external_products.prepare(made, configs.load("random_pairs", {}), tmp_path / "e"),
        lambda: retriever(made),
    ):
        with pytest.raises(BadInput, match=r"config.towers.weights: ~/vit.safetensors has digest"):
            refused()
    other = configs.load("random_pairs", {"towers.weights": str(moved)})
    other = other._replace(explicit={"towers.weights"})
    ready = external_products.prepare(made, other, tmp_path / "e")
    assert ready.config.towers.weights == str(moved) and first == made.recipe["weights_digest"]
