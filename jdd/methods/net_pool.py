"""Nets of different architectures of which one is in use, as one array of fixed length.

The variables and optimiser state of the net in use are one vector, padded to the longest net's: the
outer loop's state, and its compiled step, are the same whichever net is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdd.nets import Net
from jdd.training import optimisers

Tree = Any


class NetPool:
    """The nets, the SGD that trains them, and the vector that holds the one in use.

    Args:
      members: the nets.
      lr, momentum, weight_decay: of SGD, v <- m v + g + wd w, w <- w - lr v.
    """

    def __init__(self, members: Sequence[Net], lr: float, momentum: float, weight_decay: float):
        self.members, self.lr = list(members), lr
        self._sgd = optimisers.make("momentum", momentum, weight_decay)
        key = jax.eval_shape(jax.random.key, 0)
        self._like = [jax.eval_shape(lambda k, n=net: self._fresh(n, k), key) for net in members]
        self.size = max(sum(map(_size, jax.tree.leaves(like))) for like in self._like)

    def _fresh(self, net: Net, key: jax.Array) -> Tree:
        variables = net.init(key)
        return {"variables": variables, "sgd": self._sgd.init(variables["params"])}

    def use(
        self,
        which: jax.Array,
        vector: jax.Array,
        fresh: jax.Array,
        key: jax.Array,
        fn: Callable[[Net, Tree], tuple[Tree, Tree]],
    ) -> tuple[jax.Array, Tree]:
        """Return ``fn`` of the net in use: the new vector, and the result.

        Args:
          which: the net's index, int scalar.
          vector: its variables and optimiser state, ``[size]``.
          fresh: whether they start anew, from ``key``.
          fn: ``(net, held) -> (held, result)``, with results of one shape for all nets.
        """

        def branch(net: Net, like: Tree) -> Callable[[], tuple[jax.Array, Tree]]:
            def run() -> tuple[jax.Array, Tree]:
                held = _unpacked(vector, like)
                held = jax.tree.map(
                    lambda new, old: jnp.where(fresh, new.astype(old.dtype), old),
                    self._fresh(net, key), held,
                )  # fmt: skip
                held, result = fn(net, held)
                return _packed(held, self.size), result

            return run

        branches = [branch(*one) for one in zip(self.members, self._like, strict=True)]
        found: tuple[jax.Array, Tree] = jax.lax.switch(which, branches)
        return found

    def trained(
        self,
        net: Net,
        held: Tree,
        images: jax.Array,
        labels: jax.Array,
        augment: Callable[[jax.Array, jax.Array], jax.Array],
        key: jax.Array,
    ) -> Tree:
        """Return the net after a step of SGD on each batch, with the mean cross entropy.

        Args:
          images: [steps, b, h, w, c].
          labels: int [steps, b].
          augment: ``(key, images) -> images``, of a batch.
        """

        def step(i: jax.Array, held: Tree) -> Tree:
            variables = held["variables"]
            shown = augment(jax.random.fold_in(key, i), images[i])

            def loss(params: Tree) -> tuple[jax.Array, Tree]:
                out = net.apply({**variables, "params": params}, shown, train=True)
                own = jnp.take_along_axis(jax.nn.log_softmax(out.logits), labels[i][:, None], 1)
                return -jnp.mean(own), out.stats

            grads, stats = jax.grad(loss, has_aux=True)(variables["params"])
            rate = {"lr": jnp.asarray(self.lr, shown.dtype)}
            params, sgd = self._sgd.update(grads, held["sgd"], variables["params"], rate)
            after = {**variables, "params": params} | ({"batch_stats": stats} if stats else {})
            return {"variables": after, "sgd": sgd}

        done: Tree = jax.lax.fori_loop(0, len(images), step, held)
        return done


def _size(leaf: Any) -> int:
    return math.prod(leaf.shape)


def _packed(tree: Tree, size: int) -> jax.Array:
    """Return the leaves as one vector, padded with zeros to ``size``."""
    joined = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    return jnp.pad(joined, (0, size - len(joined)))


def _unpacked(vector: jax.Array, like: Tree) -> Tree:
    """Return the tree whose leaves are the first entries of ``vector``."""
    leaves, structure = jax.tree.flatten(like)
    found, used = [], 0
    for leaf in leaves:
        found.append(vector[used : used + _size(leaf)].reshape(leaf.shape))
        used += _size(leaf)
    return jax.tree.unflatten(structure, found)
