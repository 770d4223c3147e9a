"""Convolutions and poolings of all nets; NFResNet convolves by ``bilinear.py``.

On CPU the fastest form of a 3x3 convolution of many channels is Winograd's (``winograd.py``). It
takes long to compile: only nets of few layers, which are trained for many steps, use it. Otherwise
the fastest form depends on the product. XLA's own convolution is the fastest forward and for the
input's gradient, a correlation of the cotangent with the rotated kernel; for the kernel's gradient,
and for nets of different kernels under ``vmap``, it falls back to plain loops, tens of times
slower. So on CPU the convolution is a custom primitive: bilinear, with a second one for the
kernel's gradient, each the other's derivative, so that every order of differentiation uses the fast
forms. On accelerators the library convolution is used.

One kernel per channel (``depthwise``) leaves no matrix product: on CPU it is a sum of weighted
shifts of the image, which XLA fuses into one loop; XLA's grouped convolution takes 10 times as long
there, and more for the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jdd.nets import winograd


class TooSmall(ValueError):
    """A map is too small for the next layer; ``nets.make`` reports it to the user."""


LOWERINGS = ("auto", "winograd", "split", "patches", "library")


def conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: int = 0,
    lowering: str = "auto",
    few: bool = False,
) -> jax.Array:
    """Correlate images with a kernel: ``y[n,i,j,o] = sum_abc x[n,si+a-p,sj+b-p,c] k[a,b,c,o]``.

    Args:
      x: images, [n, h, w, c].
      kernel: [kh, kw, c, o].
      stride: step of the output grid, the same for rows and columns.
      padding: zeros added on each of the four sides, in pixels.
      lowering: "library" (XLA's convolution), "patches" (static slices and one product), "split"
        (this module's primitives: float32, stride 1, square kernels), "winograd" (3x3, stride 1,
        padding 1) or "auto": on CPU the fastest (``_on_cpu``); elsewhere library.
      few: the net has few convolutions: "auto" may take winograd on CPU.

    Returns:
      [n, (h + 2p - kh) // s + 1, (w + 2p - kw) // s + 1, o].

    Raises:
      TooSmall: the kernel does not fit into the padded image.
      ValueError: an unknown lowering, or winograd for an unsupported convolution.
    """
    if lowering not in LOWERINGS:
        raise ValueError(f"lowering: {lowering!r}; one of {', '.join(LOWERINGS)}")
    _validate_fit(x, kernel, padding)
    if lowering == "auto":
        cpu = jax.default_backend() == "cpu"
        lowering = _on_cpu(x, kernel, stride, padding, few) if cpu else "library"
    if lowering == "winograd":
        if (*kernel.shape[:2], stride, padding) != (3, 3, 1, 1):
            raise ValueError("winograd: 3x3 kernels, stride 1, padding 1")
        return winograd.conv3x3(x, kernel)
    if lowering == "patches":
        return patches(x, kernel.shape[0], kernel.shape[1], stride, padding) @ kernel.reshape(
            -1, kernel.shape[-1]
        )
    if lowering == "split":
        beyond = padding - kernel.shape[0] + 1
        if beyond > 0:  # the input's gradient would be a correlation with negative padding
            x = jnp.pad(x, ((0, 0), (beyond, beyond), (beyond, beyond), (0, 0)))
        return _conv.bind(x, kernel, padding=padding - max(beyond, 0))
    return _library(x, kernel, padding, stride)


def depthwise(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, lowering: str = "auto"
) -> jax.Array:
    """Correlate each channel with its own kernel:

        y[n,i,j,c] = sum_ab x[n,si+a-p,sj+b-p,c] k[a,b,0,c]

    Args:
      x: images, [n, h, w, c].
      kernel: [kh, kw, 1, c].
      stride, padding: as for ``conv``.
      lowering: "library" (XLA's grouped convolution), "shifts" (a sum over the kernel's places) or
        "auto": on CPU shifts, elsewhere library.

    Returns:
      [n, (h + 2p - kh) // s + 1, (w + 2p - kw) // s + 1, c].

    Raises:
      TooSmall: the kernel does not fit into the padded image.
      ValueError: an unknown lowering.
    """
    if lowering not in ("auto", "library", "shifts"):
        raise ValueError(f"lowering: {lowering!r}; one of auto, library, shifts")
    _validate_fit(x, kernel, padding)
    if lowering == "library" or lowering == "auto" and jax.default_backend() != "cpu":
        return _library(x, kernel, padding, stride, groups=x.shape[-1])
    kh, kw, _, channels = kernel.shape
    weights = kernel.reshape(kh * kw, 1, 1, 1, channels)
    shifts = _shifts(_padded(x, padding), kh, kw, stride)
    total = shifts[0] * weights[0]
    for place in range(1, kh * kw):
        total = total + shifts[place] * weights[place]
    return total


def _validate_fit(x: jax.Array, kernel: jax.Array, padding: int) -> None:
    if min(x.shape[1] - kernel.shape[0], x.shape[2] - kernel.shape[1]) + 2 * padding < 0:
        fit = f"a kernel of {kernel.shape[0]}x{kernel.shape[1]} does not fit"
        raise TooSmall(f"{fit} a map of {x.shape[1]}x{x.shape[2]}")


def _on_cpu(x: jax.Array, kernel: jax.Array, stride: int, padding: int, few: bool) -> str:
    square = kernel.shape[0] == kernel.shape[1] > 1 and stride == 1
    # With few channels the 36 products are too small to outweigh the transforms.
    large = min(kernel.shape[2:]) >= 64 and min(x.shape[1:3]) >= 7
    exact = x.dtype == kernel.dtype and x.dtype in (jnp.float32, jnp.float64)
    if few and exact and square and kernel.shape[0] == 3 and padding == 1 and large:
        return "winograd"
    # XLA's fast CPU convolution is float32 only; a 1x1 kernel is a plain product already.
    return "split" if square and x.dtype == kernel.dtype == jnp.float32 else "patches"


def _library(
    x: jax.Array, kernel: jax.Array, padding: int, stride: int = 1, groups: int = 1
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding), (padding, padding)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def patches(x: jax.Array, kh: int, kw: int, stride: int, padding: int) -> jax.Array:
    """Return the input at each place of the kernel, ``[n, rows, cols, kh kw c]``."""
    slices = _shifts(_padded(x, padding), kh, kw, stride)
    return slices[0] if len(slices) == 1 else jnp.concatenate(slices, axis=-1)


def _padded(x: jax.Array, padding: int, value: float = 0.0) -> jax.Array:
    if not padding:
        return x
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jnp.pad(x, margins, constant_values=value)


def _shifts(x: jax.Array, kh: int, kw: int, stride: int) -> list[jax.Array]:
    """Return the input at each place of the kernel, row-major, each [n, rows, cols, c]."""
    n, h, w, channels = x.shape
    rows, cols = (h - kh) // stride + 1, (w - kw) // stride + 1
    return [
        lax.slice(
            x,
            (0, a, b, 0),
            (n, a + (rows - 1) * stride + 1, b + (cols - 1) * stride + 1, channels),
            (1, stride, stride, 1),
        )
        for a in range(kh)
        for b in range(kw)
    ]


# The two primitives, with stride 1, x [n, h, w, c], k [s, s, c, o], y [n, h', w', o]:
#   y  = conv(x, k)      y[n,i,j,o]  = sum_abc x[n,i+a-p,j+b-p,c] k[a,b,c,o]
#   dk = conv_k(x, g)    dk[a,b,c,o] = sum_nij x[n,i+a-p,j+b-p,c] g[n,i,j,o]
# Both are bilinear, and dx = conv(g, rotated k) with padding s - 1 - p.
_CHUNK = 8 << 20  # bytes of patches at a time, so that they stay in the caches


def _turned(kernel: jax.Array) -> jax.Array:
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def _kernel_gradient(x: jax.Array, g: jax.Array, padding: int) -> jax.Array:
    n, h, w, c = x.shape
    _, rows, cols, out = g.shape
    size = h + 2 * padding - rows + 1

    turned = c >= out  # then patches of the cotangent are no larger and give the faster product

    def part(x: jax.Array, g: jax.Array) -> jax.Array:
        if turned:
            taken = patches(g, size, size, 1, size - 1 - padding).reshape(-1, size * size * out)
            return x.reshape(-1, c).T @ taken
        taken = patches(x, size, size, 1, padding).reshape(-1, size * size * c)
        return taken.T @ g.reshape(-1, out)

    def shaped(total: jax.Array) -> jax.Array:
        if turned:
            return jnp.flip(total.reshape(c, size, size, out), (1, 2)).transpose(1, 2, 0, 3)
        return total.reshape(size, size, c, out)

    many = max(1, _CHUNK // (4 * rows * cols * size * size * min(c, out)))
    whole = n // many * many
    if n <= 2 * many:
        return shaped(part(x, g))

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        pair = (lax.dynamic_slice_in_dim(a, i * many, many) for a in (x, g))
        return total + part(*pair)

    # The remainder comes first; a full part if there is none.
    first = part(x[whole:], g[whole:]) if whole < n else part(x[:many], g[:many])
    return shaped(lax.fori_loop(int(whole == n), whole // many, add, first))


def _bilinear(name: str, fn: Any) -> Primitive:
    """Make a primitive of ``fn(a, b, padding)``; its derivative rules are given afterwards."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(fn, static_argnames="padding"))
    mlir.register_lowering(primitive, mlir.lower_fun(fn, multiple_results=False))

    def shape(a: Any, b: Any, *, padding: int) -> Any:
        found = jax.eval_shape(lambda a, b: fn(a, b, padding), a, b)
        return a.update(shape=found.shape, dtype=found.dtype, weak_type=False)

    primitive.def_abstract_eval(shape)
    return primitive


def _forward(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    _, h, w, c = x.shape
    # For a map smaller than the kernel on both sides XLA swaps the two and takes up to 130 times as
    # long as the product of patches (2x2 maps of 512 channels, VGG11's last).
    if max(h, w) < kernel.shape[0]:
        size = kernel.shape[0]
        return patches(x, size, size, 1, padding) @ kernel.reshape(size * size * c, -1)
    return _library(x, kernel, padding)


_conv = _bilinear("jdd_conv", _forward)
_conv_k = _bilinear("jdd_conv_kernel_gradient", _kernel_gradient)


def _dx(cotangent: jax.Array, x: Any, kernel: jax.Array, *, padding: int) -> jax.Array:
    return _conv.bind(cotangent, _turned(kernel), padding=kernel.shape[0] - 1 - padding)


def _dk(cotangent: jax.Array, x: jax.Array, kernel: Any, *, padding: int) -> jax.Array:
    return _conv_k.bind(x, cotangent, padding=padding)


def _dk_x(cotangent: jax.Array, x: Any, g: jax.Array, *, padding: int) -> jax.Array:
    return _dx(cotangent=g, x=x, kernel=cotangent, padding=padding)


def _dk_g(cotangent: jax.Array, x: jax.Array, g: Any, *, padding: int) -> jax.Array:
    return _conv.bind(x, cotangent, padding=padding)


ad.defbilinear(_conv, _dx, _dk)
ad.defbilinear(_conv_k, _dk_x, _dk_g)


def _one_by_one(
    primitive: Primitive, args: Sequence[jax.Array], axes: Sequence[Any], padding: int
) -> tuple[jax.Array, int]:
    # A loop, each convolution on all cores, is far faster than XLA's grouped convolution.
    moved = [
        a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(args, axes, strict=True)
    ]
    mapped = [a for a, axis in zip(moved, axes, strict=True) if axis is not None]

    def one(items: list[jax.Array]) -> jax.Array:
        left = iter(items)
        pair = [a if axis is None else next(left) for a, axis in zip(moved, axes, strict=True)]
        return primitive.bind(*pair, padding=padding)

    return lax.map(one, mapped), 0


def _conv_batch(args: Sequence[jax.Array], axes: Sequence[Any], *, padding: int) -> Any:
    x, kernel = args
    if axes[1] is not None:
        return _one_by_one(_conv, args, axes, padding)
    x = jnp.moveaxis(x, axes[0], 0)
    y = _conv.bind(x.reshape(-1, *x.shape[2:]), kernel, padding=padding)
    return y.reshape(*x.shape[:2], *y.shape[1:]), 0


def _conv_k_batch(args: Sequence[jax.Array], axes: Sequence[Any], *, padding: int) -> Any:
    return _one_by_one(_conv_k, args, axes, padding)


batching.primitive_batchers[_conv] = _conv_batch
batching.primitive_batchers[_conv_k] = _conv_k_batch


def _windows(x: jax.Array) -> jax.Array:
    """View [n, h, w, c] as [n, h//2, 2, w//2, 2, c]; a last odd row or column is dropped."""
    n, h, w, c = x.shape
    if min(h, w) < 2:
        raise TooSmall(f"a map of {h}x{w} cannot be pooled by 2x2")
    if h % 2 or w % 2:
        x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def avg_pool(x: jax.Array) -> jax.Array:
    """Average over 2x2 windows, stride 2; odd sizes are floored.

    A sum of four places instead of ``mean``, whose derivative XLA fuses into its consumer in a form
    that takes twice as long on a CPU.
    """
    windows = _windows(x)
    first, second = (windows[:, :, i, :, 0] + windows[:, :, i, :, 1] for i in (0, 1))
    return 0.25 * (first + second)


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows, stride 2; odd sizes are floored.

    The gradient goes to the first maximum of a window, as in PyTorch. Comparisons select it, not
    ``max``, whose derivative searches for the place that equals the result: if XLA recomputes x
    with another rounding there is none, and the gradient is NaN.
    """
    windows = _windows(x)
    rows = [greater(windows[:, :, i, :, 0], windows[:, :, i, :, 1]) for i in (0, 1)]
    return greater(*rows)


def overlapping_max_pool(x: jax.Array) -> jax.Array:
    """Maximum over 3x3 windows, stride 2, one pixel of padding that never wins.

    [n, h, w, c] -> [n, (h + 1) // 2, (w + 1) // 2, c]. The gradient goes to the first maximum of a
    window in row-major order, as in PyTorch; by comparisons, as in ``max_pool``.
    """
    if min(x.shape[1:3]) < 2:
        raise TooSmall(f"a map of {x.shape[1]}x{x.shape[2]} cannot be pooled by 3x3")
    best, *others = _shifts(_padded(x, 1, -jnp.inf), 3, 3, 2)
    for here in others:
        best = greater(best, here)
    return best


def greater(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return the elementwise maximum; ties send the gradient to the first, NaN stays NaN."""
    return jnp.where((second > first) | jnp.isnan(second), second, first)
