"""Views: the random draws of an augmentation as data, stored and replayed without a generator.

The augmentations of SRe2L (Yin, Xing & Shen, NeurIPS 2023), CDA (Yin & Shen, TMLR 2024), G-VBSM
(Shao et al., CVPR 2024), RDED (Sun et al., CVPR 2024) and FKD (Shen & Xing, ECCV 2022), in this
order: shuffle cells, crop and resize, flip, roll; then cutmix or mixup with another image's view.
RandAugment (``randaugment.py``) may come first; it has no gradient. ``draw`` draws a ``View``,
``apply`` applies it. The rest before the mix is one linear map of the rows and one of the columns,
so that gradients reach the images. For a given view, one program gives equal bits.

Outside the image a crop shows 0 in the space of the images, which is the mean pixel of normalised
ones, or ``border``. PyTorch pads before it normalises: its black is ``(0 - mean) / std``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd.augment import randaugment
from jdd.augment.resample import crop_taps, separable
from jdd.errors import BadInput

CROPS, MIXES, TRIES = ("none", "resized", "padded"), ("none", "cutmix", "mixup"), 10


class View(NamedTuple):
    """A view of n images of h x w; all integers int32.

    box: [n, 4], the crop in pixels: top, left, height, width; it may reach outside.
    flip: bool [n], mirrored left and right after the crop.
    shift: [n, 2], circular shift of rows and columns (as ``np.roll``), after the flip.
    partner: [n], index of the image whose view is mixed in; its own index for none.
    patch: [n, 4], cutmix: rows lo, hi and columns lo, hi taken from the partner; lo = hi for none.
    share: float32 [n], mixup: the image's own share, 1 for none.
    rows, cols: [n, f], the order of f strips of rows (columns), before the crop; f = 1 for none.
    ops: [n, k], operations of RandAugment, applied first; None for none.
    strength: float32 [n, k], their signed strengths; None for none.
    """

    box: jax.Array
    flip: jax.Array
    shift: jax.Array
    partner: jax.Array
    patch: jax.Array
    share: jax.Array
    rows: jax.Array
    cols: jax.Array
    ops: jax.Array | None = None
    strength: jax.Array | None = None


# Stored dtypes: int16 holds every pixel's index; a batch may have more images than that.
STORED = {
    "box": np.int16,
    "flip": np.bool_,
    "shift": np.int16,
    "partner": np.int32,
    "patch": np.int16,
    "share": np.float32,
    "rows": np.int16,
    "cols": np.int16,
}
# Of views that have these fields.
OPTIONAL = {"ops": np.int8, "strength": np.float32}


class Spec(NamedTuple):
    """Static specification of ``draw``; hashable.

    crop: "none"; "resized", of area ~ U(``scale``) and log width / height ~ U(log ``ratio``); or
        "padded", a crop of the image's size from the image padded by ``pad``.
    flip: the probability of a mirrored image.
    roll: shifts of 0 .. roll rows and columns; with ``signed`` of -roll .. roll.
    mix: "none", "cutmix" or "mixup", with lambda ~ Beta(``alpha``, ``alpha``).
    shuffle: the number of strips of rows and of columns that are permuted, 1 for none; one
        permutation for the batch, or with ``own_shuffle`` one per image, as in RDED's code.
    shared: one box, flip and shift for the whole batch, as in SRe2L's recovery.
    randaugment, magnitude: RandAugment's number of operations, 0 for none, and their strength.
    """

    crop: str = "none"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 4
    flip: float = 0.5
    roll: int = 0
    signed: bool = False
    mix: str = "none"
    alpha: float = 1.0
    shuffle: int = 1
    own_shuffle: bool = False
    shared: bool = False
    randaugment: int = 0
    magnitude: int = 9

    def to_json(self) -> dict[str, object]:
        """Return the fields by name, for settings; those of RandAugment only if it is on."""
        off = () if self.randaugment else ("randaugment", "magnitude")
        return {name: value for name, value in self._asdict().items() if name not in off}


def draw(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    spec: Spec,
    low: jax.Array | float | None = None,
) -> View:
    """Draw a view of ``n`` images.

    Crop, flip and shift, mix, shuffle and RandAugment have independent draws: none depends on
    whether the spec has the others.

    Args:
      key: PRNG key.
      n: the number of images.
      shape: of an image, (h, w) or (h, w, c).
      spec: the distribution of views.
      low: replaces ``spec.scale[0]``, may be traced: CDA's curriculum.

    Raises:
      BadInput: a spec that cannot be drawn.
    """
    validate(spec, shape)
    h, w = shape[:2]
    keys = jax.random.split(key, 3)
    # Always float32, so that the draw does not depend on the images' dtype. One draw serves all
    # operations: separate generators would dominate the compile time.
    u = jax.random.uniform(keys[0], (1 if spec.shared else n, 5 + 2 * TRIES), jnp.float32)
    least = -spec.roll if spec.signed else 0
    flip, shift = u[:, 0] < spec.flip, least + _whole(u[:, 1:3], spec.roll + 1 - least)
    box = jnp.broadcast_to(jnp.array([[0, 0, h, w]], jnp.int32), (len(u), 4))
    if spec.crop == "resized":
        box = resized_boxes(u[:, 3:], h, w, spec.scale, spec.ratio, low)
    elif spec.crop == "padded":
        place = _whole(u[:, 3:5], 2 * spec.pad + 1) - spec.pad
        box = jnp.concatenate([place, box[:, 2:]], 1)
    box, flip, shift = (jnp.broadcast_to(a, (n, *a.shape[1:])) for a in (box, flip, shift))
    view = View(box, flip, shift, *_mix(keys[1], n, h, w, spec), *_strips(keys[2], n, spec))
    if not spec.randaugment:
        return view
    own = jax.random.fold_in(key, 3)
    ops, strength = randaugment.draw(own, n, (h, w), spec.randaugment, spec.magnitude)
    return view._replace(ops=ops, strength=strength)


def _whole(uniform: jax.Array, count: jax.Array | int) -> jax.Array:
    """Map uniform draws of [0, 1) to integers 0 .. count - 1."""
    return jnp.floor(uniform * count).astype(jnp.int32)


def validate(spec: Spec, shape: tuple[int, ...]) -> None:
    """Refuse a spec that cannot be drawn for images of ``shape``.

    Raises:
      BadInput: naming the field that does not fit.
    """
    for name, known in (("crop", CROPS), ("mix", MIXES)):
        if getattr(spec, name) not in known:
            found = f"{name} {getattr(spec, name)!r}"
            raise BadInput("view", found, f"one of {', '.join(known)}")
    positive = (*spec.scale, *spec.ratio, spec.alpha)
    ordered = spec.scale[0] <= spec.scale[1] <= 1 and spec.ratio[0] <= spec.ratio[1]
    if not (min(positive) > 0 and ordered):
        found = f"scale {spec.scale}, ratio {spec.ratio}, alpha {spec.alpha}"
        raise BadInput("view", found, "0 < low <= high, a scale up to 1, alpha above 0")
    if min(spec.pad, spec.roll) < 0 or not 0 <= spec.flip <= 1:
        found = f"pad {spec.pad}, roll {spec.roll}, flip {spec.flip}"
        raise BadInput("view", found, "pad and roll from 0, flip from 0 to 1")
    if spec.shuffle < 1 or any(size % spec.shuffle for size in shape[:2]):
        found = f"shuffle {spec.shuffle} of {shape[0]} x {shape[1]} pixels"
        raise BadInput("view", found, "a number that divides height and width")


def resized_boxes(
    uniform: jax.Array,
    h: int,
    w: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    low: jax.Array | float | None = None,
) -> jax.Array:
    """Map uniform draws [n, 2 + 2 TRIES] to boxes [n, 4] inside the image, as torchvision does.

    Ten tries with area a ~ U(scale) h w and log r ~ U(log ratio): the first whose height
    round(sqrt(a / r)) and width round(sqrt(a r)) both fit is placed uniformly; if none fits, the
    largest centred box whose ratio is within bounds.
    """
    least = jnp.asarray(scale[0] if low is None else low, jnp.float32)
    area = (least + uniform[:, 2 : 2 + TRIES] * (scale[1] - least)) * (h * w)
    first, last = math.log(ratio[0]), math.log(ratio[1])
    r = jnp.exp(first + uniform[:, 2 + TRIES :] * (last - first))
    sizes = jnp.round(jnp.sqrt(jnp.stack([area / r, area * r], -1))).astype(jnp.int32)
    whole = jnp.array([h, w], jnp.int32)
    fits = ((sizes > 0) & (sizes <= whole[None, None])).all(-1)
    chosen = jnp.take_along_axis(sizes, jnp.argmax(fits, axis=1)[:, None, None], axis=1)[:, 0]
    found = fits.any(1)[:, None]
    size = jnp.where(found, chosen, jnp.array(_largest(h, w, ratio), jnp.int32)[None])
    slack = whole[None] - size
    place = jnp.where(found, _whole(uniform[:, :2], slack + 1), slack // 2)
    return jnp.concatenate([place, size], -1)


def _largest(h: int, w: int, ratio: tuple[float, float]) -> tuple[int, int]:
    if w / h < ratio[0]:
        return round(w / ratio[0]), w
    return (h, round(h * ratio[1])) if w / h > ratio[1] else (h, w)


def cutmix_patch(lam: jax.Array, uniform: jax.Array, h: int, w: int) -> jax.Array:
    """Return cutmix's box [4] (Yun et al., ICCV 2019): rows lo, hi, columns lo, hi.

    On both axes floor(floor(S sqrt(1 - lam)) / 2) pixels on either side of a uniform centre, drawn
    from ``uniform`` [2], clipped at the border: an odd side loses one, as in the authors' code.
    """
    sizes = jnp.array([h, w], jnp.int32)
    half = jnp.floor(jnp.sqrt(1 - lam) * sizes).astype(jnp.int32) // 2
    centre = _whole(uniform, sizes)
    ends = jnp.stack([centre - half, centre + half], -1)
    return jnp.clip(ends, 0, sizes[:, None]).reshape(4)


def _mix(key: jax.Array, n: int, h: int, w: int, spec: Spec) -> list[jax.Array]:
    """Draw partner, patch and share: one lambda, box and permutation for the batch."""
    partner = jnp.arange(n, dtype=jnp.int32)
    patch, share = jnp.zeros((n, 4), jnp.int32), jnp.ones((n,), jnp.float32)
    if spec.mix == "none":
        return [partner, patch, share]
    order, place, mixing = jax.random.split(key, 3)
    partner = jax.random.permutation(order, partner)
    u = jax.random.uniform(place, (3,), jnp.float32)
    lam = u[2]  # Beta(1, 1) is uniform
    if spec.alpha != 1:
        lam = jax.random.beta(mixing, spec.alpha, spec.alpha, (), jnp.float32)
    if spec.mix == "mixup":
        return [partner, patch, jnp.broadcast_to(lam, (n,))]
    return [partner, jnp.broadcast_to(cutmix_patch(lam, u[:2], h, w)[None], (n, 4)), share]


def _strips(key: jax.Array, n: int, spec: Spec) -> list[jax.Array]:
    """Draw the order of rows and of columns."""
    order = jnp.arange(spec.shuffle, dtype=jnp.int32)
    order = jnp.broadcast_to(order[None, None], (2, n if spec.own_shuffle else 1, spec.shuffle))
    if spec.shuffle > 1:
        order = jax.random.permutation(key, order, axis=2, independent=True)
    return [jnp.broadcast_to(strips, (n, spec.shuffle)) for strips in order]


def apply(
    images: jax.Array,
    view: View,
    border: jax.Array | None = None,
    pixels: randaugment.Pixels | None = None,
) -> jax.Array:
    """Return the view of ``images``: RandAugment, ``reframe``, ``mix``; no random number is drawn.

    Args:
      images: [n, h, w, c], floating; the result has their dtype.
      border: [c], the pixel outside the image, in the images' own space; None: zero.
      pixels: how the images stand for pixels; needed for a view with RandAugment.

    Raises:
      BadInput: images that are not floating point.
      ValueError: a view with RandAugment, and no ``pixels``.
    """
    if view.ops is not None and view.strength is not None:
        if pixels is None:
            raise ValueError("RandAugment is of pixels: give their mean and deviation")
        images = randaugment.shown(images, view.ops, view.strength, pixels)
    return mix(reframe(images, view, border), view)


def reframe(images: jax.Array, view: View, border: jax.Array | None = None) -> jax.Array:
    """Shuffle strips, crop and resize bilinearly, flip, roll; arguments as in ``apply``.

    Pixels are interpolated within the crop, with half-pixel centres and a repeated edge, without
    antialiasing (drawn boxes only enlarge). A box of the image's own size changes no pixel.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise BadInput("images of a view", str(images.dtype), "floating point")
    n, h, w, _ = images.shape
    dtype = jnp.promote_types(images.dtype, jnp.float32)  # weights of 8 bits would blur the images
    row = (jnp.arange(h)[None] - view.shift[:, :1]) % h
    col = (jnp.arange(w)[None] - view.shift[:, 1:]) % w
    col = jnp.where(view.flip[:, None], w - 1 - col, col)
    top, left, height, width = view.box.T
    by_row, above = crop_taps(row, pixels(view.rows, h), top, height, h, dtype)
    by_col, aside = crop_taps(col, pixels(view.cols, w), left, width, w, dtype)
    out = separable(images.astype(dtype), by_row, by_col)
    if border is not None:
        above, aside = above[:, :, None], aside[:, None, :]
        outside = above + aside - above * aside
        out = out + outside[..., None] * jnp.asarray(border, dtype)[None, None, None]
    return out.astype(images.dtype)


