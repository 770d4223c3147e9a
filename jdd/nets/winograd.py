"""The 3x3 convolution in Winograd's form, F(4x4, 3x3): a quarter of the multiplications.

A 4x4 tile of the output needs a 6x6 tile of the input, d. With k a 3x3 kernel,

    y = A^T [ (G k G^T) * (B^T d B) ] A

where * multiplies elementwise and sums over the input's channels: one matrix product, [tiles, c] by
[c, o], at each of the 36 places. The three transforms are linear primitives, each with its
transpose as another primitive, and the 36 products are JAX's own. So derivatives of every order are
products of the same shapes, and a transform used twice is computed once: a forward-over-reverse
pass has 8 products and 8 transforms of maps for its 8 convolutions.

The points of interpolation are 0, +-2/3, +-4/3 and infinity: in float32 the error is 1.1e-6 of the
result's root mean square, against 0.4e-6 for sums of products and 2.3e-6 for the usual 0, +-1, +-2.

Source: Winograd 1980; Lavin & Gray, CVPR 2016, for networks; the matrices are the Cook-Toom
construction, section 5 there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

TILE, SIDE = 4, 6  # outputs and inputs a side of a tile
POINTS = (0.0, 2 / 3, -2 / 3, 4 / 3, -4 / 3)


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A^T [4, 6], G [6, 3] and B^T [6, 6] of the Cook-Toom construction on ``POINTS``."""

    def values(degree: int) -> np.ndarray:
        finite = [[p**j for j in range(degree)] for p in POINTS]
        return np.array([*finite, [0.0] * (degree - 1) + [1.0]])

    b = np.linalg.inv(values(SIDE)).T
    b[np.abs(b) < 1e-12] = 0
    return values(TILE).T, values(3), b


_A, _G, _B = matrices()


def _combine(weights: Any, parts: Sequence[jax.Array]) -> jax.Array:
    """Return the weighted sum of equal shapes, without the terms of weight 0."""
    terms = [
        p if w == 1 else p * jnp.asarray(w, p.dtype)
        for w, p in zip(weights, parts, strict=True)
        if w
    ]
    return reduce(jnp.add, terms)


