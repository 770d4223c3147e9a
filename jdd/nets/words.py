"""Nets by words NET and NET:WIDTH, among them the short ResNets of DiM's pool."""

from __future__ import annotations

from typing import Any

from jdd import nets
from jdd.errors import BadInput
from jdd.nets import Net
from jdd.nets.base import build
from jdd.nets.resnet import ResNet

# One block a stage; of no run's own. name -> fixed options of ResNet.
_SHORT: dict[str, dict[str, Any]] = {"ResNet10BN": {}, "ResNet10BN_AP": {"pooled": True}}


def make(word: str, shape: tuple[int, int, int], classes: int, where: str) -> Net:
    """Return the net of a word ``NET`` or ``NET:WIDTH``.

    Raises:
      BadInput: naming ``where``: no such net, or a width that is no number.
    """
    name, colon, text = word.partition(":")
    if colon and not (text.isdigit() and int(text)):
        raise BadInput(where, repr(word), "NET or NET:WIDTH, such as ConvNet:64")
    width: dict[str, Any] = {"width": int(text)} if colon else {}
    if name in _SHORT:
        module = ResNet(classes, norm="batch", blocks=(1, 1, 1, 1), **_SHORT[name], **width)
        return build(name, module, shape)
    if name not in nets.NAMES:
        known = ", ".join((*_SHORT, *nets.NAMES))
        raise BadInput(where, f"unknown net {name!r}", f"one of {known}")
    if width and "width" not in nets.options_of(name):
        raise BadInput(where, repr(word), f"{name} alone: it has no width")
    return nets.make(name, shape, classes, **width)
