"""Convolution as three bilinear products, each with its own form on a CPU.

With stride s and padding p, x [n, h, w, c], k [kh, kw, c, o], y [n, i, j, o]:

    y  = F(x, k)   y[n,i,j,o]  = sum_abc x[n,si+a-p,sj+b-p,c] k[a,b,c,o]
    dx = X(g, k)   dx[n,si+a-p,sj+b-p,c] = sum_ijabo g[n,i,j,o] k[a,b,c,o]
    dk = K(x, g)   dk[a,b,c,o] = sum_nij x[n,si+a-p,sj+b-p,c] g[n,i,j,o]

Transposing one of them gives the other two, so derivatives of every order are these three:

    F  XLA's convolution. Few inputs or outputs would leave its registers empty: then two
       neighbouring columns are one place of twice the channels, with a third more multiplications.
    X  with a stride, one convolution of g for each of the s row phases of x, which yields s columns
       at a time: whole rows are all that has to be interleaved.
    K  products of x at the kernel's rows, one by one, [.., s c], with g at all its columns: a third
       of the copies of patches at all places. Parts of the batch are summed, to stay in the caches.

Where it is asked for, F and X of 3x3 kernels are Winograd's form (``winograd.py:turned``), as each
is the other one with a turned kernel: half the time from 32 channels on, and seconds to compile.

``conv.py`` serves the nets whose results are pinned bit by bit. Its strided convolution multiplies
patches, and is four times as slow on 64 x 64 maps of 16 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jdd.nets import conv as general
from jdd.nets import winograd as tiles

Pads = tuple[tuple[int, int], tuple[int, int]]
_PART = 1 << 20  # bytes of patches at a time
_FEW = 8  # channels
_WIDE, _LARGE = 32, 8  # channels and rows from which Winograd's form is faster


class Grid(NamedTuple):
    """What of a convolution its operands do not tell.

    size: of the kernel, (kh, kw). stride, padding: in pixels. image: (h, w) of x. winograd:
    Winograd's form of F and X.
    """

    size: tuple[int, int]
    stride: int
    padding: int
    image: tuple[int, int]
    winograd: bool = False

    @property
    def out(self) -> tuple[int, int]:
        """Return the size of y."""
        rows, cols = (
            (side + 2 * self.padding - k) // self.stride + 1
            for side, k in zip(self.image, self.size, strict=True)
        )
        return rows, cols

    def shifts(self, phase: int, axis: int) -> range:
        """Return d of the places i + d of g that meet pixel s i + phase: a = phase + p - s d."""
        size, top = self.size[axis], phase + self.padding
        return range(-((size - 1 - top) // self.stride), top // self.stride + 1)


def conv(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, winograd: bool = False
) -> jax.Array:
    """Correlate images with a kernel, as ``conv.conv``, which computes it except on a CPU.

    Args:
      x: images, [n, h, w, c].
      kernel: [kh, kw, c, o].
      stride: step of the output grid.
      padding: zeros added on each of the four sides, in pixels.
      winograd: take Winograd's form where it is faster.

    Returns:
      [n, (h + 2p - kh) // s + 1, (w + 2p - kw) // s + 1, o].

    Raises:
      TooSmall: the kernel does not fit into the padded image.
    """
    (kh, kw), (h, w) = kernel.shape[:2], x.shape[1:3]
    wide = min(kernel.shape[2:]) >= _WIDE and min(h, w) >= _LARGE and x.dtype == jnp.float32
    fits = wide and (kh, kw, stride, padding) == (3, 3, 1, 1)
    grid = Grid((kh, kw), stride, padding, (h, w), winograd and fits)
    plain = grid.size == (1, 1) or min(grid.size) < stride or min(grid.out) < 1
    if plain or jax.default_backend() != "cpu":
        return general.conv(x, kernel, stride, padding)
    return _f.bind(x, kernel, grid=grid)


def _correlate(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    """Return the correlation with zeros added, or rows and columns taken off, at each side."""
    kh, kw, c, o = kernel.shape
    small = max(x.shape[1:3]) < max(kh, kw)  # XLA swaps the two, and loops (``conv.py``)
    if x.dtype == jnp.float32 and not small and min(map(min, pads)) >= 0:
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=names)
    edges = [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    taken = [
        lax.slice(x, (0, a, b, 0), (len(x), x.shape[1] - kh + a + 1, x.shape[2] - kw + b + 1, c),
                  (1, *strides, 1))
        for a in range(kh) for b in range(kw)
    ]  # fmt: skip
    return jnp.concatenate(taken, -1) @ kernel.reshape(-1, o)


def _same_stride(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Return ``_correlate`` of stride 1; two columns as one place where channels are few."""
    kh, kw, c, o = kernel.shape
    cols = x.shape[2] + sum(pads[1]) - kw + 1
    if min(c, o) > _FEW or cols % 2 or kw % 2 == 0 or min(map(min, pads)) < 0:
        return _correlate(x, kernel, (1, 1), pads)
    both = [jnp.pad(kernel, ((0, 0), (q, 1 - q), (0, 0), (0, 0))) for q in range(2)]
    wide = jnp.concatenate(both, -1)  # [kh, kw + 1, c, 2 o]
    if c <= _FEW:
        wide = wide.reshape(kh, (kw + 1) // 2, 2 * c, 2 * o)
        x = jnp.pad(x, ((0, 0), (0, 0), pads[1], (0, 0)))
        x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2 * c)
        y = _correlate(x, wide, (1, 1), (pads[0], (0, 0)))
    else:
        y = _correlate(x, wide, (1, 2), pads)
    return y.reshape(*y.shape[:2], cols, o)


def _forward(x: jax.Array, kernel: jax.Array, grid: Grid) -> jax.Array:
    pads = ((grid.padding, grid.padding),) * 2
    if grid.winograd:
        return tiles.turned(x, kernel)
    if grid.stride == 1:
        return _same_stride(x, kernel, pads)
    return _correlate(x, kernel, (grid.stride, grid.stride), pads)


def _phase(kernel: jax.Array, grid: Grid, row: int) -> tuple[jax.Array, range, range]:
    """Return the kernel that takes g to the row phase's pixels, s columns at a time; its shifts."""
    _, kw, c, o = kernel.shape
    s, p = grid.stride, grid.padding
    down, each = grid.shifts(row, 0), [grid.shifts(phase, 1) for phase in range(s)]
    across = range(min(r.start for r in each), max(r.stop for r in each))
    zero = jnp.zeros((c, o), kernel.dtype)

    def at(d: int, e: int, phase: int) -> jax.Array:
        return kernel[row + p - s * d, phase + p - s * e] if e in each[phase] else zero

    places = [jnp.stack([at(d, e, t) for t in range(s)]) for d in down for e in across]
    wide = jnp.stack(places).reshape(len(down), len(across), s * c, o)
    return wide.swapaxes(2, 3), down, across


def _input_gradient(g: jax.Array, kernel: jax.Array, grid: Grid) -> jax.Array:
    (h, w), s, c = grid.image, grid.stride, kernel.shape[2]
    blocks = (-(-h // s), -(-w // s))

    def pads(*shifts: range) -> Pads:
        ends = zip(shifts, blocks, g.shape[1:3], strict=True)
        first, second = ((-r.start, count + r.stop - 1 - out) for r, count, out in ends)
        return first, second

    if s == 1:
        turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        if grid.winograd:
            return tiles.turned(g, turned)
        return _same_stride(g, turned, pads(grid.shifts(0, 0), grid.shifts(0, 1)))
    phases = []
    for row in range(s):
        wide, *shifts = _phase(kernel, grid, row)
        found = _correlate(g, wide, (1, 1), pads(*shifts))
        phases.append(found.reshape(len(g), blocks[0], 1, blocks[1] * s, c))
    joined = jnp.concatenate(phases, 2).reshape(len(g), blocks[0] * s, blocks[1] * s, c)
    return joined[:, :h, :w]


def _kernel_gradient(x: jax.Array, g: jax.Array, grid: Grid) -> jax.Array:
    n, h, w, c = x.shape
    (kh, kw), s, p, o = grid.size, grid.stride, grid.padding, g.shape[3]
    rows, cols = grid.out
    blocks = -(-w // s)
    each = [grid.shifts(phase, 1) for phase in range(s)]
    across = range(min(r.start for r in each), max(r.stop for r in each))
    below = max(0, s * (rows - 1) + kh - p - h)

    def part(x: jax.Array, g: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (p, below), (0, blocks * s - w), (0, 0)))
        x = x.reshape(len(x), -1, blocks, s * c)
        ends = (-across.start, blocks + across.stop - 1 - cols)
        g = lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), (0, 0, 0), (*ends, 0), (0, 0, 0)))
        right = [lax.slice_in_dim(g, e, e + blocks, 1, 2) for e in range(len(across))]
        right = lax.optimization_barrier(jnp.concatenate(right, -1).reshape(-1, len(across) * o))
        last = s * (rows - 1) + 1
        left = [lax.slice_in_dim(x, a, a + last, s, 1).reshape(-1, s * c) for a in range(kh)]
        return jnp.stack([one.T @ right for one in left])

    row = 4 * rows * blocks * (s * c + len(across) * o)
    total = _sum_over_parts(part, x, g, max(1, _PART // row))
    total = total.reshape(kh, s, c, len(across), o)
    taken = []
    for b in range(kw):
        phase = (b - p) % s
        taken.append(total[:, phase, :, (phase + p - b) // s - across.start])
    return jnp.stack(taken, 1)


def _sum_over_parts(
    part: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, g: jax.Array, many: int
) -> jax.Array:
    """Return the sum of ``part`` over ``many`` images at a time."""
    n = len(x)
    if n <= 2 * many:
        return part(x, g)
    whole = n // many * many

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        pair = (lax.dynamic_slice_in_dim(a, i * many, many) for a in (x, g))
        return total + part(*pair)

    # The remainder comes first; a full part if there is none.
    first = part(x[whole:], g[whole:]) if whole < n else part(x[:many], g[:many])
    return lax.fori_loop(int(whole == n), whole // many, add, first)


def _bilinear(name: str, fn: Callable[..., jax.Array]) -> Primitive:
    """Make a primitive of ``fn(a, b, grid)``; its derivative rules are given afterwards."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(fn, static_argnames="grid"))
    mlir.register_lowering(primitive, mlir.lower_fun(fn, multiple_results=False))

    def shape(a: Any, b: Any, *, grid: Grid) -> Any:
        found = jax.eval_shape(lambda a, b: fn(a, b, grid), a, b)
        return a.update(shape=found.shape, dtype=found.dtype, weak_type=False)

    def one_by_one(args: Sequence[jax.Array], axes: Sequence[Any], *, grid: Grid) -> Any:
        """A loop: XLA's grouped convolution takes several times as long."""
        moved = [a if i is None else jnp.moveaxis(a, i, 0) for a, i in zip(args, axes, strict=True)]
        mapped = [a for a, i in zip(moved, axes, strict=True) if i is not None]

        def one(items: list[jax.Array]) -> jax.Array:
            left = iter(items)
            pair = [a if i is None else next(left) for a, i in zip(moved, axes, strict=True)]
            found: jax.Array = primitive.bind(*pair, grid=grid)
            return found

        return lax.map(one, mapped), 0

    primitive.def_abstract_eval(shape)
    batching.primitive_batchers[primitive] = one_by_one
    return primitive


_f = _bilinear("jdd_bilinear_conv", _forward)
_x = _bilinear("jdd_bilinear_conv_input", _input_gradient)
_k = _bilinear("jdd_bilinear_conv_kernel", _kernel_gradient)

ad.defbilinear(
    _f,
    lambda y, x, kernel, *, grid: _x.bind(y, kernel, grid=grid),
    lambda y, x, kernel, *, grid: _k.bind(x, y, grid=grid),
)
ad.defbilinear(
    _x,
    lambda dx, g, kernel, *, grid: _f.bind(dx, kernel, grid=grid),
    lambda dx, g, kernel, *, grid: _k.bind(dx, g, grid=grid),
)
ad.defbilinear(
    _k,
    lambda dk, x, g, *, grid: _x.bind(g, dk, grid=grid),
    lambda dk, x, g, *, grid: _f.bind(x, dk, grid=grid),
)
