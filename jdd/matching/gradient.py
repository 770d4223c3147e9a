"""Gradient matching: distances between weight gradients, differentiable in the images.

The derivative of a distance D(A(S), B) with respect to the synthetic images S, where A is itself a
gradient, takes two derivatives. With v = dD/dA held fixed,

    dD/dS = d/dS <v, grad_theta l(S; theta)> = d/dS [ d/de l(S; theta + e v) at e = 0 ],

reverse mode over one forward pass in direction v: the backward pass is not differentiated. As l is
a mean over images, so is the result, which is computed for a part of the images at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdd.parallel.parts import cut, each, summed, zeros

Tree = Any
EPS = 1e-6


def per_unit(a: Tree, b: Tree) -> jax.Array:
    """Return sum over layers, sum over output units i of 1 - <A_i, B_i> / (|A_i| |B_i| + 1e-6).

    The output units of a layer are the last axis of its kernel (of a normalisation over space too,
    the channels). Vectors, that is biases and per-channel scales, do not count.

    Args:
      a, b: gradients of the parameters, trees of one structure.

    Returns:
      Scalar, 0 for parallel gradients, 1 per unit for orthogonal ones. A unit of gradient 0 counts
      1; its derivative there, -B_i / 1e-6, is large and, as in the authors' code, is multiplied
      only by terms that do not depend on the images.

    Source: DC (Zhao et al., ICLR 2021), section 3.
    """

    def layer(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = (g.reshape(-1, g.shape[-1]) for g in (x, y))
        return jnp.sum(1 - jnp.sum(x * y, 0) / (length(x) * length(y) + EPS))

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((layer(x, y) for x, y in pairs if x.ndim > 1), jnp.zeros(()))


def squared(a: Tree, b: Tree) -> jax.Array:
    """Return ||A - B||^2 over all parameters (scalar)."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.sum(jnp.square(x - y)) for x, y in pairs), jnp.zeros(()))


def cosine(a: Tree, b: Tree) -> jax.Array:
    """Return 1 - <A, B> / (|A| |B| + 1e-6) over all parameters as one vector (scalar)."""
    x, y = (jnp.concatenate([g.ravel() for g in jax.tree.leaves(t)])[:, None] for t in (a, b))
    return 1 - jnp.sum(x * y) / (length(x)[0] * length(y)[0] + EPS)


DISTANCES: dict[str, Callable[[Tree, Tree], jax.Array]] = {
    "unit": per_unit,
    "mse": squared,
    "cos": cosine,
}


def length(x: jax.Array) -> jax.Array:
    """Return the norms of x along axis 0; if a norm is 0, so is its derivative."""
    squares = jnp.sum(jnp.square(x), 0)
    there = squares > 0
    return jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)


Loss = Callable[[Tree, Tree], jax.Array]
MOST_PADDING = 0.1  # largest fraction of padding rows


def weight_gradient(loss: Loss, params: Tree, rows: Tree, part: int) -> Tree:
    """Return grad_params of loss(params, rows), a sum over rows, ``part`` rows at a time.

    Args:
      loss: ``(params, rows) -> scalar``, additive over the rows on axis 0 of ``rows``.
      part: the rows per pass, a divisor of their number.
    """
    gradient = jax.grad(loss)
    pieces, count = cut(rows, part)
    if count == 1:
        return gradient(params, rows)
    return _summed(gradient, params, pieces, 0, count)


def both_gradients(
    loss: Loss, params: Tree, first: Tree, second: Tree, parts: tuple[int, int]
) -> tuple[Tree, Tree]:
    """Return ``weight_gradient`` of two batches, by one loop if little padding is needed.

    Compiling a net's forward and backward pass dominates the compilation of a matching step, in
    time and memory: the smaller batch is padded with rows of weight 0 to parts of the larger one's
    size, so that both share one program.

    Args:
      loss: as in ``weight_gradient``; rows of ``weight`` 0 contribute nothing.
      parts: the rows per pass of each batch.
    """
    sizes = [len(rows["weight"]) for rows in (first, second)]
    part = max(parts)
    filled = [-(-size // part) * part for size in sizes]
    if sum(filled) - sum(sizes) > MOST_PADDING * sum(sizes):
        batches = zip((first, second), parts, strict=True)
        return tuple(weight_gradient(loss, params, *batch) for batch in batches)
    padded = [_filled(rows, size) for rows, size in zip((first, second), filled, strict=True)]
    pieces, _ = cut(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *padded), part)
    counts = [size // part for size in filled]
    bounds = jnp.asarray([[0, counts[0]], [counts[0], sum(counts)]])
    both = jax.lax.map(lambda ends: _summed(jax.grad(loss), params, pieces, *ends), bounds)
    return jax.tree.map(lambda x: x[0], both), jax.tree.map(lambda x: x[1], both)


def matched(
    loss: Loss, distance: Callable[[Tree, Tree], jax.Array], parts: tuple[int, int]
) -> Callable[[Tree, Tree, Tree, Tree], jax.Array]:
    """Return ``f(images, rest, params, real) = D(grad_params loss of images, of real)``.

    Memory does not grow with the number of images. The derivative, with respect to ``images``
    alone, has the forward-over-reverse form of the module docstring.

    Args:
      loss: ``(params, rows) -> scalar``, additive over rows ``{"images", "weight", ...}``; ``rest``
        is the rows without the images, ``real`` a second batch.
      distance: one of ``DISTANCES``, or a function of the same signature.
      parts: rows per pass, of ``images`` and of ``real``, divisors of their numbers.
    """

    def forward(images: Tree, rest: Tree, params: Tree, real: Tree) -> tuple[Any, Any]:
        own, wanted = both_gradients(loss, params, {"images": images, **rest}, real, parts)
        value, direction = jax.value_and_grad(distance)(own, wanted)
        return value, (images, rest, params, direction)

    def backward(residuals: Tree, cotangent: jax.Array) -> tuple[Any, None, None, None]:
        images, rest, params, direction = residuals

        def along(piece: Tree) -> jax.Array:
            def slope(images: jax.Array) -> jax.Array:
                rows = {**piece, "images": images}
                return jax.jvp(lambda p: loss(p, rows), (params,), (direction,))[1]

            return jax.grad(slope)(piece["images"])

        found = each(along, {"images": images, **rest}, parts[0])
        return found * cotangent, None, None, None

    @jax.custom_vjp
    def f(images: Tree, rest: Tree, params: Tree, real: Tree) -> jax.Array:
        return forward(images, rest, params, real)[0]

    f.defvjp(forward, backward)
    return f


def _filled(rows: Tree, to: int) -> Tree:
    def fill(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, to - len(x))] + [(0, 0)] * (x.ndim - 1))

    return jax.tree.map(fill, rows)


def _summed(gradient: Loss, params: Tree, pieces: Tree, lo: Any, hi: Any) -> Tree:
    def one(i: jax.Array, state: Tree) -> tuple[Tree, Tree]:
        return gradient(params, jax.tree.map(lambda x: x[i], pieces)), state

    return summed(one, zeros(params), lo, hi)[0]
