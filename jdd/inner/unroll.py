"""How to differentiate through training.

    (theta_{j+1}, s_{j+1}) = update(grad_theta L(theta_j; S, xi_j), s_j, theta_j, h_j),   j < M

S is what the outer loop moves (images, labels), h_j the learned rates of step j, xi_j what is fixed
(batch indices, augmentation keys), s_j the optimiser's state. What is estimated:

``exact``      the gradient of theta_M.
``truncated``  the exact gradient of the last W steps of the unroll, theta_{M-W} taken as given.
``tesla``      the exact gradient with the adjoint frozen in the weights: the inner gradient's
               dependence on theta_j is dropped, so that an image's influence on later gradients is
               not counted (docs/methods/tesla.md shows what that costs). About 10 forward passes a
               step instead of 12, the memory of ``mixed``.

How the exact part is computed: three ways, equal to rounding error:

``mixed``    default. Each step has its own reverse rule. With the cotangent v of the inner gradient
             the rule needs H v and (d^2 L / dS dtheta)^T v, and one forward-over-reverse pass
             jvp(grad_{theta,S} L; v) gives both, because the Hessian is symmetric. Kept from the
             forward pass: theta_j and s_j alone; activations live for one step.
             Memory M (|theta| + |s|) + one step; time about 12 forward passes a step.
``remat``    reverse over reverse, with jax.checkpoint around each step: memory M (|theta| + |s|) +
             one step's second-order graph; about 12 forward passes a step.
``reverse``  plain reverse over reverse: keeps every step's activations; about 9 forward passes.

Source: mixed-mode differentiation in bilevel problems, Kemaev et al., ICML 2025; the exact adjoint
is what MTT (Cazenavette et al. 2022, section 3) defines and TESLA (Cui et al. 2023) approximates;
truncation in the middle of training: RaT-BPTT (Feng et al. 2024).
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
Step = Callable[..., tuple[Tree, Tree]]

WAYS = ("mixed", "remat", "reverse")
ESTIMATORS = ("exact", "truncated", "tesla")


def _plain_step(loss: Loss, optimizer: InnerOptimizer) -> Step:
    def step(theta: Tree, state: Tree, hyper: Tree, data: Tree, fixed: Tree) -> tuple[Tree, Tree]:
        return optimizer.update(jax.grad(loss)(theta, data, fixed), state, theta, hyper)

    return step


def _mixed_step(loss: Loss, optimizer: InnerOptimizer) -> Step:
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


def _tesla_step(loss: Loss, optimizer: InnerOptimizer) -> Step:
    step = jax.custom_vjp(_plain_step(loss, optimizer))

    def forward(*args: Tree) -> tuple[tuple[Tree, Tree], tuple[Tree, ...]]:
        return step(*args), args

    def backward(kept: tuple[Tree, ...], cotangent: tuple[Tree, Tree]) -> tuple[Tree, ...]:
        theta, state, hyper, data, fixed = kept
        g = jax.grad(loss)(theta, data, fixed)
        v, d_state, d_theta, d_hyper = jax.vjp(optimizer.update, g, state, theta, hyper)[1](
            cotangent
        )

        def along(d: Tree) -> jax.Array:
            return jax.jvp(lambda t: loss(t, d, fixed), (theta,), (v,))[1]

        # d/dS of v . grad_theta L; what theta_j itself did to that gradient is left out.
        return d_theta, d_state, d_hyper, jax.grad(along)(data), None

    step.defvjp(forward, backward)
    return step


def _differentiable_step(loss: Loss, optimizer: InnerOptimizer, how: str, estimator: str) -> Step:
    if how not in WAYS:
        raise BadInput("config.unroll", f"{how!r}", f"one of {', '.join(WAYS)}")
    if estimator not in ESTIMATORS:
        raise BadInput("config.estimator", f"{estimator!r}", f"one of {', '.join(ESTIMATORS)}")
    if estimator == "tesla":
        return _tesla_step(loss, optimizer)
    return _mixed_step(loss, optimizer) if how == "mixed" else _plain_step(loss, optimizer)


def unroll(
    loss: Loss,
    optimizer: InnerOptimizer,
    theta: Tree,
    hyper: Tree,
    data: Tree,
    fixed: Tree,
    how: str = "mixed",
    constant: Tree = None,
    estimator: str = "exact",
    window: int = 0,
    start: jax.Array | int | None = None,
) -> Tree:
    """Return theta after the inner steps, differentiable in ``theta``, ``hyper`` and ``data``.

    All M steps are run, unless ``estimator`` is 'truncated': then ``start`` steps without a
    gradient and ``window`` steps with one, and those after them not at all.

    Args:
      loss: ``loss(theta, data, fixed_j) -> scalar``, the inner loss of one step.
      optimizer: inner optimiser.
      theta: start weights, any tree.
      hyper: the optimiser's rates, each leaf ``[M, ...]``, one a step.
      data: what every step shares and the outer loop moves.
      fixed: what is not differentiated, each leaf ``[M, ...]``.
      how: one of ``WAYS``; 'tesla' has a way of its own.
      constant: what is neither differentiated nor different from step to step, but traced (a rule
        of its own may not close over it); if given, the loss gets ``(fixed_j, constant)``.
      estimator: one of ``ESTIMATORS``.
      window: W, the steps that 'truncated' differentiates through, 1 .. M; static.
      start: the first of them, 0 .. M - W, may be traced; M - W if not given.

    Raises:
      BadInput: ``how`` or ``estimator`` is unknown, or the window does not fit the unroll.
    """
    step = _differentiable_step(loss, optimizer, how, estimator)
    carry, xs = (theta, optimizer.init(theta)), (hyper, fixed)

    def body(step: Step, data: Tree) -> Callable[[Tree, Tree], tuple[Tree, None]]:
        def one(carry: Tree, xs: Tree) -> tuple[Tree, None]:
            hyper_j, fixed_j = xs
            fixed_j = fixed_j if constant is None else (fixed_j, constant)
            return step(*carry, hyper_j, data, fixed_j), None

        return one

    if estimator == "truncated":
        total = jax.tree.leaves(xs)[0].shape[0]
        if not 1 <= window <= total:
            raise BadInput("config.window", str(window), f"1 to {total}, the steps of the unroll")
        first = jnp.asarray(total - window if start is None else start)
        # No gradient reaches these steps, so their number may be traced.
        carry, given, still = jax.lax.stop_gradient((carry, xs, data))
        before = body(_plain_step(loss, optimizer), still)
        carry = jax.lax.fori_loop(
            0, first, lambda j, c: before(c, jax.tree.map(lambda x: x[j], given))[0], carry
        )
        xs = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, window), xs)
    run = body(step, data)
    if how == "remat" and estimator != "tesla":
        run = jax.checkpoint(run)
    (theta, _), _ = jax.lax.scan(run, carry, xs)
    return theta
