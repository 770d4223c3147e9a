"""Matrix products with rounded operands: a TPU's or a GPU's default precision, on a CPU.

A TPU multiplies float32 matrices at JAX's ``default`` precision with operands rounded to bfloat16
(7 explicit bits of the mantissa), a GPU with operands rounded to TF32 (10 bits); both sum in
float32. At ``high`` a TPU adds three such products of the operands' upper and lower halves, which
is close to operands of 15 bits. ``highest`` is float32. Here the lowering of products and
convolutions rounds the operands, so that every program of the process has them: forward, backward
and second derivatives, whatever jdd calls them by.

Source: jax.lax.Precision; the summation on the accelerator itself is not imitated.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax._src.interpreters import mlir  # the table of lowerings is not public
from jax._src.lib.mlir.dialects import hlo

FLOAT32, HALVES, TF32, BFLOAT16 = 23, 15, 10, 7
_PRODUCTS = (lax.dot_general_p, lax.conv_general_dilated_p)
_bits = {lax.Precision.DEFAULT: FLOAT32, lax.Precision.HIGH: HALVES}


def use(bits: int) -> None:
    """Give products of ``default`` precision operands of ``bits`` explicit bits, from now on.

    Programs compiled before are forgotten.

    Args:
      bits: of the mantissa, 1 to 23; 23 is float32 and rounds nothing.
    """
    for primitive in _PRODUCTS:
        if primitive not in _rules:
            _rules[primitive] = _lowering(primitive)
            mlir.register_lowering(primitive, _rounding(_rules[primitive]), platform="cpu")
    _bits[lax.Precision.DEFAULT] = bits
    jax.clear_caches()


_rules: dict[Any, Any] = {}


def _lowering(primitive: Any) -> Any:
    own = mlir._platform_specific_lowerings["cpu"].get(primitive)
    return (own or mlir._lowerings[primitive]).rule


def _rounding(rule: Any) -> Any:
    def lower(ctx: Any, lhs: Any, rhs: Any, **params: Any) -> Any:
        given = params.get("precision")
        ours, theirs = given if isinstance(given, tuple) else (given, given)
        operands = zip((lhs, rhs), ctx.avals_in, (ours, theirs), strict=True)
        return rule(ctx, *(_rounded(x, a, p) for x, a, p in operands), **params)

    return lower


def _rounded(x: Any, aval: Any, precision: lax.Precision | None) -> Any:
    bits = _bits.get(precision or lax.Precision.DEFAULT, FLOAT32)
    if bits >= FLOAT32 or aval.dtype != jnp.float32:
        return x
    return hlo.reduce_precision(x, mlir.i32_attr(8), mlir.i32_attr(bits))
