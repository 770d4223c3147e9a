"""A Gaussian of each class as a generator: the simplest product that is fresh every epoch.

With m_c the mean of class c's n_c training images and U S V^T the singular value decomposition of
their differences from it,

    x = m_c + sum_k z_k s_k v_k / sqrt(n_c),   z ~ N(0, I),   k = 1 .. r

``per_class`` images of each class are drawn for every epoch of a student. The mean and r = ipc - 1
directions of a class take the bytes of ipc images, so that ``ipc`` random real images a class, the
baseline, are as large.

Differs from the authors' code: there is none to differ from. It is what a trained generator is held
to.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jdd.data import class_indices
from jdd.methods.base import Method, Problem, State, recipe
from jdd.product.generator import GeneratorSet
from jdd.specs.gaussian import Config


def make(config: Config, problem: Problem) -> Method:
    """Build the generator for a resolved config and its problem; there are no steps."""
    data, latent = problem.data, config.ipc - 1

    def init(seed: int) -> State:
        del seed  # the fit is the same for every seed; students draw their own images
        mean, factors = fit(data.train.images, data.train.labels, data.classes, latent)
        return State({"mean": jnp.asarray(mean), "factors": jnp.asarray(factors)}, {})

    def sample(seed: int, step: int) -> dict[str, Any]:
        raise ValueError("a fitted Gaussian has no steps")

    def product(state: State, steps: int) -> GeneratorSet:
        described = {
            "name": "gaussian",
            "shape": list(data.shape),
            "classes": data.classes,
            "latent": latent,
        }
        params = {name: np.asarray(a) for name, a in state.variables.items()}
        found = recipe(problem, steps, lr=config.eval.lr)
        return GeneratorSet(described, params, config.per_class, found, data.transform)

    return Method(init, sample, None, product, optax.identity())


def fit(
    images: np.ndarray, labels: np.ndarray, classes: int, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return means ``[classes, d]`` and factors ``[classes, rank, d]``, float32.

    A class of fewer images than directions has zeros for the rest.

    Args:
      images: ``[n, h, w, c]``, d = h w c.
      labels: int ``[n]``.
    """
    size = int(np.prod(images.shape[1:]))
    mean = np.zeros((classes, size), np.float32)
    factors = np.zeros((classes, rank, size), np.float32)
    for c, group in enumerate(class_indices(labels, classes)):
        rows = np.asarray(images[group], np.float64).reshape(len(group), size)
        mean[c] = rows.mean(axis=0)
        _, s, v = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        found = (s[:rank, None] * v[:rank]) / np.sqrt(len(group))
        # A singular vector has no sign of its own: its largest entry is made positive.
        largest = np.take_along_axis(v[:rank], np.abs(v[:rank]).argmax(1)[:, None], 1)
        factors[c, : len(found)] = found * np.sign(largest)
    return mean, factors
