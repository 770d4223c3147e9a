"""Unrolled training, differentiable in data, rates and initial weights.

    (theta_{j+1}, s_{j+1}) = update(grad_theta L(theta_j; S, xi_j), s_j, theta_j, h_j),   j < M

S is the data that the outer loop learns (images, labels), h_j the learned rates of step j, xi_j the
constants (batch indices, augmentation keys), s_j the optimiser's state. Estimators:

``exact``      the gradient of theta_M.
``truncated``  the exact gradient of the last W steps of the unroll, theta_{M-W} constant.
``tesla``      the exact gradient with the adjoint frozen in the weights: the inner gradient's
               dependence on theta_j is dropped, so that an image's influence on later gradients is
               not counted (docs/methods/tesla.md shows what that costs). About 9 forward passes per
               step instead of 11, the memory of ``mixed``.

The exact part is computed in one of three ways, equal up to rounding:

``mixed``    default. Each step has its own reverse rule. With the cotangent v of the inner gradient
             the rule needs H v and (d^2 L / dS dtheta)^T v, and one forward-over-reverse pass
             jvp((L, grad_{theta,S} L); v) gives both, because the Hessian is symmetric. It also
             gives v . grad L, which is sufficient for SGD's rates; other optimisers store the inner
             gradient g_j.
             Stored from the forward pass: theta_j, s_j (and g_j); activations live for one step, or
             for one part of its images. Memory M |theta| (SGD), M (2 |theta| + |s|) (others) + one
             part; time about 11 forward passes per step.
``remat``    reverse over reverse, with jax.checkpoint around each step: memory M (|theta| + |s|) +
             one step's second-order graph; about 12 forward passes per step.
``reverse``  plain reverse over reverse: stores every step's activations; about 9 forward passes.

Only ``mixed`` and ``tesla`` take a step's rows in parts (``Inner.part``).

Source: mixed-mode differentiation in bilevel problems, Kemaev et al., ICML 2025; the exact adjoint
is what MTT (Cazenavette et al. 2022, section 3) defines and TESLA (Cui et al. 2023) approximates;
truncation in the middle of training: RaT-BPTT (Feng et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd.errors import BadInput
from jdd.parallel.parts import cut, zeros
from jdd.training.optimisers import InnerOptimizer

Tree = Any
Loss = Callable[[Tree, Tree, Tree], jax.Array]
Step = Callable[..., tuple[Tree, Tree]]
Scalars = dict[str, jax.Array]


class SecondOrder(NamedTuple):
    """Second derivatives of the inner loss at theta, for a part of the rows.

    one:      ``(theta, rows, fixed, w) -> ((w . grad L, H w), (d^2 L / drows dtheta)^T w)``.
    branches: ``(theta, rows, fixed, c, slope)``, the same with w_b = slope_b c_b for each branch b
              of theta, and instead of w . grad L the products c_b . grad_b L by branch.
    """

    one: Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]]
    branches: Callable[[Tree, Tree, Tree, Tree, Scalars], tuple[Tree, Tree]]


WAYS = ("mixed", "remat", "reverse")
ESTIMATORS = ("exact", "truncated", "tesla")


class Inner(NamedTuple):
    """The inner loss of a step: ``loss(theta, batch(data, fixed), fixed) -> scalar``.

    ``batch`` computes the inputs of the loss from the learned data: the rows of a step, augmented,
    and their targets. With ``part`` rows at a time (0: all) the loss must be a sum over axis 0 of
    the batch's leaves, and ``part`` must divide their number.
    """

    loss: Loss
    batch: Callable[[Tree, Tree], Tree] = lambda data, fixed: data
    part: int = 0

    def whole(self, theta: Tree, data: Tree, fixed: Tree) -> jax.Array:
        """Return the loss of all rows at once."""
        return self.loss(theta, self.batch(data, fixed), fixed)


def _over_parts(
    fn: Callable[[Tree], tuple[Tree, Tree]], rows: Tree, part: int
) -> tuple[Tree, Tree]:
    """Return the sum over parts of fn's first result, and the concatenation of its second one."""
    count = jax.tree.leaves(rows)[0].shape[0] if part else 0
    if count <= part:
        return fn(rows)
    pieces, _ = cut(rows, part)

    def add(total: Tree, one: Tree) -> tuple[Tree, Tree]:
        more, joined = fn(one)
        return jax.tree.map(jnp.add, total, more), joined

    shape = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], pieces))[0]
    total, joined = jax.lax.scan(add, zeros(shape), pieces)
    return total, jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), joined)


