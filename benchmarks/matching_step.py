"""jdd's side of the benchmarks: one step of a method without a student, by the library's own code.

A ``Size`` becomes a resolved config, a method and what one step reads, on images of noise: neither
time nor memory depends on what they show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.meta_step import known, noise
from jdd import config, methods, nets, parallel
from jdd.data.dataset import Dataset, Split
from jdd.data.transform import normalisation
from jdd.methods.base import Method, Problem, net_options
from jdd.run import loop

Tree = Any
SEED = 0


class Size(NamedTuple):
    """What a step's cost depends on; ``real`` is a step's real images: of a class, or in all."""

    dataset: str = "mnist"
    width: int = 128
    ipc: int = 1
    real: int = 256


class Step(NamedTuple):
    """A method ready for one step: the loop's two programs and what they start from."""

    method: Method
    config: Any
    strategy: str
    carry: loop.Carry
    batch: Tree
    gradient: loop.Gradient
    update: Callable[..., Tree]

    def run(self) -> tuple[loop.Carry, Tree]:
        """Return the carry after the whole step, and its metrics."""
        result = self.gradient(self.carry, self.batch)
        found: tuple[loop.Carry, Tree] = self.update(self.carry, result, jnp.asarray(True))
        return found


def make(method: str, size: Size, **keys: Any) -> Step:
    """Return one step of ``method`` at ``size``; ``keys`` change its config."""
    devices = parallel.pick(1)
    about = known(size.dataset)
    values = {
        "data.name": size.dataset,
        "net.width": size.width,
        "ipc": size.ipc,
        "batch_real": size.real,
        "devices": 1,
        **keys,
    }
    resolved, _ = config.resolve(config.load(method, values).config)
    a_class = max(size.real, size.ipc)
    labels = np.repeat(np.arange(about.classes, dtype=np.int32), a_class)
    train = Split(noise((len(labels), *about.shape)), labels)
    empty = Split(train.images[:0], labels[:0])
    plain = normalisation(np.zeros(about.shape[2]), np.ones(about.shape[2]))
    names = about.class_names or tuple(str(c) for c in range(about.classes))
    data = Dataset(size.dataset, names, train, None, empty, plain, about.dsa, "noise")
    net = nets.make(resolved.net.name, about.shape, about.classes, **net_options(resolved))
    problem = Problem(data, {"student": net}, None, resolved)
    made = methods.make(resolved, problem)
    batch = jax.tree.map(jnp.asarray, problem.gather(made.sample(SEED, 0)))
    strategy = "" if method == "dc" else about.dsa
    programs = loop.make_step(made, SEED, devices)
    return Step(made, resolved, strategy, loop.start(made, SEED), batch, *programs)