def pixels(strips: jax.Array, size: int) -> jax.Array:
    """Map the order of strips, [n, f], to that of their pixels, [n, size]; f divides size."""
    long = size // strips.shape[1]
    places = strips[:, :, None] * long + jnp.arange(long)[None, None]
    return places.reshape(len(strips), size)


def mix(images: jax.Array, view: View) -> jax.Array:
    """Mix reframed images with their partners: ``s x + (1 - s) x[partner]``, then the patch.

    In the patch the partner replaces the image.
    """
    _, h, w, _ = images.shape
    other = images[view.partner]
    share = view.share.astype(jnp.promote_types(images.dtype, jnp.float32))[:, None, None, None]
    mixed = (share * images + (1 - share) * other).astype(images.dtype)
    lo, hi = view.patch[:, ::2, None], view.patch[:, 1::2, None]
    row, col = jnp.arange(h)[None], jnp.arange(w)[None]
    in_row = (row >= lo[:, 0]) & (row < hi[:, 0])
    in_col = (col >= lo[:, 1]) & (col < hi[:, 1])
    return jnp.where((in_row[:, :, None] & in_col[:, None, :])[..., None], other, mixed)


def own_share(view: View, shape: tuple[int, ...]) -> jax.Array:
    """Return the image's own share of each mixed view, [n]: the weight of its hard label.

    ``share (1 - area of the patch / (h w))``, the patch after clipping; 1 if it is its own partner.
    """
    h, w = shape[:2]
    area = jnp.prod(jnp.maximum(view.patch[:, 1::2] - view.patch[:, ::2], 0), axis=1)
    own = view.share * ((h * w - area).astype(jnp.float32) / (h * w))
    return jnp.where(view.partner == jnp.arange(len(own)), jnp.ones((), own.dtype), own)


