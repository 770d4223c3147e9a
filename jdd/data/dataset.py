"""A dataset ready for training: split, normalised or whitened, identified by its content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jdd import memory, rng
from jdd.data import cache, catalogue, label_noise
from jdd.data.sampler import class_indices
from jdd.data.sources import Raw, Request, read, request_of
from jdd.data.sources.request import setting
from jdd.data.streamed import Streamed, in_space, part
from jdd.data.transform import (
    NAMES,
    ZCA_EPS,
    Transform,
    channel_stats,
    chunks,
    normalisation,
    unfitted,
    validate_whitening,
    whitening,
    whitening_kind,
)
from jdd.data.whitening_fit import FITS
from jdd.errors import BadInput
from jdd.schema.common import Data

_SEED = 0  # of held-out splits: a dataset has the same splits for every seed of a run


class Split(NamedTuple):
    """images: float32 [n, h, w, c] in the net's input space, an array or ``Streamed``; labels:
    int32 [n].
    """

    images: Any
    labels: np.ndarray

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def inputs(self) -> Any:
        """The inputs of a net."""
        return self.images

    @property
    def targets(self) -> np.ndarray:
        """What a net is trained towards."""
        return self.labels


class Dataset(NamedTuple):
    """A dataset; ``notes`` are sentences for the user, ``dsa`` the augmentation strategy.

    ``clean`` are the dataset's own labels of the training images, int32 [n], where those of
    ``train`` are others (``label_noise``); else None.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split
    transform: Transform
    dsa: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    clean: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image."""
        return self.train.images.shape[1:]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def load(data_config: Data | Mapping[str, Any], fit: bool = True) -> Dataset:
    """Load the dataset named by ``config.data``.

    Whitening, and the mean and deviation of a user's own set, are fitted on the training split
    alone, after validation images (and test images, if the source has none) are split off.

    Args:
      data_config: ``config.data``, or a mapping. name; source (auto, digits, npz, folder, tfds);
        path; size (side to resize to, 0: as found); zca (none, kornia, kip or frepo); val
        (fraction below 1 or count of training images to hold out, 0: none); test (fraction held
        out where the source has no test split); cache_dir ("": $JDD_CACHE or ~/.cache/jdd); dsa
        (auto or a strategy); stream (images stay in a file in cache_dir, ``Streamed``).
      fit: False leaves a whitening that is not in the cache unfitted (``transform.fitted``), and
        the images unwhitened: enough to estimate the cost of a run.

    Returns:
      The Dataset, its images float32 in the net's input space.

    Raises:
      BadInput: names, files or values that cannot be used.
    """
    request = request_of(data_config)
    zca = whitening_kind(setting(data_config, "zca"))
    if request.size:  # before the images are decoded, which may take an hour
        shape = (request.size, request.size, request.channels or 1)
        validate_whitening(zca, shape, cached=True)
    raw, clean = _labelled(data_config)
    train = raw.splits["train"][0]
    validate_whitening(zca, train.shape[1:], cached=True)
    _validate_floats(raw)
    digests = [_digest(*raw.splits[name], request.cache_dir) for name in sorted(raw.splits)]
    transform, fit_notes = _transform(request, train, raw.scale, zca, digests, fit)
    through = transform
    if not transform.fitted:
        through = transform._replace(zca_mean=None, zca_matrix=None, zca_image=None)
    names, channels = sorted(raw.splits), train.shape[-1]
    del train
    transformed = {}
    for name in names:  # popped, so that a split's stored images are freed as its floats are made
        images, labels = raw.splits.pop(name)
        transformed[name] = Split(in_space(images, through, raw.scale), labels)
    dsa = str(setting(data_config, "dsa"))
    if dsa == "auto":
        dsa = request.facts.dsa if request.facts else catalogue.default_dsa(channels)
    return Dataset(
        name=request.name,
        class_names=raw.class_names,
        train=transformed["train"],
        val=transformed.get("val"),
        test=transformed["test"],
        transform=transform,
        dsa=dsa,
        fingerprint=_fingerprint(names, digests, raw, transform),
        notes=raw.notes + fit_notes,
        clean=clean,
    )


def load_raw(data_config: Data | Mapping[str, Any]) -> Raw:
    """Read a dataset as stored (uint8 where it is), with its final splits train, [val,] test.

    Raises:
      BadInput: as ``load``.
    """
    return _splits(read(request_of(data_config)), data_config)


def _labelled(data_config: Data | Mapping[str, Any]) -> tuple[Raw, np.ndarray | None]:
    """Read a dataset as ``load_raw`` does, with the training labels that the keys ask for.

    The labels are those of the source's training images, wherever these go; images that are held
    out as a test split keep the dataset's own.

    Returns:
      The raw data, and the dataset's own labels of its training images if others took their place.
    """
    keys = {key: setting(data_config, key) for key in label_noise.KEYS}
    asked = Data(name=str(setting(data_config, "name")), **keys)
    label_noise.validate(asked)
    source = read(request_of(data_config))
    if not label_noise.wanted(asked):
        return _splits(source, data_config), None
    own = source.splits["train"][1]
    classes = len(source.class_names)
    labels, note = label_noise.labels(asked, own, classes, source.class_names)
    rows = {name: np.arange(len(of)) for name, (_, of) in source.splits.items()}
    numbered = {name: (rows[name], of) for name, (_, of) in source.splits.items()}
    places = _splits(source._replace(splits=numbered), data_config).splits
    raw = _splits(source, data_config)
    clean = raw.splits["train"][1]
    for name in {"train", "val"} - (set(source.splits) - {"train"}):
        if name in raw.splits:
            raw.splits[name] = (raw.splits[name][0], labels[places[name][0]])
    return raw._replace(notes=(*raw.notes, note)), clean


def _splits(raw: Raw, data_config: Data | Mapping[str, Any]) -> Raw:
    """Return the final splits of a source, by the keys ``test`` and ``val``."""
    if "test" not in raw.splits:
        fraction = _number(data_config, "test")
        if not 0 < fraction < 1:
            raise BadInput(
                "config.data.test", f"{fraction:g}", "a fraction between 0 and 1, such as 0.2"
            )
        held = f"{fraction:.0%} of each class held out (seed {_SEED}), {{n}} images"
        note = f"no test split found: {held}"
        raw = _carve(raw, "test", fraction, note)
    amount = _number(data_config, "val")
    if amount == 0:
        return raw
    if "val" in raw.splits:
        raise BadInput(
            "config.data.val", f"{amount:g}", "0, since this set has a validation split of its own"
        )
    count = len(raw.splits["train"][1])
    if amount < 0 or amount >= count or (amount > 1 and amount != int(amount)) or amount == 1:
        raise BadInput(
            "config.data.val", f"{amount:g}", f"a fraction below 1 or a count of 2 to {count - 1}"
        )
    fraction = amount if amount < 1 else amount / count
    exact = None if amount < 1 else int(amount)
    held = f"{exact} images" if exact else f"{fraction:.0%} of each class"
    note = f"validation split: {held} held out of the training split (seed {_SEED})"
    return _carve(raw, "val", fraction, note, exact)


def _validate_floats(raw: Raw) -> None:
    """Refuse images that do not fit into memory as floats, counting the splits still to be mapped.

    Raises:
      BadInput: with both sizes.
    """
    most = grown = 0
    for name in sorted(raw.splits):  # in the order in which ``load`` maps them
        images = raw.splits[name][0]
        if not isinstance(images, Streamed):
            grown += 4 * images.size
            most = max(most, grown)
            grown -= images.nbytes
    count = sum(len(labels) for _, labels in raw.splits.values())
    stream = "--config.data.stream=true leaves them on disk, or " if raw.scale == 255 else ""
    allowed = f"{stream}a smaller --config.data.size"
    memory.need(most, "config.data", f"{count} images as floats take", allowed)


def _number(data_config: Data | Mapping[str, Any], key: str) -> float:
    value = setting(data_config, key)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise BadInput(f"config.data.{key}", repr(value), "a number is needed")
    return number


def _carve(raw: Raw, name: str, fraction: float, note: str, total: int | None = None) -> Raw:
    """Move a part of every class from train to a new split; both stay in the source's order.

    ``{n}`` in the note becomes the number of images of the new split. Of a fraction, a class keeps
    at least one image in train; one with a single image is not in the new split, and the note says
    so.

    Raises:
      BadInput: the new split would be empty, or a class would have no training image.
    """
    images, labels = raw.splits["train"]
    groups = class_indices(labels, len(raw.class_names))
    out = np.zeros(len(labels), bool)
    for i, (group, take) in enumerate(zip(groups, _shares(groups, fraction, total), strict=True)):
        if not take < max(1, len(group)):
            raise BadInput(
                f"config.data.{name}",
                f"would leave class {raw.class_names[i]!r} ({len(group)} images) none to train on",
                "give more images of it, or a smaller split",
            )
        order = rng.host(_SEED, f"split-{name}", i).permutation(group)
        out[order[:take]] = True
    if not out.any():
        found = "every class has one image, and none can be held out"
        raise BadInput(f"config.data.{name}", found, f"give a {name} split, or more images")
    note = note.replace("{n}", str(int(out.sum())))
    single = [raw.class_names[i] for i, group in enumerate(groups) if len(group) == 1]
    if single and total is None:
        shown = ", ".join(single[:4]) + (", ..." if len(single) > 4 else "")
        note += f"; of {shown} the only image is for training, and the {name} split has none"
    splits = dict(raw.splits)
    splits["train"] = (part(images, ~out), labels[~out])
    splits[name] = (part(images, out), labels[out])
    return raw._replace(splits=splits, notes=(*raw.notes, note))


def _shares(groups: list[np.ndarray], fraction: float, total: int | None) -> list[int]:
    wanted = [len(group) * fraction for group in groups]
    if total is None:
        # The smallest classes have at least one image on either side, a single one stays.
        sizes = map(len, groups)
        return [max(0, min(n - 1, max(1, round(w)))) for n, w in zip(sizes, wanted, strict=True)]
    # Largest remainders: the counts add up to the requested total.
    shares = [int(share + 1e-9) for share in wanted]
    by_remainder = sorted(range(len(groups)), key=lambda i: (shares[i] - wanted[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _digest(images: Any, labels: np.ndarray, cache_dir: str) -> str:
    """Return the hash of a split's content; the hash of streamed images is cached."""
    file = None
    if isinstance(images, Streamed):
        own = hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest()
        file = cache.file(cache_dir, "digest", [images.identity, own])
        if known := cache.read(file, ("digest",)):
            return str(known["digest"])
    digest = hashlib.sha256(f"{images.dtype} {images.shape}".encode())
    for at in chunks(images):
        digest.update(np.ascontiguousarray(images[at]).data)
    digest.update(np.ascontiguousarray(labels).data)
    if file is not None:
        cache.write(file, {"digest": np.array(digest.hexdigest())})
    return digest.hexdigest()


