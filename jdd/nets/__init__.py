"""Nets by name: ``make("ConvNet", (32, 32, 3), 10, width=64) -> Net``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from jdd.config.rules import auto_depth
from jdd.errors import BadInput, nearest
from jdd.nets.alexcifar import AlexCifarNet
from jdd.nets.alexnet import AlexNet
from jdd.nets.base import INITS, Net, Output, Variables, build
from jdd.nets.conv import TooSmall
from jdd.nets.convnet import ACTIVATIONS, POOLS, ConvNet
from jdd.nets.freponet import FRePoNet
from jdd.nets.lenet import LeNet
from jdd.nets.mlp import MLP
from jdd.nets.mobilenet import MobileNetV2
from jdd.nets.nfresnet import NFResNet, blocks_of
from jdd.nets.norm import NORMS
from jdd.nets.resnet import ResNet
from jdd.nets.shufflenet import ShuffleNetV2
from jdd.nets.vgg import VGG11
from jdd.nets.vit import DEPTH, WIDTH, ViT
from jdd.nets.vit import settled as settled_vit
from jdd.nets.wideresnet import WideResNet

# name -> (module, options fixed by the name, options that may be set)
_BN18 = {"norm": "batch"}
_BN50 = {"norm": "batch", "blocks": (3, 4, 6, 3), "bottleneck": True}
_CONVNET = ("width", "depth", "norm", "act", "pool")
_TABLE: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], tuple[str, ...]]] = {
    "ConvNet": (ConvNet, {}, _CONVNET),
    "FRePoNet": (FRePoNet, {}, ("width", "depth", "norm")),
    "MLP": (MLP, {}, ("width",)),
    "MLP1": (MLP, {"layers": 1}, ("width",)),
    "LeNet": (LeNet, {}, ()),
    "AlexNet": (AlexNet, {}, ("width", "norm")),
    "AlexCifarNet": (AlexCifarNet, {}, ("width",)),
    "VGG11": (VGG11, {}, ("width", "norm")),
    "ResNet18": (ResNet, {}, ("width", "norm")),
    "ResNet18_AP": (ResNet, {"pooled": True}, ("width", "norm")),
    "ConvNetBN": (ConvNet, {"norm": "batch"}, ("width", "depth", "act", "pool")),
    "ConvNetASwishBN": (ConvNet, {"norm": "batch", "act": "swish"}, ("width", "depth", "pool")),
    "AlexNetBN": (AlexNet, {"norm": "batch"}, ("width",)),
    "VGG11BN": (VGG11, {"norm": "batch"}, ("width",)),
    "ResNet18BN": (ResNet, _BN18, ("width",)),
    "ResNet18BN_AP": (ResNet, _BN18 | {"pooled": True}, ("width",)),
    "ResNet18BN_IN": (ResNet, _BN18 | {"large": True}, ("width",)),
    "ResNet50BN": (ResNet, _BN50, ("width",)),
    "ResNet50BN_IN": (ResNet, _BN50 | {"large": True}, ("width",)),
    "MobileNetV2": (MobileNetV2, {}, ("width",)),
    "ShuffleNetV2": (ShuffleNetV2, {}, ("width",)),
    "WRN16_2": (WideResNet, {}, ("width",)),
    "NFResNet": (NFResNet, {}, ("width", "depth", "act", "skipinit")),
    "NFResNet_IN": (NFResNet, {"large": True}, ("width", "depth", "act", "skipinit")),
    "ViT": (ViT, {}, ("width", "depth", "heads", "patch")),
}
_WORDS = {"norm": NORMS, "act": tuple(ACTIVATIONS), "pool": tuple(POOLS), "init": INITS}

# Values of 'auto' for nets whose options a config resolves, and each net's own initialisation.
OWN: dict[str, dict[str, Any]] = {
    "ConvNet": {"width": 128, "norm": "instance"},
    "FRePoNet": {"width": 128, "norm": "none", "init": "lecun"},
    "NFResNet": {"width": 64, "depth": 18, "init": "lecun"},
    "NFResNet_IN": {"width": 64, "depth": 50, "init": "lecun"},
    "ViT": {"width": WIDTH, "depth": DEPTH, "init": "xavier"},
}

NAMES = tuple(_TABLE)
__all__ = ["NAMES", "OWN", "Net", "Output", "Variables", "auto_depth", "init_of", "make"]
__all__ += ["averaging", "describe", "options_of"]


def make(
    name: str, shape: tuple[int, int, int], classes: int, frozen: bool = False, **options: Any
) -> Net:
    """Make the net called ``name`` for images of ``shape`` (h, w, c).

    ``frozen``: the same function, compiled for constant weights; use it for inference.

    Options (``options_of(name)`` lists a net's): ``width``, the channels of the first layer, the
    others in proportion (of ShuffleNetV2 those of the first stage, an even number); for ConvNet
    ``depth`` (a number, or "auto": 3 up to 32 pixels, 4 up to 64, then 5), ``norm`` (instance,
    batch, group, layer, none), ``act`` (relu, sigmoid, leaky, swish), ``pool`` (avg, max, none).
    FRePoNet takes ``depth`` and ``norm``, VGG11, ResNet18 and AlexNet ``norm``. NFResNet takes
    ``depth`` (10, 18, 26, 50, 101 layers), ``act`` and ``skipinit`` (true, false), ViT ``depth``
    (blocks), ``heads`` and ``patch`` (pixels a side). All take ``init`` (torch, xavier, lecun).

    Raises:
      BadInput: an unknown net or option, an invalid value of an option, images too small.
    """
    if name not in _TABLE:
        close = nearest(name, NAMES)
        meant = f"did you mean {close}? " if close else ""
        raise BadInput(
            "config.net.name", f"unknown net {name!r}", f"{meant}one of {', '.join(NAMES)}"
        )
    module, fixed, _ = _TABLE[name]
    options = {key: _checked(name, key, value) for key, value in options.items()}
    start = options.pop("init", init_of(name))
    options = _settled(name, shape, options)
    if frozen and module is ConvNet:
        options["frozen"] = True
    net = build(name, module(classes, **fixed, **options), shape, start)
    try:
        jax.eval_shape(net.init, jax.eval_shape(jax.random.key, 0))
    except TooSmall as error:
        found = f"{name} on images of {shape[0]}x{shape[1]}: {error}"
        raise BadInput(
            "config.net.name",
            found,
            "larger images (--config.data.size=32) or a net with less depth",
        ) from error
    return net


def _settled(name: str, shape: tuple[int, int, int], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with those that follow from the shape or from each other."""
    module, width = _TABLE[name][0], options.get("width", 4)
    if options.get("depth", "auto") == "auto":
        options = {k: v for k, v in options.items() if k != "depth"}
        if module in (ConvNet, FRePoNet):
            options["depth"] = auto_depth(shape)
        elif "depth" in OWN.get(name, {}):
            options["depth"] = OWN[name]["depth"]
    if options.get("norm") == "group" and width % 4:
        found = f"{options['width']} with norm=group"
        raise BadInput("config.net.width", found, "a multiple of the 4 groups")
    if module is ShuffleNetV2 and width % 2:
        raise BadInput(
            "config.net.width", str(options["width"]), "an even number: halves are shuffled"
        )
    if module is NFResNet:
        blocks_of(options["depth"])
    return settled_vit(shape, options) if module is ViT else options


def averaging() -> tuple[str, ...]:
    """Return the nets whose head reads the mean of the last feature map: they have label maps."""
    nets = (MobileNetV2, NFResNet, ResNet, ShuffleNetV2, WideResNet)
    found = ((name, *entry) for name, entry in _TABLE.items())
    return tuple(n for n, module, fixed, _ in found if module in nets and "pooled" not in fixed)


def options_of(name: str) -> tuple[str, ...]:
    """Return the names of the options that ``make`` takes for a net."""
    return (*_TABLE[name][2], "init")


def describe() -> dict[str, str]:
    """Return one line for each net: what it is, what its name fixes and which options it takes."""
    found = {}
    for name, (module, fixed, takes) in _TABLE.items():
        line = (sys.modules[module.__module__].__doc__ or "").partition("\n")[0].rstrip(".")
        words = [f"{key}={value}" for key, value in fixed.items()]
        found[name] = f"{line}; {'with ' + ', '.join(words) + '; ' if words else ''}" + (
            f"options {', '.join((*takes, 'init'))}"
        )
    return found


def init_of(name: str) -> str:
    """Return the default ``init`` of a net."""
    return str(OWN.get(name, {}).get("init", INITS[0]))


def _checked(net: str, key: str, value: Any) -> Any:
    where, allowed = f"config.net.{key}", options_of(net)
    if key not in allowed:
        takes = f"{net} takes {', '.join(allowed) or 'no options'}"
        raise BadInput(where, f"not an option of {net}", takes)
    if key in _WORDS:
        if value not in _WORDS[key]:
            raise BadInput(where, repr(value), f"one of {', '.join(_WORDS[key])}")
        return value
    if key == "skipinit":
        if not isinstance(value, bool):
            raise BadInput(where, repr(value), "true or false")
        return value
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not whole and not (key == "depth" and value == "auto"):
        raise BadInput(where, repr(value), "a whole number of 1 or more")
    return value
