"""jdd's side of the benchmarks of pairs: one outer step of VL or LoRS, by the library's own code.

Images, text vectors and the expert's snapshots are noise and fresh nets: neither time nor memory
depends on what they show.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.meta_step import noise
from jdd import config, methods
from jdd.data.pairs import PairDataset, PairSplit
from jdd.data.transform import normalisation
from jdd.methods.base import Method, Problem, net_options
from jdd.nets.towers import two_towers
from jdd.parallel import MeanGradient, pick, temporaries
from jdd.parallel.devices import compiled
from jdd.specs.vl import Config as VL

Tree = Any


class Size(NamedTuple):
    """What a step's cost depends on; ``side``: pixels of an image; ``steps``: the student's."""

    method: str = "lors"
    net: str = "NFResNet"
    width: int = 64
    depth: int = 18
    side: int = 64
    pairs: int = 100
    steps: int = 8
    text: int = 256
    embedding: int = 64


class Step(NamedTuple):
    """A method ready for one step: ``gradient(*args)``, and what its arguments are made of."""

    method: Method
    config: VL
    variables: Tree
    batch: Tree

    def gradient(self) -> tuple[MeanGradient, tuple[Tree, ...]]:
        """Return what the loop compiles for a step on one device, and its arguments."""
        keys = jax.random.split(jax.random.key(7), 1)
        return MeanGradient(self.method.objective, pick(1)), (self.variables, {}, self.batch, keys)

    def planned(self) -> int:
        """Return XLA's temporaries in bytes for the step's gradient, compiled as the loop does.

        Nothing is run, and no array of the step's size is allocated.
        """
        item = jax.tree.map(lambda x: x[0], self.batch)
        step = jax.jit(jax.value_and_grad(self.method.objective, has_aux=True))
        return temporaries(compiled(step.lower(self.variables, {}, item, jax.random.key(7))))

    @property
    def parameters(self) -> int:
        """The bytes of one copy of both towers' weights, in float32."""
        return 4 * sum(x[0].size for x in jax.tree.leaves(self.batch["start"]["params"]))


def make(size: Size, **keys: Any) -> Step:
    """Return one step at ``size``; ``keys`` change its config (unroll, loss, estimator)."""
    values = {
        "pairs": size.pairs,
        "syn_steps": size.steps,
        "net.name": size.net,
        "net.width": size.width,
        "net.depth": size.depth,
        "text.size": size.text,
        "towers.size": size.embedding,
        "devices": 1,
        **keys,
    }
    resolved, _ = config.resolve(config.load(f"{size.method}:digits_captions", values).config)
    shape = (size.side, size.side, 3)
    net = two_towers(
        size.net, shape, size.text, size.embedding, tuple(sorted(net_options(resolved).items())),
        resolved.towers.tau,
    )  # fmt: skip
    method = methods.make(resolved, Problem(_data(size), {"student": net}, None, resolved))
    start, target = net.init(jax.random.key(0)), net.init(jax.random.key(1))
    # Snapshots of one trajectory lie close together; the distance is a few steps' worth.
    target = jax.tree.map(lambda a, b: a + 0.1 * (b - a), start, target)
    batch = jax.tree.map(lambda x: x[None], {"start": start, "target": target})
    return Step(method, cast(VL, resolved), _moved(method.init(0).variables), batch)


def _data(size: Size) -> PairDataset:
    """Return as many pairs of noise as are distilled, each image with one caption."""
    n = size.pairs
    images = noise((n, size.side, size.side, 3))
    text = noise((n, size.text), 1) / np.sqrt(np.float32(size.text))
    each = np.arange(n, dtype=np.int32)
    split = PairSplit(images, tuple(f"caption {i}" for i in range(n)), text, each, each)
    plain = normalisation(np.zeros(3), np.ones(3))
    return PairDataset("noise", split, None, split, plain, "none", "noise")


def _moved(variables: Tree) -> Tree:
    """Move what starts at zero, so that no derivative is zero by itself."""
    if "similarity" not in variables:
        return variables
    s = variables["similarity"]
    right = 0.1 * jnp.asarray(noise(s["right"].shape, 2))
    return variables | {"similarity": s | {"right": right}}
