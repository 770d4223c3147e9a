"""DATM: matching trajectories of the right difficulty (Guo et al., ICLR 2024).

MTT's loss on flat experts (as FTD's), with three changes:

  window  the start epoch is t ~ U{T- .. U - 1}; U grows linearly from ``current_max_start_epoch``
          to T+ over the first ``expansion_end`` steps, or is T+ from the start: early epochs hold
          easy patterns, late ones hard patterns, which only larger sets have room for;
  labels  z of the set are learned: logits, l is cross-entropy with softmax(z),
          z <- SGD(label_momentum) step of rate lr_y with dL/dz;
  start   images are real ones that a fully trained expert classifies correctly, and z is the mean
          logits of the fully trained experts that do.

A step whose loss is above ``threshold`` is skipped.

Differs from the authors' code: what MTT's differs in (``methods/mtt.py``); a class in which the
experts together classify fewer images right than are needed is filled with those of highest mean
log-probability, labelled by the mean over all experts (``correct_rows``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jdd import rng
from jdd.data import Dataset, class_indices, draw_per_class
from jdd.evaluation.accuracy import BATCH
from jdd.evaluation.predict import outputs
from jdd.methods import initial_set, mtt
from jdd.methods.base import Method, Problem, noised
from jdd.specs.datm import Config

# (expert, images [n, ...]) -> logits [n, classes]
Logits = Callable[[int, np.ndarray], np.ndarray]


def start_epochs(config: Config, step: int) -> tuple[int, int]:
    """Return ``(low, high)``: the start epochs of a step are low .. high - 1."""
    low, high = config.min_start_epoch, config.max_start_epoch
    first, end = config.current_max_start_epoch, config.expansion_end
    if first and step < end:
        high = first + (high - first) * step // end
    return low, high


def final_logits(problem: Problem) -> Logits:
    """Return the experts at their last epoch, as a function from images to logits."""
    net, epoch = problem.nets["student"], problem.config.experts.epochs
    store = problem.experts
    assert store is not None

    def logits(expert: int, images: np.ndarray) -> np.ndarray:
        return outputs(net, store.read(expert, epoch), images).logits

    return logits


def correct_rows(
    draw: np.random.Generator, logits: Logits, data: Dataset, ipc: int, experts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose ``ipc`` images of each class that an expert classifies correctly.

    Images of a class are visited in random order, those of the first expert before those of the
    second, and so on. If all experts together have too few, the rest is taken by mean
    log-probability.

    Returns:
      Rows of ``data.train`` [classes * ipc], class-major, and the number taken by log-probability
      per class.
    """
    images = data.train.images
    chosen, filled = [], np.zeros(data.classes, int)
    for c, group in enumerate(class_indices(data.train.labels, data.classes)):
        order, rows = draw.permutation(group), np.zeros(0, int)
        score = np.zeros(len(order))
        for expert in range(experts):
            for lo in range(0, len(order), BATCH):
                part = order[lo : lo + BATCH]
                z = logits(expert, images[part])
                score[lo : lo + BATCH] += z[:, c] - np.logaddexp.reduce(z, axis=1)
                right = part[np.argmax(z, axis=1) == c]
                rows = np.concatenate([rows, right[~np.isin(right, rows)]])
                if len(rows) >= ipc:
                    break
            if len(rows) >= ipc:
                break
        filled[c] = max(0, min(ipc, len(group)) - len(rows))
        ranked = order[np.argsort(-score, kind="stable")]
        rows = np.concatenate([rows, ranked[~np.isin(ranked, rows)]])
        chosen.append(np.resize(rows, ipc))  # a class of fewer images repeats them
    return np.concatenate(chosen), filled


def mean_logits(logits: Logits, images: np.ndarray, hard: np.ndarray, experts: int) -> np.ndarray:
    """Return each image's mean logits over the experts that classify it correctly, else over all.

    Args:
      images: ``[n, h, w, c]``.
      hard: their classes ``[n]``.
    """
    count = np.zeros((len(hard), 1))
    right_sum: Any = 0.0
    all_sum: Any = 0.0
    for expert in range(experts):
        z = np.asarray(logits(expert, images), np.float64)
        right = (np.argmax(z, axis=1) == hard)[:, None]
        right_sum, all_sum, count = right_sum + right * z, all_sum + z, count + right
    return np.where(count > 0, right_sum / np.maximum(count, 1), all_sum / experts)


def first_set(config: Config, problem: Problem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images and logits of step 0, class-major.

    Raises:
      BadInput: a class has fewer than IPC images, and ``config.ipc_short`` is "refuse".
    """
    data, ipc, experts = problem.data, config.ipc, config.experts.count
    logits, train = final_logits(problem), data.train
    draw = rng.host(seed, "datm/init")
    rows = draw_per_class(draw, train.labels, data.classes, ipc, config.ipc_short)
    # Untrained nets classify few images correctly, and all would be searched.
    assert problem.experts is not None
    if (images := initial_set.read(config, data)) is not None:
        hard = np.repeat(np.arange(data.classes), ipc)
        if not problem.experts.trained:
            return images, logits(0, images)
        return images, mean_logits(logits, images, hard, experts)
    if config.pix_init == "real" or not problem.experts.trained:
        images = noised(problem, train.images[rows], seed, "datm/init")
        return images, logits(0, images)
    draw = rng.host(seed, "datm/correct")
    rows, filled = correct_rows(draw, logits, data, ipc, experts)
    if filled.any() and config.progress:
        counts = ", ".join(f"{data.class_names[c]}: {filled[c]}" for c in np.flatnonzero(filled))
        print(
            f"start: the experts classify too few images right; taken though wrong: {counts}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    images = noised(problem, train.images[rows], seed, "datm/correct")
    return images, mean_logits(logits, images, train.labels[rows], experts)


def make(config: Config, problem: Problem) -> Method:
    """Build DATM for a resolved config and its problem."""
    most = config.threshold
    vary = mtt.Variation(
        start=lambda seed: first_set(config, problem, seed),
        label_kind="logits",
        label_rate=(config.lr_y, config.label_momentum),
        epochs=lambda step: start_epochs(config, step),
        most=most if most > 0 else None,
    )
    return mtt.build(config, problem, vary)
