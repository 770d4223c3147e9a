"""The only convolution of jdd, and the 2x2 poolings.

XLA on CPU runs its own convolution tens of times slower inside ``lax.scan`` than the same sum
written as patches and one matrix product, so on CPU that is what runs. Under ``vmap`` over
different kernels it becomes a batched matrix product instead of a grouped convolution. Elsewhere
the library convolution is the right choice.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


class TooSmall(ValueError):
    """A map has become too small for the next layer; ``nets.make`` says so to the user."""


LOWERINGS = ("auto", "patches", "library")


def conv(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, lowering: str = "auto"
) -> jax.Array:
    """Correlate images with a kernel: ``y[n,i,j,o] = sum_abc x[n,si+a-p,sj+b-p,c] k[a,b,c,o]``.

    Args:
      x: images, [n, h, w, c].
      kernel: [kh, kw, c, o].
      stride: step of the output grid, the same for rows and columns.
      padding: zeros added on each of the four sides, in pixels.
      lowering: "patches" (static slices and one product), "library" (XLA's convolution) or "auto"
        (patches where the default backend is the CPU).

    Returns:
      [n, (h + 2p - kh) // s + 1, (w + 2p - kw) // s + 1, o].

    Raises:
      TooSmall: the kernel does not fit into the padded image.
      ValueError: an unknown lowering.
    """
    if lowering not in LOWERINGS:
        raise ValueError(f"lowering: {lowering!r}; one of {', '.join(LOWERINGS)}")
    if min(x.shape[1] - kernel.shape[0], x.shape[2] - kernel.shape[1]) + 2 * padding < 0:
        fit = f"a kernel of {kernel.shape[0]}x{kernel.shape[1]} does not fit"
        raise TooSmall(f"{fit} a map of {x.shape[1]}x{x.shape[2]}")
    if lowering == "auto":
        lowering = "patches" if jax.default_backend() == "cpu" else "library"
    if lowering == "patches":
        return _by_patches(x, kernel, stride, padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding), (padding, padding)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _by_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    kh, kw, channels, out = kernel.shape
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    n, h, w, _ = x.shape
    rows, cols = (h - kh) // stride + 1, (w - kw) // stride + 1
    slices = [
        lax.slice(
            x,
            (0, a, b, 0),
            (n, a + (rows - 1) * stride + 1, b + (cols - 1) * stride + 1, channels),
            (1, stride, stride, 1),
        )
        for a in range(kh)
        for b in range(kw)
    ]
    patches = slices[0] if len(slices) == 1 else jnp.concatenate(slices, axis=-1)
    return patches @ kernel.reshape(kh * kw * channels, out)


def _windows(x: jax.Array) -> jax.Array:
    """View [n, h, w, c] as [n, h//2, 2, w//2, 2, c]; a last odd row or column is dropped."""
    n, h, w, c = x.shape
    if min(h, w) < 2:
        raise TooSmall(f"a map of {h}x{w} cannot be pooled by 2x2")
    if h % 2 or w % 2:
        x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def avg_pool(x: jax.Array) -> jax.Array:
    """Average over 2x2 windows, stride 2; odd sizes are floored."""
    return _windows(x).mean((2, 4))


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows, stride 2; odd sizes are floored.

    The gradient goes to the first maximum of a window, as in PyTorch. It is chosen by comparisons
    and not by ``max``, whose derivative looks for the place that equals the result: where XLA
    computes x a second time with another rounding there is none, and the gradient is NaN.
    """
    windows = _windows(x)
    rows = [_greater(windows[:, :, i, :, 0], windows[:, :, i, :, 1]) for i in (0, 1)]
    return _greater(*rows)


def _greater(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.where((second > first) | jnp.isnan(second), second, first)
