"""Inner optimisers: pure updates, differentiable including their state.

Notation: theta weights, g inner gradient, alpha learning rate (``hyper['lr']``, a scalar), s the
optimiser's state, wd weight decay as in PyTorch: g is replaced by g + wd theta.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jdd.errors import BadInput

Tree = Any


class InnerOptimizer(NamedTuple):
    """An inner optimiser as data.

    ``init(theta) -> s``; ``update(g, s, theta, hyper) -> (theta', s')``. ``slope`` is defined for a
    stateless update that is affine in g, theta' = slope(hyper) g + (terms without g); it is one
    number, or one for each branch of theta by name. The backward pass then needs only the product
    of the inner gradient with one direction (of each branch), a by-product of its second
    derivatives: g itself is not stored.
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]]
    slope: Callable[[Tree], jax.Array | dict[str, jax.Array]] | None = None


NAMES = ("sgd", "momentum", "adam")


def make(
    name: str, momentum: float = 0.9, weight_decay: float = 0.0, decay: str = "all"
) -> InnerOptimizer:
    """Return the inner optimiser called ``name``; only 'momentum' reads ``momentum``.

    'adamw' and 'muon' are also accepted, for plain training. ``decay`` selects the decayed weights:
    all, or 'matrices', those with two axes or more ('adam' always decays all).

    Raises:
      BadInput: ``name`` is not one of ``NAMES``.
    """
    if name == "sgd":
        return sgd(weight_decay, decay)
    if name == "momentum":
        return sgd_momentum(momentum, weight_decay, decay)
    if name == "adam":
        return adam(weight_decay=weight_decay)
    if name == "adamw":
        return adamw(weight_decay=weight_decay, decay=decay)
    if name == "muon":
        return muon(weight_decay=weight_decay, decay=decay)
    raise BadInput("config.inner", f"{name!r}", f"one of {', '.join(NAMES)}")


def _decayed(g: Tree, theta: Tree, weight_decay: float, decay: str = "all") -> Tree:
    if not weight_decay:
        return g
    return jax.tree.map(
        lambda d, p: d + weight_decay * p if decay == "all" or p.ndim > 1 else d, g, theta
    )


def _rates(lr: Tree, theta: Tree) -> Tree:
    """Return the rate of every leaf of ``theta``: one for all, or one per branch of a dict."""
    if isinstance(lr, dict):
        return {name: jax.tree.map(lambda _, r=lr[name]: r, theta[name]) for name in theta}
    return jax.tree.map(lambda _: lr, theta)


def sgd(weight_decay: float = 0.0, decay: str = "all") -> InnerOptimizer:
    """Plain gradient descent, theta' = theta - alpha (g + wd theta)."""

    def update(g: Tree, state: Tree, theta: Tree, hyper: Tree) -> tuple[Tree, Tree]:
        g = _decayed(g, theta, weight_decay, decay)
        rates = _rates(hyper["lr"], theta)
        return jax.tree.map(lambda p, d, r: p - r * d, theta, g, rates), state

    return InnerOptimizer(
        lambda theta: (), update, lambda hyper: jax.tree.map(jnp.negative, hyper["lr"])
    )


def sgd_momentum(
    momentum: float = 0.9, weight_decay: float = 0.0, decay: str = "all"
) -> InnerOptimizer:
    """Heavy ball as PyTorch's SGD: v' = m v + g + wd theta, theta' = theta - alpha v', v_0 = 0."""

    def update(g: Tree, state: Tree, theta: Tree, hyper: Tree) -> tuple[Tree, Tree]:
        g = _decayed(g, theta, weight_decay, decay)
        velocity = jax.tree.map(lambda v, d: momentum * v + d, state, g)
        rates = _rates(hyper["lr"], theta)
        return jax.tree.map(lambda p, v, r: p - r * v, theta, velocity, rates), velocity

    return InnerOptimizer(lambda theta: jax.tree.map(jnp.zeros_like, theta), update)


def adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 1e-16,
    weight_decay: float = 0.0,
) -> InnerOptimizer:
    """Adam, differentiable everywhere; t = 1, 2, ... counts the steps.

    m' = b1 m + (1 - b1) g,  v' = b2 v + (1 - b2) g^2,
    theta' = theta - alpha (m' / (1 - b1^t)) / (sqrt(v' / (1 - b2^t) + eps_root) + eps)

    The root's derivative is infinite at v = 0, for a weight that has never had a gradient (a dead
    ReLU, a border pixel): 0 * inf makes the whole meta-gradient NaN. ``eps_root`` = eps^2 does not
    change the step of such a weight (m = 0), and changes no other step to first order.

    Source: Kingma & Ba, ICLR 2015, algorithm 1; ``eps_root`` is optax's name for it.
    """

    def init(theta: Tree) -> Tree:
        zeros = jax.tree.map(jnp.zeros_like, theta)
        return {"m": zeros, "v": zeros, "t": jnp.zeros((), jnp.float32)}

    def update(g: Tree, state: Tree, theta: Tree, hyper: Tree) -> tuple[Tree, Tree]:
        g = _decayed(g, theta, weight_decay)
        t = jax.lax.stop_gradient(state["t"]) + 1
        m = jax.tree.map(lambda a, d: b1 * a + (1 - b1) * d, state["m"], g)
        v = jax.tree.map(lambda a, d: b2 * a + (1 - b2) * d * d, state["v"], g)

        def step(p: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
            c1, c2 = (1 - jnp.asarray(x, p.dtype) ** t.astype(p.dtype) for x in (b1, b2))
            moved: jax.Array = p - hyper["lr"] * (a / c1) / (jnp.sqrt(b / c2 + eps_root) + eps)
            return moved

        return jax.tree.map(step, theta, m, v), {"m": m, "v": v, "t": t}

    return InnerOptimizer(init, update)


def adamw(weight_decay: float = 0.0, decay: str = "all") -> InnerOptimizer:
    """Adam with decoupled decay: theta <- theta (1 - alpha wd), then Adam's step on the plain g.

    Args:
      decay: 'all' weights, or 'matrices': neither biases nor the norms' scales and shifts.

    Source: Loshchilov & Hutter, ICLR 2019, algorithm 2, with PyTorch's alpha wd.
    """
    plain = adam()

    def update(g: Tree, state: Tree, theta: Tree, hyper: Tree) -> tuple[Tree, Tree]:
        def shrunk(p: jax.Array) -> jax.Array:
            decays = decay == "all" or p.ndim > 1
            return p * (1 - hyper["lr"] * weight_decay) if decays and weight_decay else p

        return plain.update(g, state, jax.tree.map(shrunk, theta), hyper)

    return InnerOptimizer(plain.init, update)


# Liu et al. 2025, section 2.2: with this factor a matrix moves by as much as under AdamW, so that
# one rate serves the matrices and the other weights.
MUON_RMS = 0.2


def muon(weight_decay: float = 0.0, decay: str = "all") -> InnerOptimizer:
    """Muon for matrices, NAdamW for other weights, at one rate; optax.contrib's, of a matrix G:

        m' = 0.95 m + 0.05 g,   G = 0.95 m' / (1 - 0.95^(t+1)) + 0.05 g / (1 - 0.95^t)
        theta' = theta - alpha (0.2 sqrt(max(rows, columns)) O(G) + wd theta)

    O(G) is five Newton-Schulz steps from X = G / ||G||_F: with A = X X^T,

        X <- 3.4445 X + (-4.7750 A + 2.0315 A A) X

    A convolution's kernel ``[h, w, in, out]`` is the matrix ``[h w in, out]``. Other weights
    (biases, norms, tokens) follow AdamW with b1 = 0.9 and b2 = 0.999, whose first moment looks
    ahead in the same way (Dozat's NAdam), as optax has it.

    Args:
      weight_decay: wd, decoupled, of the weights that ``decay`` selects.
      decay: 'all' weights, or 'matrices': neither biases nor the norms' scales and shifts.

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the
    factor 0.2: Liu et al., arXiv:2502.16982, 2025.
    """
    made = optax.contrib.muon(
        1.0,
        weight_decay=weight_decay,
        adam_weight_decay=weight_decay if decay == "all" else 0.0,
        muon_weight_dimension_numbers=_matrices,
        consistent_rms=MUON_RMS,
    )

    def update(g: Tree, state: Tree, theta: Tree, hyper: Tree) -> tuple[Tree, Tree]:
        moves, state = made.update(g, state, theta)
        rates = _rates(hyper["lr"], theta)
        return jax.tree.map(lambda p, d, r: p + r * d, theta, moves, rates), state

    return InnerOptimizer(made.init, update)


def _matrices(params: Tree) -> Tree:
    """Return the axes of each weight as a matrix; None for weights that are none."""

    def axes(p: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if p.ndim not in (2, 4):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)

    return jax.tree.map(axes, params)
