"""One MTT outer step at the published size, for the memory and time benchmarks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdd import nets
from jdd.augment import dsa
from jdd.inner import optim, unroll
from jdd.matching.losses import cross_entropy
from jdd.matching.trajectory import trajectory_distance

STRATEGY = "color_crop_cutout_flip_scale_rotate"


def meta_gradient(how: str, steps: int, width: int = 128, ipc: int = 1, dsa_on: bool = True) -> Any:
    """Return the jitted gradient of MTT's loss (images, rate) and its arguments.

    ConvNet of depth 3, 32x32x3, 10 classes: the published CIFAR-10 setting.
    """
    net = nets.make("ConvNet", (32, 32, 3), 10, width=width)
    start = net.init(jax.random.key(0))["params"]
    target = net.init(jax.random.key(1))["params"]
    images = jax.random.normal(jax.random.key(2), (10 * ipc, 32, 32, 3))
    labels = jax.nn.one_hot(jnp.repeat(jnp.arange(10), ipc), 10)

    def inner(theta: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        x = dsa.dsa(key, x, STRATEGY if dsa_on else "none")
        return cross_entropy(net.apply({"params": theta}, x, train=True).logits, labels)

    def loss(x: jax.Array, lr: jax.Array, start: Any, target: Any, key: jax.Array) -> jax.Array:
        rates = {"lr": jnp.broadcast_to(lr, (steps,))}
        keys = jax.random.split(key, steps)
        student = unroll.unroll(inner, optim.sgd(), start, rates, x, keys, how)
        return trajectory_distance(student, target, start)

    args = (images, jnp.float32(0.01), start, target, jax.random.key(3))
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))), args
