"""Teachers: nets trained on the real images (squeeze), one per architecture, final weights only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd import nets, rng
from jdd.augment import crops
from jdd.data import Dataset
from jdd.errors import BadInput
from jdd.evaluation.accuracy import accuracy
from jdd.nets import Net
from jdd.pretrained import store as stores
from jdd.pretrained.store import Store
from jdd.schema.decoupled import Decoupled
from jdd.schema.values import section
from jdd.training import trainer
from jdd.training.recipe import Recipe, of_keys
from jdd.training.schedules import Cosine

Tree = Any


class Teacher(NamedTuple):
    """One net, its training recipe, and the store of its weights.

    ``frozen``: the same function, compiled for constant weights; use it for inference.
    """

    word: str  # its name in squeeze.nets
    net: Net
    frozen: Net
    recipe: Recipe
    settings: dict[str, Any]
    epochs: int
    store: Store | None  # None: untrained

    @property
    def trained(self) -> bool:
        """True if all its epochs are trained."""
        return self.store is not None and self.store.epochs(0) >= self.epochs

    def variables(self) -> Tree:
        """Return its weights and batch statistics; fresh ones if it is untrained."""
        if self.store is None:
            return jax.device_get(self.net.init(rng.key(0, "estimate")))
        return self.store.read(0, self.epochs)

    def digest(self) -> str:
        """Return a 16-digit hex hash of its weights; '' if it is untrained."""
        return self.store.digest(0, self.epochs) if self.store is not None and self.trained else ""

    def rates(self, images: int) -> Sequence[float]:
        """Return the learning rate of every step on ``images`` real images."""
        per_epoch = self.recipe.steps_per_epoch(images)
        lr, steps = float(self.settings["lr"]), self.epochs * per_epoch
        if self.settings["schedule"] == "constant":
            return (lr,) * steps
        return Cosine(warmup=self.settings["warmup"]).rates(lr, steps, per_epoch)


def teachers(config: Decoupled, data: Dataset, folder: Path | None) -> tuple[Teacher, ...]:
    """Return the teachers of a config, in order; ``folder`` None: untrained ones.

    Raises:
      BadInput: an unknown net, images too small for it, or ``folder`` holds other teachers.
    """
    return tuple(_teacher(name, config, data, folder) for name in config.squeeze.nets)


def _teacher(word: str, config: Decoupled, data: Dataset, folder: Path | None) -> Teacher:
    squeeze = config.squeeze
    name, colon, own = word.partition(":")
    deep, number = own.startswith("d"), own.removeprefix("d")
    if colon and (not number.isdecimal() or not int(number)):
        allowed = "NET, NET:WIDTH or NET:dDEPTH, such as MobileNetV2:16 or ConvNet:d2"
        raise BadInput("config.squeeze.nets", word, allowed)
    width = int(own) if own.isdecimal() else squeeze.width
    wide = width and name in nets.NAMES and (own.isdecimal() or "width" in nets.options_of(name))
    options = {"width": width} if wide else {}
    options |= {"depth": int(number)} if deep else {}
    augment = squeeze.augment
    try:
        made = [
            _net(name, data.shape, data.classes, frozen, tuple(options.items()))
            for frozen in (False, True)
        ]
    except BadInput as error:
        raise BadInput("config.squeeze.nets", error.found, error.allowed) from error
    try:
        crops.names(augment)
    except BadInput as error:
        raise BadInput("config.squeeze.augment", error.found, error.allowed) from error
    batch, parts = squeeze.batch, squeeze.accumulate
    if not trainer.cuts(batch, parts):
        found = f"{parts} parts of squeeze.batch={batch} images"
        raise BadInput("config.squeeze.accumulate", found, "equal parts of two images or more")
    by_adam = squeeze.optimizer == "adam"
    if by_adam and squeeze.lr > 0.02:
        found = f"{squeeze.lr:g} with config.squeeze.optimizer=adam"
        raise BadInput("config.squeeze.lr", found, "0.02 at most; SRe2L++ has 0.001")
    net, frozen = made
    recipe = Recipe(
        **of_keys(squeeze=section(config.squeeze)),
        augment="views",  # crops.py
        strategy="" if augment == "none" else augment,
        classes=data.classes,
    )
    settings = stores.settings(
        data, name, options, squeeze, 1,
        augment=augment, schedule=squeeze.schedule, warmup=squeeze.warmup, epochs=squeeze.epochs,
    )  # fmt: skip
    # Named only if used, so that the settings of older teachers stay equal.
    if recipe.parts > 1:
        settings["accumulate"] = recipe.parts
    if recipe.balanced:
        settings["balanced"] = True
    if by_adam:
        settings["optimizer"] = recipe.optimizer
        del settings["momentum"]
    verify = config.verify_files
    store = None if folder is None else _store(folder, word, net, settings, verify)
    return Teacher(word, net, frozen, recipe, settings, squeeze.epochs, store)


def trained(
    word: str, settings: Mapping[str, Any], data: Dataset, folder: Path
) -> tuple[Net, Tree]:
    """Return a teacher that labelled images: its net (``Teacher.frozen``) and its variables.

    Args:
      word: its name in squeeze.nets.
      settings: the teacher's settings and the digest of its "weights", from the label store.
      data: the dataset it was trained on, or one of the same shape and classes.
      folder: the folder of the teachers.

    Raises:
      BadInput: it is not in ``folder``, or another one is.
    """
    made = {name: value for name, value in settings.items() if name != "weights"}
    options = tuple(dict(made["net_options"]).items())
    net = _net(str(made["net"]), tuple(data.shape), int(data.classes), True, options)
    store, epochs = _store(folder, word, net, made), int(made["epochs"])
    if store.epochs(0) < epochs:
        allowed = "the folder squeeze/ of its run next to the set: its teachers label as nets learn"
        raise BadInput(f"teacher {word}", f"not in {store.directory}", allowed)
    if store.digest(0, epochs) != settings["weights"]:
        raise BadInput(str(store.directory), "other weights than labelled", "those of the same run")
    return net, store.read(0, epochs)


def _store(
    folder: Path, word: str, net: Net, settings: dict[str, Any], verify: bool = True
) -> Store:
    like = jax.eval_shape(net.init, jax.random.key(0))
    place = folder / word.replace(":d", "-d").replace(":", "-w")
    return Store(place, settings, like, key="squeeze.dir", verify=verify)


@lru_cache(maxsize=64)
def _net(
    name: str, shape: tuple[int, int, int], classes: int, frozen: bool, options: tuple[Any, ...]
) -> Net:
    # One object per net: it is the key of compiled programs.
    return nets.make(name, shape, classes, frozen, **dict(options))


def right(teacher: Teacher, split: Any, session: Any = None) -> float:
    """Return the accuracy of a teacher on ``split``, a fraction."""
    variables = jax.tree.map(lambda a: np.asarray(a)[None], teacher.variables())
    return float(accuracy(teacher.net, variables, split, session)[0])
