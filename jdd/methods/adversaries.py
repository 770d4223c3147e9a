"""Generator and critic that are trained in turn: what the methods GAN and DiM share.

A step of the outer loop is half of the published one: even steps update the generator, odd ones the
critic, on the same batch, so that each sees the other's latest update. The gradient of the one that
waits is 0 and its optimiser is not touched.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd.data.dataset import Dataset
from jdd.generative import wgan
from jdd.methods.base import State
from jdd.nets import gan
from jdd.product.generator import GeneratorSet
from jdd.schema.gan import Gan

Tree = Any
NAMES = ("generator", "critic")  # in the order of their updates on a batch
SEEN = ("loss_generator", "loss_critic", "distance", "penalty", "class_accuracy")


class Adversaries:
    """The nets and their losses, of a dataset and the keys ``gan``."""

    def __init__(self, keys: Gan, data: Dataset):
        self.keys, self.classes = keys, data.classes
        self.mean = [float(x) for x in data.transform.mean]
        self.std = [float(x) for x in data.transform.std]
        self.shape, self.transform = data.shape, data.transform
        self.pair = gan.pair(data.shape, data.classes, keys.latent, keys.width)

    def aux(self) -> Tree:
        """Return the state apart from the weights: running statistics, and the last metrics."""
        zeros = {name: jnp.zeros(()) for name in SEEN}
        return {"stats": self.pair.stats(), "seen": zeros}

    def optimizer(self, lr: float) -> optax.GradientTransformation:
        """Return Adam for both, in turn."""
        adam = optax.adam(lr, b1=self.keys.beta1, b2=self.keys.beta2, eps=1e-8)
        return alternating(dict.fromkeys(NAMES, adam))

    def generate(
        self, params: Tree, stats: Tree, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """Return images in (-1, 1) of labels, int [n], from fresh z, and the new statistics."""
        z = jax.random.normal(key, (len(labels), self.keys.latent), _dtype(params))
        return self.pair.generate(params, stats, z, labels, True)

    def generator_half(
        self, variables: Tree, aux: Tree, real: Tree, key: jax.Array
    ) -> tuple[jax.Array, Tree, jax.Array]:
        """Return L_G for the labels of the real batch, the new ``aux``, and the images [-1, 1]."""
        labels, critic = real["labels"], jax.lax.stop_gradient(variables["critic"])
        images, stats = self.generate(variables["generator"], aux["stats"], labels, key)
        loss = wgan.generator_loss(
            wgan.CriticOutput(*self.pair.critic_output(critic, images)), labels
        )
        seen = {**aux["seen"], "loss_generator": loss}
        return loss, jax.lax.stop_gradient({"stats": stats, "seen": seen}), images

    def critic_half(
        self, variables: Tree, aux: Tree, real: Tree, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """Return L_D with its penalty, and the new ``aux``; generated classes are uniform."""
        for_labels, for_z, for_share = jax.random.split(key, 3)
        generator = jax.lax.stop_gradient(variables["generator"])
        n, params = len(real["labels"]), variables["critic"]
        wanted = jax.random.randint(for_labels, (n,), 0, self.classes)
        fake, stats = self.generate(generator, aux["stats"], wanted, for_z)
        fake = jax.lax.stop_gradient(fake)
        images = gan.in_range(real["images"], self.mean, self.std)
        of_real = wgan.CriticOutput(*self.pair.critic_output(params, images))
        of_fake = wgan.CriticOutput(*self.pair.critic_output(params, fake))
        loss, distance = wgan.critic_loss(of_fake, wanted, of_real, real["labels"])
        share = jax.random.uniform(for_share, (n,), images.dtype)
        penalty = wgan.gradient_penalty(
            lambda u: self.pair.critic_output(params, u)[0], images, fake, share
        )
        loss = loss + self.keys.penalty * penalty
        right = jnp.mean((of_real.logits.argmax(1) == real["labels"]).astype(loss.dtype))
        seen = {"loss_critic": loss, "distance": distance, "penalty": penalty}
        seen = {**aux["seen"], **seen, "class_accuracy": right}
        return loss, jax.lax.stop_gradient({"stats": stats, "seen": seen})

    def samples(self, state: State, key: jax.Array, labels: jax.Array) -> jax.Array:
        """Return images of labels, int [n], as inputs of nets, by the running statistics."""
        params = state.variables["generator"]
        z = jax.random.normal(key, (len(labels), self.keys.latent), _dtype(params))
        images, _ = self.pair.generate(params, state.aux["stats"], z, labels, False)
        return gan.normalised(images, self.mean, self.std)

    def product(
        self, variables: Tree, stats: Tree, per_class: int, recipe: dict[str, Any]
    ) -> GeneratorSet:
        """Return the generator as a product that draws ``per_class`` images of each class."""
        described = {
            "name": "acgan",
            "shape": list(self.shape),
            "classes": self.classes,
            "latent": self.keys.latent,
            "width": self.keys.width,
            "mean": self.mean,
            "std": self.std,
        }
        params = {"weights": variables["generator"], "stats": stats}
        params = jax.tree.map(np.asarray, params)
        return GeneratorSet(described, params, per_class, recipe, self.transform)


class Turns(NamedTuple):
    """State of ``alternating``: updates ``done``, and the states of the optimisers by name."""

    done: jax.Array
    states: dict[str, Tree]


def alternating(parts: dict[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """Return optimisers that take turns: update i is of part i mod n of a dict of variables alone.

    The others' variables and states stay as they are, bit for bit.
    """

    def init(variables: Tree) -> Turns:
        states = {name: one.init(variables[name]) for name, one in parts.items()}
        return Turns(jnp.zeros((), jnp.int32), states)

    def update(grads: Tree, state: Turns, variables: Tree = None) -> tuple[Tree, Turns]:
        moves, states = {}, {}
        for i, (name, one) in enumerate(parts.items()):
            move, after = one.update(grads[name], state.states[name], variables[name])
            mine = state.done % len(parts) == i
            moves[name] = jax.tree.map(lambda m, t=mine: jnp.where(t, m, jnp.zeros_like(m)), move)
            states[name] = jax.tree.map(
                lambda new, old, t=mine: jnp.where(t, new, old), after, state.states[name]
            )
        return moves, Turns(state.done + 1, states)

    return optax.GradientTransformation(init, update)


def _dtype(tree: Tree) -> Any:
    return jax.tree.leaves(tree)[0].dtype
