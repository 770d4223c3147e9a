"""Storage formats of a teacher's label of one view, and their sizes.

With p = softmax(z / T) of the logits z of C classes:

``logits``             z, as float16; T is chosen when a student is trained;
``topk_marginal``      the k largest p; the others share the rest: (1 - sum) / (C - k) each;
``topk_renormalised``  the k largest p over their sum; the others have 0;
``smoothing``          the largest p, and (1 - p) / (C - 1): ``topk_marginal`` with k = 1;
``hard``               the class of the largest p, one-hot.

All except the first depend on the temperature T of their making. Only the largest p are stored, as
float16: relative error 2^-11, more below 2^-14, and 0 below 2^-25, so a large k at a small T
stores zeros. There is no form with all of softmax(z) in float16: most of it would underflow.

Source: FKD (Shen & Xing, ECCV 2022), section 3; full logits in float16 as SRe2L (Yin, Xing & Shen,
NeurIPS 2023) stores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.errors import BadInput
from jdd.training.recipe import Recipe

FORMS = ("logits", "topk_marginal", "topk_renormalised", "smoothing", "hard")
Array = Any  # of NumPy or of JAX


def validate(form: str, classes: int, k: int = 0, temperature: float = 1.0) -> None:
    """Refuse invalid settings of a form; ``k`` matters for the topk forms only.

    Raises:
      BadInput: an unknown form, fewer than two classes, k outside 1 .. C, T not above 0.
    """
    if form not in FORMS:
        raise BadInput("form of the labels", repr(form), f"one of {', '.join(FORMS)}")
    if classes < 2:
        raise BadInput("classes of the labels", str(classes), "2 or more")
    if form.startswith("topk") and not 1 <= k <= classes:
        raise BadInput(f"k of the labels' form {form}", str(k), f"1 to {classes}")
    if not 0 < temperature < np.inf:
        raise BadInput("temperature of the labels", str(temperature), "a number above 0")


def index_dtype(classes: int) -> np.dtype:
    """Return the smallest signed type, int16 or int32, that holds 0 .. C-1."""
    return np.dtype(np.int16 if classes <= 1 << 15 else np.int32)


def half(values: np.ndarray, where: str) -> np.ndarray:
    """Return values as float16.

    Raises:
      BadInput: one is NaN, infinite or beyond 65504. Such values are not clipped: the teacher is
        broken, and clipped labels would hide it.
    """
    most = np.abs(values).max(initial=0)
    if not most <= 65504:
        raise BadInput(where, f"largest magnitude {most:g}", "finite values up to 65504 (float16)")
    return values.astype(np.float16)


def layout(form: str, classes: int, k: int = 0) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return the arrays of one view's label: name -> (shape, dtype).

    Raises:
      BadInput: as ``validate``.
    """
    validate(form, classes, k)
    if form == "logits":
        return {"logits": ((classes,), np.dtype(np.float16))}
    count = k if form.startswith("topk") else 1
    arrays: dict[str, tuple[tuple[int, ...], np.dtype]]
    arrays = {"indices": ((count,), index_dtype(classes))}
    if form != "hard":
        arrays["values"] = ((count,), np.dtype(np.float16))
    return arrays


