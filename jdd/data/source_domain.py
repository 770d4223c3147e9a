"""The source dataset of domain adaptation: pretrained nets are trained on it."""

from __future__ import annotations

from jdd.data import class_names
from jdd.data.dataset import Dataset, load
from jdd.errors import BadInput
from jdd.schema.common import Common
from jdd.schema.values import section

KEYS = ("name", "source", "path")  # config.source.KEY takes the values of config.data.KEY


def origin(config: Common, data: Dataset, fit: bool = True) -> Dataset:
    """Return the dataset named by ``config.source``; ``data`` if it names none.

    Its images are resized to the size of ``data`` and normalised (or whitened) by their own
    statistics.

    Args:
      config: a resolved config; methods without a second dataset have no ``source``.
      data: the dataset that is distilled.
      fit: as of ``load``.

    Raises:
      BadInput: it cannot be read, or its images or classes are not those of ``data``.
    """
    source = getattr(config, "source", None)
    if not source or not source.name:
        return data
    height, width, _ = data.shape
    wanted = section(config.data) | {name: getattr(source, name) for name in KEYS}
    wanted |= {"val": 0.0, "size": height if height == width else 0}
    try:
        found = load(wanted, fit)
    except BadInput as error:
        raise _renamed(error) from None
    classes = _validate(found, data)
    notes = (f"pretrained nets come from {found.name}: {len(found.train.labels)} images", *classes)
    return found._replace(notes=notes + tuple(f"{found.name}: {note}" for note in found.notes))


def _validate(found: Dataset, data: Dataset) -> tuple[str, ...]:
    """Return notes on the classes; refuse images of another shape, or other classes."""
    where = f"config.source.name={found.name}"
    if found.shape != data.shape:
        shapes = ["x".join(map(str, d.shape)) for d in (found, data)]
        raise BadInput(where, f"images are {shapes[0]}", f"{data.name} has {shapes[1]}")
    return class_names.validate_same(
        found.class_names, data.class_names, where, data.name, numbers=False
    )


def _renamed(error: BadInput) -> BadInput:
    """Return a loader's error with ``config.data`` keys renamed to ``config.source``."""
    words = [error.where, error.found, error.allowed]
    for name in KEYS:
        words = [word.replace(f"config.data.{name}", f"config.source.{name}") for word in words]
    return BadInput(*words)
