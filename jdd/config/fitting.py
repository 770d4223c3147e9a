"""Settings of a dataset without published ones: those of the nearest row, fitted to its size.

With n training images, N those of the row's dataset, and s = sqrt(n / N), from 1/16 to 1:

    steps, and the steps of priors    s times the row's, at least 250 or, if fewer, the row's; of
                                      rows of more than 100,000, those and rates of the defaults.
                                      Methods whose rate of images is probed (DC, DSA, DM, MTT, FTD,
                                      TESLA, DATM) or Adam's (RaT-BPTT): n / N times, from 1/40, as
                                      many passes over the images
    lr_img of RaT-BPTT                times the row's steps over the run's, from 1 to 40: Adam moves
                                      the images as far
    start epochs                      s times the row's, the last one at least 5 or the row's
    experts.count, epochs of DATM's   s times, at least 5, in whole groups; at least 10
    ema of FTD                        of as long a part of the run: to the power of the row's steps
                                      over the run's
    experts.batch, squeeze.batch      at most n / 8, in powers of two, at least 16
    batch_real of DC, DSA, DM         at most a quarter of a class, in powers of two, at least 8
    experts.lr                        times 196 / (steps of an epoch), from 1 to 10: an epoch goes
                                      as far as one of 50,000 images in batches of 256
    net.width of ConvNet, FRePoNet    a half below 20,000 images, a quarter below 5,000
    nets of decoupled methods         below 5,000 images those of jdd's own settings for digits

Not taken is what belongs to the row's own data: whitening, augmentation and flips of grey images,
and what a rule of the method derives. jdd's own settings keep their experts and their width.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from jdd.config.files import stage_names
from jdd.config.nearest import Row, Size, nearest, size_of
from jdd.schema.common import Common
from jdd.schema.families import ClassMatched
from jdd.schema.key import AUTO, checked, show
from jdd.schema.pairs import PairConfig
from jdd.schema.values import build, flat

LENGTHS = ("steps", "vae.steps", "diffusion.steps", "gan_steps", "expansion_end")
EPOCHS = ("min_start_epoch", "current_max_start_epoch", "max_start_epoch")
FEWEST, MOST = 250, 100_000  # steps: at least, and of rows that give way to the defaults
SMALL, MEDIUM = 5_000, 20_000  # training images
_EPOCH = 196  # expert steps of an epoch of 50,000 images in batches of 256
_SCALED = ("ConvNet", "ConvNetBN", "FRePoNet")  # nets whose width is fitted
_OF_NETS = ("net.name", "net.width", "net.depth", "net.norm", "net.init", "nets")
# Keys that are fitted, in addition to those of rows.
FITTED = (
    *("experts.count", "experts.epochs", "experts.batch", "experts.lr", "squeeze.batch"),
    "batch_real",
    *(*_OF_NETS, "squeeze.nets", "squeeze.width"),
)


class Fitted(NamedTuple):
    """Settings of the nearest row, fitted to a dataset.

    Attributes:
      values: by dotted name, of given keys too.
      replaced: those of keys that are not given, and 'auto' for keys that follow from them.
      note: the row and every fitted value, in words.
      scale: the factor of steps that a rule of the method derives.
    """

    values: dict[str, Any]
    replaced: dict[str, Any]
    note: str
    scale: float

    def applied(self, config: Common) -> Common:
        """Return a config with these settings."""
        return build(config.spec, flat(config) | self.replaced)


def without_settings(config: Common) -> bool:
    """Return whether neither a paper nor jdd has settings for a config's dataset and IPC.

    Of pairs jdd's own settings count, which are for any number of them.
    """
    from jdd.data.catalogue import lookup  # needs NumPy

    spec, name = config.spec, config.data.name
    if isinstance(config, PairConfig):
        return name not in spec.starts
    facts = lookup(name)
    row = (facts.settings if facts else name, config.ipc)
    return not (row in spec.published or name in spec.starts)


def may_be_fitted(config: Common) -> bool:
    """Return whether settings are fitted to a config's data: images without settings."""
    return not isinstance(config, PairConfig) and without_settings(config)