def _plain_step(inner: Inner, optimizer: InnerOptimizer) -> Step:
    def step(theta: Tree, state: Tree, hyper: Tree, data: Tree, fixed: Tree) -> tuple[Tree, Tree]:
        g = jax.grad(inner.whole)(theta, data, fixed)
        return optimizer.update(g, state, theta, hyper)

    return step


def _own_rule_step(inner: Inner, optimizer: InnerOptimizer, second_order: SecondOrder) -> Step:
    """Return the step with a custom reverse rule that stores no activations."""

    def gradient(theta: Tree, data: Tree, fixed: Tree) -> Tree:
        def one(rows: Tree) -> tuple[Tree, Tree]:
            return jax.grad(inner.loss)(theta, rows, fixed), ()

        return _over_parts(one, inner.batch(data, fixed), inner.part)[0]

    @jax.custom_vjp
    def step(theta: Tree, state: Tree, hyper: Tree, data: Tree, fixed: Tree) -> tuple[Tree, Tree]:
        return optimizer.update(gradient(theta, data, fixed), state, theta, hyper)

    def forward(*args: Tree) -> tuple[tuple[Tree, Tree], tuple[Tree, Tree]]:
        theta, state, hyper, data, fixed = args
        g = gradient(theta, data, fixed)
        return optimizer.update(g, state, theta, hyper), (args, None if optimizer.slope else g)

    def backward(residuals: tuple[Tree, Tree], cotangent: tuple[Tree, Tree]) -> tuple[Tree, ...]:
        (theta, state, hyper, data, fixed), g = residuals
        g = jax.tree.map(jnp.zeros_like, theta) if optimizer.slope else g
        pull = jax.vjp(optimizer.update, g, state, theta, hyper)[1]
        v, d_state, d_theta, d_hyper = pull(cotangent)
        slope, pull_slope = jax.vjp(optimizer.slope, hyper) if optimizer.slope else (None, None)
        rows, pull_rows = jax.vjp(lambda d: inner.batch(d, fixed), data)
        w = v if slope is None else cotangent[0]

        def derivatives(some: Tree) -> tuple[Tree, Tree]:
            if isinstance(slope, dict):
                return second_order.branches(theta, some, fixed, w, slope)
            return second_order.one(theta, some, fixed, w)

        (along, hessian_w), mixed_w = _over_parts(derivatives, rows, inner.part)
        if slope is not None and not isinstance(slope, dict):  # v = slope w
            hessian_w, mixed_w = jax.tree.map(lambda x: slope * x, (hessian_w, mixed_w))
        if pull_slope is not None:  # d/dhyper (cotangent . slope g) = (cotangent . g) d slope
            d_hyper = jax.tree.map(jnp.add, d_hyper, pull_slope(along)[0])
        d_theta = jax.tree.map(jnp.add, d_theta, hessian_w)
        return d_theta, d_state, d_hyper, pull_rows(mixed_w)[0], None

    step.defvjp(forward, backward)
    return step


def _scaled(tree: Tree, slope: Scalars) -> Tree:
    """Return a tree with each of its branches scaled."""
    return {b: jax.tree.map(lambda x, k=slope[b]: k * x, tree[b]) for b in tree}


def _mixed_step(inner: Inner, optimizer: InnerOptimizer) -> Step:
    def directed(theta: Tree, rows: Tree, fixed: Tree, w: Tree) -> tuple[Tree, Tree]:
        """Return the gradient in theta and the tangent of ``(L, (grad_theta L, grad_rows L))``."""

        def both(t: Tree) -> Tree:
            return jax.value_and_grad(inner.loss, argnums=(0, 1))(t, rows, fixed)

        (_, (g, _)), tangent = jax.jvp(both, (theta,), (w,))
        return g, tangent

    def one(theta: Tree, rows: Tree, fixed: Tree, w: Tree) -> tuple[Tree, Tree]:
        _, (along, (hessian_w, mixed_w)) = directed(theta, rows, fixed, w)
        return (along, hessian_w), mixed_w

    def branches(
        theta: Tree, rows: Tree, fixed: Tree, c: Tree, slope: Scalars
    ) -> tuple[Tree, Tree]:
        g, (_, (hessian_w, mixed_w)) = directed(theta, rows, fixed, _scaled(c, slope))
        return ({b: _product(c[b], g[b]) for b in c}, hessian_w), mixed_w

    return _own_rule_step(inner, optimizer, SecondOrder(one, branches))