def _transform(
    request: Request, train: Any, scale: float, zca: str, digests: list[str], fit: bool
) -> tuple[Transform, tuple[str, ...]]:
    known, first = request.facts, None
    if zca in ("none", "frepo"):
        known_stats = (known.mean, known.std) if known and known.mean else None
        stats = known_stats or _stats(request, train, scale, digests)
        first = normalisation(np.array(stats[0]), np.array(stats[1]))
        if zca == "none":
            return first, ()
    stem = {"kornia": "zca"}.get(zca, f"zca_{zca}")
    names = ("mean", "matrix", "inverse", "image")[: 4 if zca == "kip" else 3]
    stated = [] if first is None else [[*map(float, first.mean), *map(float, first.std)]]
    file = cache.file(request.cache_dir, stem, [digests, scale, ZCA_EPS, *stated])
    arrays, note = cache.read(file, names), ""
    if arrays is None:
        validate_whitening(zca, train.shape[1:])
        if not fit:
            return unfitted(zca, train.shape[1:], first), ()
        arrays = dict(zip(names, FITS[zca](train, scale, first), strict=True))
        note = cache.write(file, arrays)
    mean, matrix, inverse = arrays["mean"], arrays["matrix"], arrays["inverse"]
    fitted = whitening(mean, matrix, inverse, train.shape[-1], arrays.get("image"), first)
    return fitted, (note,) if note else ()


def _stats(request: Request, train: Any, scale: float, digests: list[str]) -> tuple[Any, Any]:
    """Return ``channel_stats`` of the training images; those of streamed images are cached."""
    if not isinstance(train, Streamed):
        return channel_stats(train, scale)
    file = cache.file(request.cache_dir, "stats", [digests, scale])
    stats = cache.read(file, ("mean", "std"))
    if stats is None:
        stats = dict(zip(("mean", "std"), channel_stats(train, scale), strict=True))
        cache.write(file, stats)
    return stats["mean"], stats["std"]


def _fingerprint(names: list[str], digests: list[str], raw: Raw, transform: Transform) -> str:
    """Hash the content, the splits and the transform: equal for every copy and machine.

    The whitening matrix enters by its formula: its last bits depend on the machine's linear
    algebra, and the images determine everything else.
    """
    how = NAMES[transform.kind] if transform.whitens else "normalise"
    parts = [*names, *digests, *raw.class_names, repr(raw.scale), how]
    digest = hashlib.sha256("\n".join(parts).encode())
    digest.update(transform.mean.tobytes() + transform.std.tobytes())
    return digest.hexdigest()[:16]