def _shifted(x: jax.Array, axis: int, by: int) -> jax.Array:
    """Return x with its slices along an axis moved by one place, filled with zeros."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (1, -1, 0) if by > 0 else (-1, 1, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _reach(blocks: Sequence[jax.Array], axis: int) -> list[jax.Array]:
    """Return the six lines under each tile, of which the middle four are its own block."""
    before, after = _shifted(blocks[3], axis, 1), _shifted(blocks[0], axis, -1)
    return [before, *blocks, after]


def _overlap(lines: Sequence[jax.Array], axis: int) -> list[jax.Array]:
    """Transpose of ``_reach``: add the six lines under each tile to the four of its block."""
    first, last = _shifted(lines[5], axis, 1), _shifted(lines[0], axis, -1)
    return [lines[1] + first, lines[2], lines[3], lines[4] + last]


def _blocks(x: jax.Array, axis: int) -> list[jax.Array]:
    """Split an axis of 4 t into four of t: every fourth line."""
    shape = x.shape
    x = x.reshape(*shape[:axis], shape[axis] // TILE, TILE, *shape[axis + 1 :])
    return [lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in range(TILE)]


def _joined(blocks: Sequence[jax.Array], axis: int) -> jax.Array:
    """Undo ``_blocks``."""
    x = jnp.stack(blocks, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _maps_in(x: jax.Array) -> list[jax.Array]:
    """B^T d B: maps [n, 4 r, 4 s, c] to the 36 places of their tiles, [n r s, c] each."""
    lines = _reach(_blocks(x, 1), 1)
    places = []
    for p in range(SIDE):
        row = _combine(_B[p], lines)
        columns = _reach(_blocks(row, 2), 2)
        places += [_combine(_B[q], columns).reshape(-1, x.shape[-1]) for q in range(SIDE)]
    return places


def _maps_in_transposed(places: Sequence[jax.Array], size: tuple[int, int]) -> jax.Array:
    h, w = size
    c = places[0].shape[-1]
    tiles = [m.reshape(-1, h // TILE, w // TILE, c) for m in places]
    rows = []
    for p in range(SIDE):
        own = tiles[p * SIDE : (p + 1) * SIDE]
        rows.append(_joined(_overlap([_combine(_B[:, j], own) for j in range(SIDE)], 2), 2))
    return _joined(_overlap([_combine(_B[:, i], rows) for i in range(SIDE)], 1), 1)


def _maps_out(places: Sequence[jax.Array], size: tuple[int, int]) -> jax.Array:
    """A^T m A: the 36 places, [n r s, o] each, to maps [n, 4 r, 4 s, o]."""
    h, w = size
    o = places[0].shape[-1]
    tiles = [m.reshape(-1, h // TILE, w // TILE, o) for m in places]
    lines = []
    for i in range(TILE):
        own = [_combine(_A[i], tiles[q::SIDE]) for q in range(SIDE)]
        lines.append(_joined([_combine(_A[j], own) for j in range(TILE)], 2))
    return _joined(lines, 1)


def _maps_out_transposed(y: jax.Array) -> list[jax.Array]:
    lines = _blocks(y, 1)
    places = []
    for p in range(SIDE):
        columns = _blocks(_combine(_A[:, p], lines), 2)
        places += [_combine(_A[:, q], columns).reshape(-1, y.shape[-1]) for q in range(SIDE)]
    return places


def _kernel_in(kernel: jax.Array) -> list[jax.Array]:
    """G k G^T: a kernel [3, 3, c, o] at the 36 places, [c, o] each."""
    places = []
    for p in range(SIDE):
        row = [_combine(_G[p], [kernel[a, b] for a in range(3)]) for b in range(3)]
        places += [_combine(_G[q], row) for q in range(SIDE)]
    return places


def _kernel_in_transposed(places: Sequence[jax.Array]) -> jax.Array:
    # One product: XLA would recompute sums of stacked sums for every element of the consumer.
    c, o = places[0].shape
    both = jnp.asarray(np.kron(_G, _G).T, places[0].dtype)  # [9, 36]
    stacked = jnp.concatenate(places).reshape(SIDE * SIDE, c * o)
    return jnp.matmul(both, stacked, precision="highest").reshape(3, 3, c, o)


def _pair(
    name: str,
    split: Callable[[jax.Array], list[jax.Array]],
    join: Callable[..., jax.Array],
    fold: Callable[[jax.Array], jax.Array],
    unfold: Callable[[jax.Array, int], jax.Array],
    sized: bool,
) -> tuple[Primitive, Primitive]:
    """Return primitives of two linear maps that are each other's transpose.

    ``split`` takes one array to the 36 places, ``join`` 36 places (and, if ``sized``, the map's
    size) to one array. ``fold`` and ``unfold`` merge a vmapped axis 0 into the array's own axes and
    split it off again; the rows of a place have it in front.
    """
    apart, together = Primitive(f"jdd_winograd_{name}"), Primitive(f"jdd_winograd_{name}_t")
    apart.multiple_results = True

    def split_(x: jax.Array, *, size: Any) -> list[jax.Array]:
        return split(x)

    def join_(*places: jax.Array, size: Any) -> jax.Array:
        return join(places, size) if sized else join(places)

    for primitive, fn, many in ((apart, split_, True), (together, join_, False)):
        primitive.def_impl(jax.jit(fn, static_argnames="size"))
        mlir.register_lowering(primitive, mlir.lower_fun(fn, multiple_results=many))

    def apart_shape(x: Any, *, size: Any) -> list[Any]:
        found = jax.eval_shape(split, x)
        return [x.update(shape=f.shape, dtype=f.dtype, weak_type=False) for f in found]

    def together_shape(*places: Any, size: Any) -> Any:
        found = jax.eval_shape(lambda *p: join_(*p, size=size), *places)
        return places[0].update(shape=found.shape, dtype=found.dtype, weak_type=False)

    apart.def_abstract_eval(apart_shape)
    together.def_abstract_eval(together_shape)

    def apart_transposed(cotangents: Any, x: Any, *, size: Any) -> list[Any]:
        if all(type(c) is ad.Zero for c in cotangents):
            return [ad.Zero(x.aval)]
        return [together.bind(*(ad.instantiate_zeros(c) for c in cotangents), size=size)]

    ad.primitive_jvps[apart] = _linear_jvp(apart)
    ad.primitive_transposes[apart] = apart_transposed
    ad.deflinear2(together, lambda cotangent, *places, size: apart.bind(cotangent, size=size))

    def apart_batch(args: Any, axes: Any, *, size: Any) -> Any:
        x = jnp.moveaxis(args[0], axes[0], 0)
        places = apart.bind(fold(x), size=size)
        return [p.reshape(len(x), -1, p.shape[-1]) for p in places], [0] * len(places)

    def together_batch(args: Any, axes: Any, *, size: Any) -> Any:
        count = next(a.shape[i] for a, i in zip(args, axes, strict=True) if i is not None)
        full = [
            jnp.broadcast_to(a, (count, *a.shape)) if i is None else jnp.moveaxis(a, i, 0)
            for a, i in zip(args, axes, strict=True)
        ]
        merged = [a.reshape(-1, a.shape[-1]) for a in full]
        return unfold(together.bind(*merged, size=size), count), 0

    batching.primitive_batchers[apart] = apart_batch
    batching.primitive_batchers[together] = together_batch
    return apart, together


def _linear_jvp(primitive: Primitive) -> Callable[..., Any]:
    def rule(primals: Any, tangents: Any, **params: Any) -> Any:
        out = primitive.bind(*primals, **params)
        return out, primitive.bind(*(ad.instantiate_zeros(t) for t in tangents), **params)

    return rule


def _images(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])


def _images_back(x: jax.Array, count: int) -> jax.Array:
    return x.reshape(count, -1, *x.shape[1:])


def _channels(k: jax.Array) -> jax.Array:
    return jnp.moveaxis(k, 0, 2).reshape(*k.shape[1:3], -1, k.shape[-1])


def _channels_back(k: jax.Array, count: int) -> jax.Array:
    return jnp.moveaxis(k.reshape(*k.shape[:2], count, -1, k.shape[-1]), 2, 0)


_in, _ = _pair("in", _maps_in, _maps_in_transposed, _images, _images_back, True)
_, _out = _pair("out", _maps_out_transposed, _maps_out, _images, _images_back, True)
_kernel, _ = _pair("kernel", _kernel_in, _kernel_in_transposed, _channels, _channels_back, False)


def turned(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``conv3x3`` as the transpose of the convolution by the turned kernel; it has no derivative.

    A transposed tile of the input is 4x4, not 6x6, and its transform has fewer terms: half the time
    of ``conv3x3`` on a CPU. Derivatives would be ``conv3x3``'s, so ``bilinear.py`` gives its own.
    """
    _, h, w, _ = x.shape
    below, right = -h % TILE, -w % TILE
    if below or right:
        x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
    places = map(jnp.matmul, _maps_out_transposed(x), _kernel_in(kernel[::-1, ::-1]))
    y = _maps_in_transposed(list(places), (h + below, w + right))
    return y[:, :h, :w] if below or right else y


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate [n, h, w, c] with [3, 3, c, o], stride 1, padding 1: [n, h, w, o].

    Sides that are not multiples of 4 are padded with zeros, and the result is cropped.
    """
    _, h, w, _ = x.shape
    below, right = -h % TILE, -w % TILE
    if below or right:
        x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
    size = (h + below, w + right)
    places = _in.bind(x, size=size)
    y = _out.bind(*map(jnp.matmul, places, _kernel.bind(kernel, size=None)), size=size)
    return y[:, :h, :w] if below or right else y
