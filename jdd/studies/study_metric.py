"""Metrics of a study: the figure of every run's result that the table shows, by name.

accuracy         test accuracy on the config's own net
accuracy.NET     on another of its nets
bn_WAY, bn_WAY.NET   test accuracy by one of several ways of ``eval.test_norm``
recall           of pairs: mean recall on the config's own net; recall.NET: on another
tr1 ... ir10     of pairs: recall at 1, 5, 10, image to text (tr) and text to image (ir); tr1.NET
baselines.NAME   of random, full, hard or random_hard
scores.NAME      of hlr, slr, ior, lrs or ars
protocol.NAME    of soft or hard labels: the set by the protocol of eval.protocol
wrong_labels     of the chosen images, the share whose label is not the dataset's own
seconds          of all stages except the baseline on the whole dataset
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jdd import config as configs
from jdd.errors import BadInput, nearest
from jdd.schema.protocols import OWN
from jdd.training.printed import NORMS

RECALLS = {
    f"{way}{k}": f"R@{k}, {words}"
    for way, words in {"tr": "image to text", "ir": "text to image"}.items()
    for k in (1, 5, 10)
}
_RETRIEVED = ("recall", *RECALLS)  # metrics of pairs, on one net
_BASELINES = {
    "random": "random real images, or pairs",
    "full": "the whole training set",
    "hard": "the set with hard labels",
    "random_hard": "random real images with hard labels",
    "random_bytes": "random real images of as many bytes as the generator",
}
# Keys of ``baselines`` that a baseline needs, where they are not its name.
_NEEDS = {"random_hard": ("random", "hard"), "random_bytes": ("random",)}
_SCORES = {
    "hlr": "hard-label recovery",
    "slr": "soft-label recovery",
    "ior": "improvement over random",
    "lrs": "label-robust score",
    "ars": "augmentation-robust score",
}
_COLUMNS = {"soft": "a teacher's labels", "hard": "classes"}
_NORMED = {f"bn_{way}": words for way, words in NORMS.items()}  # accuracy by a way of batch norm
NAMES = (
    "accuracy", "accuracy.NET", *_NORMED, "recall", "recall.NET", *RECALLS,
    *(f"baselines.{name}" for name in _BASELINES),
    *(f"scores.{name}" for name in _SCORES), *(f"protocol.{name}" for name in _COLUMNS),
    "wrong_labels", "seconds",
)  # fmt: skip


class Figure(NamedTuple):
    """A figure of one run; ``std`` and ``n`` over its nets, None for a single number."""

    mean: float
    std: float | None = None
    n: int | None = None


def words(metric: str) -> str:
    """Return a metric in words, with its unit."""
    kind, _, name = metric.partition(".")
    if kind == "recall":
        return f"mean recall of {name} in percent" if name else "mean recall in percent"
    if kind in RECALLS:
        return f"{RECALLS[kind]}{f', of {name}' if name else ''}, in percent"
    if kind == "accuracy":
        return f"test accuracy of {name} in percent" if name else "test accuracy in percent"
    if kind in _NORMED:
        of = f" of {name}" if name else ""
        return f"test accuracy{of} in percent, batch norm {_NORMED[kind]}"
    if kind == "baselines":
        return f"{_BASELINES[name]}, in percent"
    if kind == "scores":
        return f"{_SCORES[name]} in percent"
    if kind == "protocol":
        return f"test accuracy by the common protocol in percent, {_COLUMNS[name]}"
    if kind == "wrong_labels":
        return "wrong labels among the chosen images, in percent"
    return "time in seconds"


def shown(metric: str, value: float) -> str:
    """Return a figure in the unit of ``words``."""
    return f"{100 * value:.1f}" if is_share(metric) else f"{value:.1f}"


def is_share(metric: str) -> bool:
    """Return whether a metric is a fraction, shown in percent."""
    return metric != "seconds"


def validate(metric: str, where: str) -> None:
    """Refuse an unknown metric.

    Raises:
      BadInput: naming the nearest known one.
    """
    kind, _, name = metric.partition(".")
    by_net = kind in ("accuracy", *_NORMED, *_RETRIEVED) and name not in ("", "NET")
    if metric in NAMES and name != "NET" or by_net:
        return
    near = nearest(metric, [n for n in NAMES if "NET" not in n])
    hint = f"did you mean {near}? " if near else ""
    raise BadInput(f"{where}: metric", repr(metric), f"{hint}(metrics: {', '.join(NAMES)})")


def validate_measured(metric: str, config: ConfigDict, cell: str, where: str) -> None:
    """Refuse a metric that a cell with this resolved config does not measure.

    Raises:
      BadInput: naming the cell, and the key to change.
    """
    kind, _, name = metric.partition(".")
    values = configs.flat(config)
    needs = ""
    own = _RETRIEVED if config.spec.task == "retrieval" else ("accuracy", *_NORMED)
    if kind in ("accuracy", *_NORMED, *_RETRIEVED) and kind not in own:
        raise BadInput(f"{where}: metric", f"{metric!r} in cell {cell}", f"{own[0]} of its task")
    if kind in own and name and name not in values["nets"]:
        needs = f"{name} among nets (here: {','.join(values['nets'])})"
    ways = values["eval.test_norm"].split(",")
    if kind in _NORMED and (kind.removeprefix("bn_") not in ways or len(ways) < 2):
        needs = f"{kind.removeprefix('bn_')} among several ways of eval.test_norm"
    if kind == "baselines":
        for key in _NEEDS.get(name, (name,)):
            if not values.get(f"baselines.{key}", False):
                needs = f"baselines.{key} on, which is off or not a key of method {config.method}"
    if kind == "protocol" and values["eval.protocol"] == OWN:
        needs = "eval.protocol=common or common-small"
    if kind == "scores" and not values["scores"]:
        needs = "scores=True, and baselines.full with it"
    if needs:
        allowed = "set it in the base, or choose another metric"
        raise BadInput(f"{where}: metric", f"{metric!r} needs {needs} in cell {cell}", allowed)


def figure(metric: str, result: Mapping[str, Any], net: str) -> Figure | None:
    """Return the figure of a run's ``result.json``; None if it is missing.

    Args:
      net: the name of the config's own net.
    """
    kind, _, name = metric.partition(".")
    if kind == "seconds":
        spent = dict(result.get("seconds") or {})
        spent = {k: v for k, v in spent.items() if k.partition("-")[0] != "full"}
        return Figure(float(sum(spent.values()))) if spent else None
    if kind == "protocol":
        one = ((result.get(kind) or {}).get("rows") or {}).get("set", {}).get(name)
        return Figure(one["mean"], one["std"], one["n"]) if one else None
    if kind == "wrong_labels":
        counts = result.get(kind)
        return Figure(counts["count"] / counts["of"]) if counts else None
    at = {**dict.fromkeys(_RETRIEVED, "metrics"), **dict.fromkeys(_NORMED, "accuracy")}
    found = result.get(at.get(kind, kind))
    if not isinstance(found, Mapping) or not found:
        return None
    if kind in ("accuracy", *_NORMED, *_RETRIEVED) and not name:
        name = net if net in found else str(next(iter(found)))
    value = found.get(name)
    if kind in RECALLS or kind in _NORMED:
        value = value.get(kind) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and isinstance(value.get("mean"), int | float):
        return Figure(float(value["mean"]), value.get("std"), value.get("n"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Figure(float(value))
    return None
