"""jdd's side of the benchmarks: one outer step of trajectory matching, by the library's own code.

A ``Size`` becomes a resolved config, a method and what one step reads. Images are noise and the
expert's two snapshots are fresh nets: neither time nor memory depends on what they show.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd import config, methods, nets
from jdd.data import catalogue
from jdd.data.dataset import Dataset, Split
from jdd.data.transform import normalisation
from jdd.methods.base import Problem, net_options
from jdd.nets import Net
from jdd.parallel import MeanGradient, pick, temporaries

Tree = Any
RATE = 0.001


def known(dataset: str) -> catalogue.Facts:
    """Return the facts of a dataset that has some."""
    found = catalogue.lookup(dataset)
    if found is None:
        raise ValueError(f"no facts about {dataset!r}")
    return found


class Size(NamedTuple):
    """What a step's cost depends on; ``steps`` is N, the student's."""

    dataset: str = "cifar10"
    width: int = 128
    ipc: int = 1
    steps: int = 50

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image."""
        return known(self.dataset).shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return known(self.dataset).classes

    @property
    def images(self) -> int:
        """Number of synthetic images."""
        return self.ipc * self.classes


class Step(NamedTuple):
    """A method ready for one step: ``gradient(variables, aux, batch, keys)`` and its arguments."""

    method: Any
    net: Net
    strategy: str
    variables: Tree
    batch: Tree
    labels: np.ndarray

    def gradient(self, segments: int = 1) -> tuple[MeanGradient, tuple[Tree, ...]]:
        """Return what the loop compiles for a step on one device, and its arguments."""
        keys = jax.random.split(jax.random.key(7), segments)
        batch = jax.tree.map(lambda x: jnp.repeat(x, segments, axis=0), self.batch)
        return MeanGradient(self.method.objective, pick(1)), (
            self.variables,
            {},
            batch,
            keys,
        )

    def planned(self) -> int:
        """Return XLA's temporaries in bytes for the step's gradient; nothing is run."""
        item = jax.tree.map(lambda x: x[0], self.batch)
        step = jax.jit(jax.value_and_grad(self.method.objective, has_aux=True))
        return temporaries(step.lower(self.variables, {}, item, jax.random.key(7)).compile())


def net_of(size: Size) -> Net:
    """Return the published ConvNet for a size."""
    return nets.make("ConvNet", size.shape, size.classes, width=size.width)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def make(size: Size, **keys: Any) -> Step:
    """Return one step of MTT at ``size``; ``keys`` change its config (estimator, unroll)."""
    about = known(size.dataset)
    values = {
        "data.name": size.dataset,
        "net.width": size.width,
        "ipc": size.ipc,
        "syn_steps": size.steps,
        "lr_student": RATE,
        "pix_init": "noise",
        "batch_syn": 0,
        "devices": 1,
        **keys,
    }
    resolved, _ = config.resolve(config.load("mtt", values).config)
    empty = Split(np.zeros((0, *size.shape), np.float32), np.zeros(0, np.int32))
    plain = normalisation(np.zeros(size.shape[2]), np.ones(size.shape[2]))
    data = Dataset(size.dataset, about.class_names, empty, None, empty, plain, about.dsa, "noise")
    net = nets.make("ConvNet", size.shape, size.classes, **net_options(resolved))
    method = methods.make(resolved, Problem(data, {"student": net}, None, resolved))
    start, target = net.init(jax.random.key(0)), net.init(jax.random.key(1))
    # Snapshots of one trajectory lie close together; the distance is a few steps' worth.
    target = jax.tree.map(lambda a, b: a + 0.1 * (b - a), start, target)
    batch = jax.tree.map(lambda x: x[None], {"start": start, "target": target})
    labels = np.repeat(np.arange(size.classes, dtype=np.int32), size.ipc)
    return Step(method, net, about.dsa, method.init(0).variables, batch, labels)