def pack(view: View) -> dict[str, np.ndarray]:
    """Return the view as compact arrays by field (``STORED``), lossless; any leading axes.

    Raises:
      BadInput: an index that int16 does not hold.
    """
    packed: dict[str, np.ndarray] = {}
    for name, dtype in (STORED | OPTIONAL).items():
        if getattr(view, name) is None:
            continue
        values = np.asarray(getattr(view, name))
        packed[name] = values.astype(dtype)
        if not np.array_equal(packed[name], values):
            most = np.abs(values).max()
            raise BadInput(f"view.{name}", f"{most}", f"values that {np.dtype(dtype)} holds")
    return packed


def unpack(packed: Mapping[str, np.ndarray | jax.Array]) -> View:
    """Undo ``pack``; entries that are not fields of a view, such as labels, are ignored.

    JAX arrays may be traced.

    Raises:
      BadInput: a field is missing or of another type.
    """
    fields = {}
    for name, dtype in (STORED | OPTIONAL).items():
        if name not in packed:
            if name in OPTIONAL:
                continue
            raise BadInput("stored view", f"no {name}", f"needs {', '.join(STORED)}")
        values = packed[name]
        if values.dtype != dtype:
            raise BadInput(f"stored view, {name}", str(values.dtype), str(np.dtype(dtype)))
        whole = np.issubdtype(dtype, np.integer)
        fields[name] = jnp.asarray(values).astype(jnp.int32) if whole else jnp.asarray(values)
    return View(**fields)


def stored_bytes(shuffle: int = 1, operations: int = 0) -> int:
    """Return the stored bytes of one image's view; ``operations``: of RandAugment."""
    numbers = {"box": 4, "shift": 2, "patch": 4, "rows": shuffle, "cols": shuffle}
    own = sum(numbers.get(name, 1) * np.dtype(dtype).itemsize for name, dtype in STORED.items())
    return own + operations * sum(np.dtype(dtype).itemsize for dtype in OPTIONAL.values())
