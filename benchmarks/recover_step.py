"""jdd's side of the recovery benchmark: one step of SRe2L, by the library's own code.

The teacher is a fresh net whose batch norms were given scales, offsets and statistics that differ,
and the images are noise: neither time nor memory depends on what they show.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.matching_step import SEED, Step
from benchmarks.meta_step import known, noise
from jdd import config, methods, nets, parallel
from jdd.data.dataset import Dataset, Split
from jdd.data.transform import Transform, normalisation
from jdd.methods.base import Problem, net_options
from jdd.pretrained.teachers import teachers
from jdd.run import loop

Tree = Any


class Size(NamedTuple):
    """What a step's cost depends on; ``batch`` is the images of one batch, ``at_once`` how many
    batches are in work (0: one a core of a CPU, one a GPU).
    """

    net: str = "ConvNetBN"
    width: int = 64
    batch: int = 100
    at_once: int = 0
    dataset: str = "cifar100"


def make(size: Size, dtype: Any = jnp.float32, **keys: Any) -> Step:
    """Return one step of the first part of a set, of ``size.at_once`` batches.

    Args:
      dtype: of images and teacher; float64 inside ``jax.enable_x64(True)``.
      keys: change the config of ``configs/sre2l.py``.
    """
    devices = parallel.pick(1)
    about = known(size.dataset)
    values = {
        "data.name": size.dataset,
        "net.name": size.net,
        "nets": (size.net,),
        "net.width": size.width,
        "squeeze.nets": (size.net,),
        "squeeze.width": size.width,
        "ipc": max(1, size.at_once or parallel.threads(1 << 10)),
        "image_batch": size.batch,
        "batches_at_once": size.at_once,
        "devices": 1,
        **keys,
    }
    resolved, _ = config.resolve(config.load("sre2l", values).config)
    empty = Split(noise((0, *about.shape)), np.zeros(0, np.int32))
    plain, names = transform(size.dataset), about.class_names
    data = Dataset(size.dataset, names, empty, None, empty, plain, about.dsa, "noise")
    net = nets.make(resolved.net.name, about.shape, about.classes, **net_options(resolved))
    problem = Problem(data, {"student": net}, None, resolved, teachers(resolved, data, None))
    method = methods.make(resolved, problem, methods.parts(resolved, problem)[0])
    teacher = lived(method.constants["teacher"])
    method = method._replace(constants={"teacher": cast(teacher, dtype)})
    carry = cast(loop.start(method, SEED), dtype)
    batch = jax.tree.map(jnp.asarray, problem.gather(method.sample(SEED, 0)))
    return Step(method, resolved, "", carry, batch, *loop.make_step(method, SEED, devices))


def transform(dataset: str) -> Transform:
    """Return how a dataset is normalised: images are held to its black and white."""
    about = known(dataset)
    return normalisation(np.asarray(about.mean), np.asarray(about.std))


def lived(variables: Tree) -> Tree:
    """Return a fresh net's variables with batch norms that are not each other's copies."""
    draw = np.random.default_rng(SEED)

    def value(path: Any, leaf: Any) -> Any:
        name, layer = (str(key.key) for key in (path[-1], path[-2]))
        if "norm" not in layer:
            return leaf
        spread = draw.uniform(-0.5, 0.5, leaf.shape).astype(np.float32)
        return np.asarray(leaf) * (1 + spread) if name in ("scale", "var") else leaf + spread

    return jax.tree_util.tree_map_with_path(value, variables)


def double(step: Step) -> Step:
    """Return what a step reads in float64, to be read and not to be run."""
    teacher = {"teacher": cast(step.method.constants["teacher"], jnp.float64)}
    method = step.method._replace(constants=teacher)
    return step._replace(method=method, carry=cast(step.carry, jnp.float64))


def cast(tree: Tree, dtype: Any) -> Tree:
    """Return a tree with its floating arrays in ``dtype``."""

    def one(x: Any) -> Any:
        return jnp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(one, tree)