def top(values: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the k largest along the last axis, largest first, [.., k].

    Ties go to the lower index.
    """
    return np.argsort(-values, axis=-1, kind="stable")[..., :k]


def encode(logits: Array, form: str, k: int = 0, temperature: float = 1.0) -> dict[str, np.ndarray]:
    """Return the arrays of ``layout`` for ``logits`` [.., C], with the leading axes of ``logits``.

    Softmax and sums are in float64.

    Raises:
      BadInput: as ``validate``; logits that are not finite, or beyond 65504 where they are stored.
    """
    z = np.asarray(logits).astype(np.float64)
    classes = z.shape[-1]
    validate(form, classes, k, temperature)
    if form == "logits":
        return {"logits": half(z, "the teacher's logits")}
    if not np.isfinite(z).all():
        raise BadInput("the teacher's logits", "NaN or infinity", "finite values")
    count = k if form.startswith("topk") else 1
    indices = top(z, count)
    stored = {"indices": indices.astype(index_dtype(classes))}
    if form == "hard":
        return stored
    p = np.exp((z - z.max(-1, keepdims=True)) / temperature)
    values = np.take_along_axis(p, indices, -1) / p.sum(-1, keepdims=True)
    if form == "topk_renormalised":
        values /= values.sum(-1, keepdims=True)
    return {**stored, "values": half(values, "probabilities")}


def decode(stored: Mapping[str, Array], form: str, classes: int) -> tuple[str, Array]:
    """Undo ``encode``: return ("logits" or "probabilities", float32 [.., C]).

    Probabilities sum to 1: if the float16 values sum to more, or if there is no rest, they are
    divided by their sum and the rest is 0. NumPy arrays give NumPy arrays; JAX arrays give JAX
    arrays, and may be traced.

    Raises:
      BadInput: an unknown form.
    """
    if form not in FORMS:
        raise BadInput("form of the labels", repr(form), f"one of {', '.join(FORMS)}")
    if form == "logits":
        return "logits", stored["logits"].astype(np.float32)
    indices = stored["indices"]
    xp = _module(indices)
    if form == "hard":
        values = xp.ones(indices.shape, np.float32)
    else:
        values = stored["values"].astype(np.float32)
    total, others = values.sum(-1, keepdims=True), classes - indices.shape[-1]
    if form in ("hard", "topk_renormalised") or not others:
        return "probabilities", place(values / total, indices, xp.zeros_like(total), classes)
    rest = xp.maximum(1 - total, 0) / others
    return "probabilities", place(values / xp.maximum(total, 1), indices, rest, classes)


def place(values: Array, indices: Array, rest: Array, classes: int) -> Array:
    """Return [.., C]: ``values`` [.., k] at ``indices`` [.., k], ``rest`` [.., 1] elsewhere."""
    xp, indices = _module(indices), indices.astype(np.int32)
    out = xp.broadcast_to(rest, (*indices.shape[:-1], classes))
    if xp is jnp:
        return jnp.put_along_axis(out, indices, values, axis=-1, inplace=False)
    out = out.copy()
    np.put_along_axis(out, indices, values, axis=-1)
    return out


def _module(array: Array) -> Any:
    return jnp if isinstance(array, jax.Array) else np


def label_bytes(form: str | None, classes: int, k: int = 0) -> int:
    """Return the bytes of one view's label; form None: no label."""
    arrays = layout(form, classes, k).values() if form is not None else ()
    return sum(int(np.prod(shape, dtype=int)) * dtype.itemsize for shape, dtype in arrays)


def bytes_per_view(form: str | None, classes: int, k: int = 0, view_bytes: int = 0) -> int:
    """Return the bytes of one view in a store: its image's index, the view itself, its label."""
    return 4 + view_bytes + label_bytes(form, classes, k)


def steps_per_epoch(images: int, batch: int) -> int:
    """Return the steps of an epoch of stored labels, including a short last one."""
    return Recipe(order="stored", batch=batch).steps_per_epoch(images)


def expected_bytes(
    images: int,
    epochs: int,
    classes: int,
    form: str | None,
    k: int = 0,
    view_bytes: int = 0,
    batch: int = 0,
    step_bytes: int = 0,
) -> int:
    """Return the bytes of the arrays of a whole store, E S (b bytes_per_view + step_bytes).

    The files have some 300 bytes more for each array.

    Args:
      view_bytes: of the view of one image.
      batch: b; the padding of a short last batch counts. 0: all images, one step.
      step_bytes: of view arrays that have one entry per step.
    """
    b = min(batch or images, images)
    steps = steps_per_epoch(images, b)
    return epochs * steps * (b * bytes_per_view(form, classes, k, view_bytes) + step_bytes)
