"""MTT's loss and meta-gradients are those of plain back-propagation in PyTorch (stored)."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config, methods, nets
from jdd.augment import dsa
from jdd.data.dataset import Dataset, Split
from jdd.data.transform import normalisation
from jdd.matching.losses import cross_entropy
from jdd.matching.trajectory import trajectory_distance
from jdd.meta import unroll
from jdd.methods.base import Problem
from jdd.training import optimisers

STRATEGY = "_".join(dsa.OPS)
SHAPE, CLASSES = (16, 16, 3), 5


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "mtt.npz") as file:
        return {name: file[name] for name in file.files}


def net():
    return nets.make("ConvNet", SHAPE, CLASSES, width=8, depth=3)


def tree(golden, end):
    params = {}
    for name, value in golden.items():
        if name.startswith(f"{end}/"):
            _, layer, leaf = name.split("/")
            params.setdefault(layer, {})[leaf] = jnp.asarray(value)
    return params


def agree(golden, loss, d_images, d_rate):
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
    np.testing.assert_allclose(d_rate, golden["grad_rate"], rtol=1e-4)
    apart = np.linalg.norm(d_images - golden["grad_images"]) / np.linalg.norm(golden["grad_images"])
    assert apart < 1e-4


def test_all_operations_take_part(golden):
    assert set(golden["ops"]) == set(range(len(dsa.OPS)))


def test_unroll_agrees_with_given_augmentations(golden):
    onehot = jax.nn.one_hot(golden["labels"], CLASSES)
    branches = (
        lambda x, p: dsa.color(x, *p),
        lambda x, p: dsa.crop(x, *p[:2].astype(jnp.int32)),
        lambda x, p: dsa.cutout(x, *p[:2].astype(jnp.int32)),
        lambda x, p: dsa.flip(x, p[0] > 0),
        lambda x, p: dsa.scale(x, *p[:2]),
        lambda x, p: dsa.rotate(x, p[0]),
    )

    def inner(theta, images, step):
        x = jax.lax.switch(step["op"], branches, images, step["parameters"])
        return cross_entropy(net().apply({"params": theta}, x, train=True).logits, onehot)

    fixed = {"op": jnp.asarray(golden["ops"]), "parameters": jnp.asarray(golden["parameters"])}
    start, target = tree(golden, "start"), tree(golden, "target")

    def loss(images, rate):
        rates = {"lr": jnp.broadcast_to(rate, (len(golden["ops"]),))}
        student = unroll.unroll(inner, optimisers.sgd(), start, rates, images, fixed)
        return trajectory_distance(student, target, start)

    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(golden["images"], golden["rate"])
    agree(golden, value, *grads)


def test_objective_agrees_with_what_its_key_draws(golden):
    keys = {
        "data.name": "golden",
        "data.path": "golden.npz",
        "data.dsa": STRATEGY,
        "ipc": 2,
        "syn_steps": len(golden["ops"]),
        "pix_init": "noise",
    }
    resolved, _ = config.resolve(config.load("mtt", keys).config)
    empty = Split(np.zeros((0, *SHAPE), np.float32), np.zeros(0, np.int32))
    names = tuple("abcde")
    plain = normalisation(np.zeros(3), np.ones(3))
    data = Dataset("golden", names, empty, None, empty, plain, STRATEGY, "golden")
    method = methods.make(resolved, Problem(data, {"student": net()}, None, resolved))
    variables = {"images": jnp.asarray(golden["images"]), "lr": jnp.asarray(golden["rate"])}
    item = {end: {"params": tree(golden, end)} for end in ("start", "target")}
    key = jax.random.key(int(golden["seed"]))
    step = jax.jit(jax.value_and_grad(lambda v: method.objective(v, {}, item, key)[0]))
    value, grads = step(variables)
    agree(golden, value, grads["images"], grads["lr"])
