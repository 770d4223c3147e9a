"""The nets of a common protocol: one teacher a dataset, in the cache, and its students."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jdd import nets
from jdd.augment import views
from jdd.data import Dataset
from jdd.data.catalogue import default_dsa, lookup
from jdd.errors import BadInput
from jdd.nets import Net
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.schema.protocols import Protocol
from jdd.stages import cached_net
from jdd.stages.cached_net import CachedNet
from jdd.training.recipe import Recipe

LINE, EARLY = "protocol-teacher", "protocol-early"  # names of lines in the metrics

Tree = Any


class ProtocolTeacher(NamedTuple):
    """The trained nets of a protocol.

    Attributes:
      net: of the teacher and of students.
      variables: the teacher's.
      early: those of a net of a few epochs, whose errors order images (EL2N).
      facts: name the teacher in results: net, width, epochs, accuracy, digest.
    """

    net: Net
    variables: Tree
    early: Tree
    facts: dict[str, Any]


def flips(data: Dataset) -> bool:
    """Return whether images of a dataset may be mirrored: whether its augmentation has a flip."""
    facts, own = lookup(data.name), data.dsa
    usual = default_dsa(data.shape[-1]) if own in ("", "none") else own
    return "flip" in (facts.dsa if facts else usual).split("_")


def spec(protocol: Protocol, data: Dataset) -> views.Spec:
    """Return the distribution of a protocol's views of the images of a dataset.

    A padded crop shifts by an eighth of the side.
    """
    return views.Spec(
        crop=protocol.crop,
        scale=(protocol.min_scale, 1.0),
        pad=max(1, data.shape[0] // 8),
        flip=protocol.flip if flips(data) else 0.0,
        mix=protocol.mix,
        alpha=protocol.alpha,
    )


def made(context: RunContext, protocol: Protocol, data: Dataset, epochs: int = 0) -> CachedNet:
    """Return the teacher, trained or not; with ``epochs`` a net of as many, of the same recipe.

    Raises:
      BadInput: the protocol's net cannot be built for these images.
    """
    name, augment = protocol.net_for(data.shape), "pad_flip" if flips(data) else "pad"
    wide = protocol.width and "width" in nets.options_of(name)
    options = {"width": protocol.width} if wide else {}
    recipe = Recipe(
        batch=protocol.teacher_batch, momentum=0.9, weight_decay=protocol.teacher_decay,
        augment="views", strategy=augment, classes=data.classes,
    )  # fmt: skip
    length = epochs or protocol.teacher_epochs
    try:
        return cached_net.of(
            context, data, "protocol-teachers", name, options, recipe, length,
            protocol.teacher_lr, augment=augment,
        )  # fmt: skip
    except BadInput as error:
        allowed = f"own, or another protocol for these images ({error.allowed})"
        raise BadInput("config.eval.protocol", error.found, allowed) from error


def trained(
    context: RunContext, protocol: Protocol, data: Dataset, session: Session
) -> ProtocolTeacher:
    """Return the protocol's nets, trained now if they are not in the cache.

    Raises:
      Interrupted: a signal arrived; complete epochs are stored.
    """
    teacher, early = made(context, protocol, data), made(context, protocol, data, protocol.early)
    variables, accuracy = cached_net.trained(context, data, teacher, session, LINE)
    first, _ = cached_net.trained(context, data, early, session, EARLY)
    one, other = (jax.tree.map(lambda a: np.asarray(a)[0], tree) for tree in (variables, first))
    return ProtocolTeacher(teacher.net, one, other, teacher.facts(accuracy))