def names(config: Common) -> frozenset[str]:
    """Return every key that ``fitted`` may change."""
    spec = config.spec
    tables = (*spec.starts.values(), *(row["values"] for row in spec.published.values()))
    found = {*FITTED, *LENGTHS, *spec.derived, *spec.defaults, *(n for t in tables for n in t)}
    found = {n for n in found if not n.startswith("data.") or n in spec.defaults} | {"data.zca"}
    return frozenset(n for n in found if n in spec.keys)


def row_of(config: Common, loaded: Size | None = None) -> tuple[Row, Size] | None:
    """Return the nearest row and the size that it is fitted to; None if no settings are fitted.

    Args:
      loaded: the size of a dataset of the user's own; None before it is loaded. A known dataset has
        the published counts.
    """
    known = size_of(config.data.name)
    if known is not None and (side := config.data.size):
        known = known._replace(shape=(side, side, known.shape[2]))
    size = known or loaded
    if size is None or not may_be_fitted(config):
        return None
    row = nearest(config.spec, size, config.ipc, config.net.name)
    return None if row is None else (row, size)


def fitted(config: Common, given: Collection[str], loaded: Size | None = None) -> Fitted | None:
    """Return the settings of the nearest row for a dataset without its own; None for others.

    Args:
      given: names of the keys that keep their values.
      loaded: as for ``row_of``.
    """
    found = row_of(config, loaded)
    if found is None:
        return None
    row, size = found
    schema = config.spec.keys
    taken = _taken(config, row, size, size_of(config.data.name) is not None)
    if _other_net(config, taken, given):
        taken = {name: value for name, value in taken.items() if name not in _OF_NETS}
    share = size.images / row.size.images
    root = min(1.0, max(1 / 16, math.sqrt(share)))
    spec = config.spec
    scale = min(1.0, max(1 / 40, share)) if spec.probe or spec.adaptive else root
    fit = _lengths(taken, scale) | _starts(taken, root) | _bounded(taken, config.ipc, size.classes)
    if "steps" in taken:
        steps = _settled("steps", taken | fit, config, given)
        fit |= _by_steps(taken, taken["steps"] / max(1, steps), spec.adaptive)
    fit |= _experts(config, taken | fit, row, size.images, root, given)
    fit |= _expert_epochs(config, taken | fit, row, root, given)
    if isinstance(config, ClassMatched):
        whole = taken.get("batch_real", schema["batch_real"].default)
        fit["batch_real"] = min(whole, max(8, _power(size.images / size.classes / 4)))
    fit |= _nets(config, taken, size, given)
    fit |= _epochs(taken | fit, config, given)
    values = {name: checked(name, value, schema) for name, value in (taken | fit).items()}
    anew = {*config.spec.derived} | ({*_OF_NETS} if "net.name" in values else set())
    anew = {name for name in anew if schema[name].auto and not name.startswith("data.")}
    replaced = dict.fromkeys(anew, AUTO) | values
    replaced = {name: value for name, value in replaced.items() if name not in given}
    changed = {n: (taken.get(n, schema[n].default), v) for n, v in values.items() if n in fit}
    return Fitted(values, replaced, _note(config, given, row, size, changed), scale)


def _note(
    config: Common,
    given: Collection[str],
    row: Row,
    size: Size,
    changed: Mapping[str, tuple[Any, Any]],
) -> str:
    kind = "jdd's own settings" if row.tuned else f"the {config.spec.title} row"
    listed = ", ".join(
        f"{name} {show(old)} -> {show(new)}"
        for name, (old, new) in changed.items()
        if old != new and name not in given
    )
    return (
        f"settings: no published {config.spec.title} row for {config.data.name}, ipc {config.ipc}, "
        f"so the nearest, {kind} of ({row.dataset}, ipc {row.ipc}), fitted to {size.images} "
        f"training images" + (f" ({listed})" if listed else "")
    )


