"""The recipe of sets whose labels come after their images: squeezed, recovered, relabelled."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdd.augment import views
from jdd.distilled import DistilledSet
from jdd.methods.base import Problem, recipe


def dataset(problem: Problem, images: np.ndarray, steps: int, **more: Any) -> DistilledSet:
    """Return a class-major set with the classes as its labels, until its views are labelled."""
    config, data = problem.config, problem.data
    labels = np.repeat(np.arange(data.classes, dtype=np.int32), int(config.ipc))
    said = recipe(problem, steps, **training(config)) | more
    said["augment"] = {"name": "none", "strategy": "", "align_corners": False}  # views say it all
    said["labels"] = {
        "kind": "stored",
        "store": "labels/set",
        "form": str(config.relabel.form),
        "k": int(config.relabel.k),
        "teachers": [teacher.word for teacher in problem.teachers],
    }
    return DistilledSet(images, labels, "hard", None, said, data.transform)


def training(config: Any) -> dict[str, Any]:
    """Return how a student is trained, as the recipe has it."""
    post, epochs = config.post, int(config.eval.epochs)
    return {
        "optimizer": str(post.optimizer),
        "lr": float(config.eval.lr),
        "momentum": float(post.momentum),
        "weight_decay": float(post.weight_decay),
        "decay": str(post.decay),
        "epochs": epochs,
        "passes": epochs,
        "drop": None,
        "schedule": {
            "kind": "cosine", "stretch": float(post.stretch), "warmup": int(post.warmup),
        },
        "loss": str(post.loss),
        "temperature": float(post.temperature),
        "ce_weight": float(post.ce_weight),
        "order": "stored",
    }  # fmt: skip


def spec(config: Any, shape: tuple[int, ...]) -> views.Spec:
    """Return the views that the teachers label and the students see: each image has its own.

    A padded crop shifts by an eighth of the side: 4 pixels of 32, 8 of 64.
    """
    relabel = config.relabel
    return views.Spec(
        crop=str(relabel.crop),
        scale=(float(relabel.min_scale), 1.0),
        pad=max(1, shape[0] // 8),
        flip=float(relabel.flip),
        shuffle=int(relabel.shuffle),
        own_shuffle=True,
        mix=str(relabel.mix),
        alpha=float(relabel.alpha),
    )
