"""How to differentiate through training.

    theta_{j+1} = update(grad_theta L(theta_j; S, xi_j), s_j, theta_j, h_j),   j = 0 .. M-1

S is what the outer loop moves (images, labels), h_j the learned rates of step j, xi_j what is fixed
(batch indices, augmentation keys). Three ways, equal to rounding error:

``mixed``    default. Each step has its own reverse rule. With the cotangent v of the inner gradient
             the rule needs H v and (d^2 L / dS dtheta)^T v, and one forward-over-reverse pass
             jvp(grad_{theta,S} L; v) gives both, because the Hessian is symmetric. Kept from the
             forward pass: theta_j (and s_j) alone; activations live for one step.
             Memory M |theta| + one step; time about 12 forward passes a step.
``remat``    reverse over reverse, with jax.checkpoint around each step: memory M |theta| + one
             step's second-order graph; about 12 forward passes a step.
``reverse``  plain reverse over reverse: keeps every step's activations; about 9 forward passes.

Source: mixed-mode differentiation in bilevel problems, Kemaev et al., ICML 2025; the exact adjoint
is what MTT (Cazenavette et al. 2022, section 3) defines and TESLA (Cui et al. 2023) approximates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdd.errors import BadInput
from jdd.inner.optim import InnerOptimizer

Tree = Any
Loss = Callable[[Tree, Tree, Tree], jax.Array]

WAYS = ("mixed", "remat", "reverse")


def _plain_step(loss: Loss, optimizer: InnerOptimizer) -> Callable[..., tuple[Tree, Tree]]:
    def step(theta: Tree, state: Tree, hyper: Tree, data: Tree, fixed: Tree) -> tuple[Tree, Tree]:
        return optimizer.update(jax.grad(loss)(theta, data, fixed), state, theta, hyper)

    return step


def _mixed_step(loss: Loss, optimizer: InnerOptimizer) -> Callable[..., tuple[Tree, Tree]]:
    step = jax.custom_vjp(_plain_step(loss, optimizer))
    both = jax.grad(loss, argnums=(0, 1))

    def forward(*args: Tree) -> tuple[tuple[Tree, Tree], tuple[Tree, ...]]:
        return step(*args), args

    def backward(kept: tuple[Tree, ...], cotangent: tuple[Tree, Tree]) -> tuple[Tree, ...]:
        theta, state, hyper, data, fixed = kept

        def gradients(t: Tree) -> tuple[Tree, Tree]:
            return both(t, data, fixed)

        def pull(g: Tree) -> tuple[Tree, ...]:
            return jax.vjp(optimizer.update, g, state, theta, hyper)[1](cotangent)

        if optimizer.linear:
            # v does not depend on g, so primal and tangent run as one pass that shares its loads.
            v = pull(jax.tree.map(jnp.zeros_like, theta))[0]
            (g, _), (hessian_v, mixed_v) = jax.jvp(gradients, (theta,), (v,))
            _, d_state, d_theta, d_hyper = pull(g)
        else:
            (g, _), push = jax.linearize(gradients, theta)
            v, d_state, d_theta, d_hyper = pull(g)
            hessian_v, mixed_v = push(v)
        return jax.tree.map(jnp.add, d_theta, hessian_v), d_state, d_hyper, mixed_v, None

    step.defvjp(forward, backward)
    return step


def unroll(
    loss: Loss,
    optimizer: InnerOptimizer,
    theta: Tree,
    hyper: Tree,
    data: Tree,
    fixed: Tree,
    how: str = "mixed",
    constant: Tree = None,
) -> Tree:
    """Return theta_M after M inner steps, differentiable in ``theta``, ``hyper`` and ``data``.

    Args:
      loss: ``loss(theta, data, fixed_j) -> scalar``, the inner loss of one step.
      optimizer: inner optimiser.
      theta: start weights, any tree.
      hyper: the optimiser's rates, each leaf ``[M, ...]``, one a step.
      data: what every step shares and the outer loop moves.
      fixed: what is not differentiated, each leaf ``[M, ...]``.
      how: one of ``WAYS``.
      constant: what is neither differentiated nor different from step to step, but traced (a rule
        of its own may not close over it); if given, the loss gets ``(fixed_j, constant)``.

    Raises:
      BadInput: ``how`` is not one of ``WAYS``.
    """
    if how not in WAYS:
        raise BadInput("config.unroll", f"{how!r}", f"one of {', '.join(WAYS)}")
    step = _mixed_step(loss, optimizer) if how == "mixed" else _plain_step(loss, optimizer)

    def body(carry: tuple[Tree, Tree], xs: tuple[Tree, Tree]) -> tuple[tuple[Tree, Tree], None]:
        theta_j, state_j = carry
        hyper_j, fixed_j = xs
        fixed_j = fixed_j if constant is None else (fixed_j, constant)
        return step(theta_j, state_j, hyper_j, data, fixed_j), None

    if how == "remat":
        body = jax.checkpoint(body)
    (theta, _), _ = jax.lax.scan(body, (theta, optimizer.init(theta)), (hyper, fixed))
    return theta