def _taken(config: Common, row: Row, size: Size, known: bool) -> dict[str, Any]:
    """Return the row's values without those that belong to its own data.

    Images of the user's own are loaded by then: their ``data.*`` are settled.
    """
    spec, apart = config.spec, ("experts.sam_rho", "experts.sam_alpha")
    derived = {*spec.derived} - {*LENGTHS} - ({"experts.epochs"} if row.tuned else set())
    found = {
        name: value
        for name, value in row.values.items()
        if not name.startswith("data.") and name not in derived and name not in apart
    }
    found = _without_unfit(found, size.shape)
    if found.get("steps", 0) > MOST >= spec.defaults.get("steps", 0):
        found |= {k: v for k, v in spec.defaults.items() if k == "steps" or k.startswith("lr_")}
    if "steps" in spec.derived:
        found.pop("steps", None)  # it follows from IPC, and is scaled after that
    if size.shape[2] == 1 and "flip" in found:
        found["flip"] = type(found["flip"])(0)
    if not known:
        return found
    kept = {name: value for name, value in spec.defaults.items() if name.startswith("data.")}
    if "data.zca" in row.values:
        enough = size.images >= math.prod(size.shape) and size.shape[2] == row.size.shape[2]
        kept["data.zca"] = row.values["data.zca"] if enough else "none"
    return found | kept