def _product(a: Tree, b: Tree) -> jax.Array:
    """Return the inner product of two trees."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda x, y: jnp.sum(x * y), a, b))


def _tesla_step(inner: Inner, optimizer: InnerOptimizer) -> Step:
    # d/drows of w . grad_theta L; the dependence of that gradient on theta_j is dropped.
    def one(theta: Tree, rows: Tree, fixed: Tree, w: Tree) -> tuple[Tree, Tree]:
        def along(rows: Tree) -> jax.Array:
            slope: jax.Array = jax.jvp(lambda t: inner.loss(t, rows, fixed), (theta,), (w,))[1]
            return slope

        value, mixed_w = jax.value_and_grad(along)(rows)
        return (value, jax.tree.map(jnp.zeros_like, theta)), mixed_w

    def branches(
        theta: Tree, rows: Tree, fixed: Tree, c: Tree, slope: Scalars
    ) -> tuple[Tree, Tree]:
        def along(rows: Tree) -> tuple[jax.Array, Scalars]:
            def of(b: str) -> jax.Array:  # the tangent passes through one branch alone
                def loss(branch: Tree) -> jax.Array:
                    return inner.loss({**theta, b: branch}, rows, fixed)

                found: jax.Array = jax.jvp(loss, (theta[b],), (c[b],))[1]
                return found

            each = {b: of(b) for b in c}
            return jax.tree.reduce(jnp.add, {b: slope[b] * each[b] for b in c}), each

        mixed_w, each = jax.grad(along, has_aux=True)(rows)
        return (each, jax.tree.map(jnp.zeros_like, theta)), mixed_w

    return _own_rule_step(inner, optimizer, SecondOrder(one, branches))


def _differentiable_step(inner: Inner, optimizer: InnerOptimizer, how: str, estimator: str) -> Step:
    if how not in WAYS:
        raise BadInput("config.unroll", f"{how!r}", f"one of {', '.join(WAYS)}")
    if estimator not in ESTIMATORS:
        raise BadInput("config.estimator", f"{estimator!r}", f"one of {', '.join(ESTIMATORS)}")
    if estimator == "tesla":
        return _tesla_step(inner, optimizer)
    return _mixed_step(inner, optimizer) if how == "mixed" else _plain_step(inner, optimizer)


def unroll(
    inner: Inner | Loss,
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
    length: jax.Array | None = None,
) -> Tree:
    """Return theta after the inner steps, differentiable in ``theta``, ``hyper`` and ``data``.

    All M steps run, unless ``estimator`` is 'truncated': then ``start`` steps run without a
    gradient, ``window`` steps with one, and later steps do not run.

    Args:
      inner: the inner loss of one step, or a function ``loss(theta, data, fixed_j) -> scalar``.
      optimizer: inner optimiser.
      theta: initial weights, any tree.
      hyper: the optimiser's rates, each leaf ``[M, ...]``, one entry per step.
      data: learned by the outer loop and shared by all steps.
      fixed: not differentiated, each leaf ``[M, ...]``.
      how: one of ``WAYS``; ignored by 'tesla'.
      constant: not differentiated and equal for all steps, but traced (a custom rule may not close
        over it); if given, the inner loss gets ``(fixed_j, constant)``.
      estimator: one of ``ESTIMATORS``.
      window: W, the steps that 'truncated' differentiates through, 1 .. M; static.
      start: the first of them, 0 .. M - W, may be traced; M - W if not given.
      length: with a ``start`` up to M - length: only so many of them run, 1 .. W; may be traced.

    Raises:
      BadInput: ``how`` or ``estimator`` is unknown, or the window does not fit the unroll.
    """
    inner = inner if isinstance(inner, Inner) else Inner(inner)
    step = _differentiable_step(inner, optimizer, how, estimator)
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
        carry, given, frozen = jax.lax.stop_gradient((carry, xs, data))
        before = body(step, frozen)
        carry = jax.lax.fori_loop(
            0, first, lambda j, c: before(c, jax.tree.map(lambda x: x[j], given))[0], carry
        )
        if length is None:
            xs = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, window), xs)
        else:  # steps past the end of the unroll do not run: any row stands for theirs
            at = jnp.minimum(first + jnp.arange(window), total - 1)
            xs = jax.tree.map(lambda x: x[at], xs)
    run = body(step, data)
    if how == "remat" and estimator != "tesla":
        run = jax.checkpoint(run)
    if length is not None:
        run, xs = _first(run, length), (xs, jnp.arange(window))
    (theta, _), _ = jax.lax.scan(run, carry, xs)
    return theta


def _first(
    run: Callable[[Tree, Tree], tuple[Tree, None]], length: jax.Array
) -> Callable[[Tree, Tree], tuple[Tree, None]]:
    """Return the body of a scan of which only the first ``length`` steps do anything."""

    def one(carry: Tree, xs: Tree) -> tuple[Tree, None]:
        given, j = xs
        done: Tree = jax.lax.cond(j < length, lambda c: run(c, given)[0], lambda c: c, carry)
        return done, None

    return one
