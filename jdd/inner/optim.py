"""Inner optimisers: pure updates that a meta-gradient can pass through.

Notation: theta weights, g inner gradient, alpha learning rate, s the optimiser's state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Tree = Any


class InnerOptimizer(NamedTuple):
    """An inner optimiser as data.

    ``init(theta) -> s``; ``update(g, s, theta, hyper) -> (theta', s')``. ``linear`` says that the
    update is affine in ``g``: its pull-back then does not depend on ``g``'s value, which lets the
    mixed-mode rule run one fused forward-over-reverse pass.
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]]
    linear: bool


def sgd() -> InnerOptimizer:
    """Plain gradient descent, theta' = theta - alpha g, with alpha = ``hyper['lr']`` (scalar)."""

    def update(g: Tree, state: Tree, theta: Tree, hyper: Tree) -> tuple[Tree, Tree]:
        return jax.tree.map(lambda p, d: p - hyper["lr"] * d, theta, g), state

    return InnerOptimizer(lambda theta: (), update, linear=True)