def _without_unfit(values: dict[str, Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return a row's values without nets that images of this shape are too small for."""
    from jdd.nets.groups import takes  # imports JAX

    named = {
        "net.name": (values.get("net.name", ""),),
        "squeeze.nets": values.get("squeeze.nets", ()),
    }
    out = {
        key
        for key, found in named.items()
        if not all(takes(n.partition(":")[0], shape) for n in found if n)
    }
    if "net.name" in out:
        out |= {*_OF_NETS}
    return {name: value for name, value in values.items() if name not in out}


def _lengths(taken: Mapping[str, Any], scale: float) -> dict[str, Any]:
    found = {}
    for name in LENGTHS:
        if steps := taken.get(name, 0):
            least = 1 if name == "expansion_end" else min(steps, FEWEST)
            found[name] = max(least, round(scale * steps))
    return found


def _settled(name: str, values: Mapping[str, Any], config: Common, given: Collection[str]) -> Any:
    """Return the given value of a key, else that of ``values``."""
    own = flat(config)[name]
    return own if name in given and own != AUTO else values[name]


def _by_steps(taken: Mapping[str, Any], ratio: float, adaptive: Collection[str]) -> dict[str, Any]:
    """Return what goes by the row's steps over the run's: the average's decay, Adam's rates."""
    found = {}
    if taken.get("ema"):  # of as long a part of the run
        found["ema"] = float(f"{taken['ema'] ** max(1.0, ratio):.6g}")
    for name in adaptive:  # the images may move as far
        if name in taken:
            found[name] = float(f"{taken[name] * min(40.0, max(1.0, ratio)):.2g}")
    return found


def _starts(taken: Mapping[str, Any], scale: float) -> dict[str, int]:
    found = {}
    for name in EPOCHS:
        if taken.get(name, 0):
            least = min(taken[name], 5) if name == "max_start_epoch" else 0
            found[name] = max(least, round(scale * taken[name]))
    return found


def scaled(steps: int, scale: float) -> int:
    """Return the steps that a rule of the method gives, fitted like those of a row."""
    return max(min(steps, FEWEST), round(scale * steps))


def _epochs(values: Mapping[str, Any], config: Common, given: Collection[str]) -> dict[str, int]:
    """Return start epochs in order: T- below T+, and T+ at first (0: fixed) between them."""
    if "min_start_epoch" not in values:
        return {}
    low, first, high = (_settled(name, values, config, given) for name in EPOCHS)
    low = min(low, high - 1)
    first = min(max(first, low + 1), high) if values[EPOCHS[1]] else 0
    return {EPOCHS[0]: low, EPOCHS[1]: first}


def _bounded(taken: Mapping[str, Any], ipc: int, classes: int) -> dict[str, int]:
    """Return the batches of RaT-BPTT, which may not be larger than the set (0: all of it)."""
    most = {"per_class": ipc, "classes_per_step": classes}
    return {name: 0 for name, whole in most.items() if name in taken and taken[name] >= whole}


def _batch(batch: int, images: int) -> int:
    """Return a batch of which an epoch has about eight or more."""
    return min(batch, max(16, _power(images / 8)))


def _power(most: float) -> int:
    """Return the largest power of two up to ``most``, at least 1."""
    return 1 << max(0, int(most).bit_length() - 1)


def _experts(
    config: Common,
    taken: dict[str, Any],
    row: Row,
    images: int,
    scale: float,
    given: Collection[str],
) -> dict[str, Any]:
    """Return the number of experts, and batches and rate of nets trained on the real images."""
    found: dict[str, Any] = {}
    if "squeeze.batch" in config.spec.keys and "squeeze.batch" in taken:
        found["squeeze.batch"] = _batch(taken["squeeze.batch"], images)
    if row.tuned or "experts" not in stage_names(config):
        return found
    schema, own = config.spec.keys, flat(config)
    group = own["experts.group"]
    count, lr, batch = (
        taken.get(f"experts.{n}", schema[f"experts.{n}"].default) for n in ("count", "lr", "batch")
    )
    batch = own["experts.batch"] if "experts.batch" in given else _batch(batch, images)
    further = min(10.0, max(1.0, _EPOCH / math.ceil(images / batch)))
    groups = max(math.ceil(5 / group), round(scale * count / group))
    found["experts.count"] = min(count, group * groups)
    found["experts.batch"] = batch
    found["experts.lr"] = float(f"{lr * further:.2g}")
    return found


def _expert_epochs(
    config: Common, taken: dict[str, Any], row: Row, scale: float, given: Collection[str]
) -> dict[str, int]:
    """Return the epochs of experts of which a part is read, at least those."""
    rule = config.spec.derived.get("experts.epochs")
    if rule is None or "max_start_epoch" not in taken:
        return {}
    values = {name: _settled(name, taken, config, given) for name in taken}
    read = values["max_start_epoch"] - 1 + values["expert_epochs"]
    own = taken.get("experts.epochs") if row.tuned else None
    whole = rule(values)
    fit = own or min(whole, max(10, round(scale * whole)))
    return {"experts.epochs": max(read, fit)}


def _other_net(config: Common, values: Mapping[str, Any], given: Collection[str]) -> bool:
    """Return whether the user has given another net than that which ``values`` are of."""
    theirs = values.get("net.name", config.spec.keys["net.name"].default)
    return "net.name" in given and config.net.name != theirs


def _nets(
    config: Common, taken: dict[str, Any], size: Size, given: Collection[str]
) -> dict[str, Any]:
    """Return the nets for few images: those of jdd's settings for digits, or narrower ones."""
    own = config.spec.starts.get("digits", {})
    found: dict[str, Any] = {}
    if size.images < SMALL and "squeeze.nets" in own:
        listed = ["squeeze.nets", "squeeze.width"]
        listed += [] if _other_net(config, own, given) else ["net.name", "net.width"]
        found = {key: own[key] for key in listed if key in own}
    name = config.net.name if "net.name" in given else (taken | found).get("net.name")
    name = name or config.net.name
    if name in _SCALED and "net.width" not in taken | found and size.images < MEDIUM:
        found["net.width"] = 32 if size.images < SMALL else 64
    if "net.name" in taken | found and config.spec.keys["nets"].default != AUTO:
        found.setdefault("nets", taken.get("nets", (name,)))
    return found
