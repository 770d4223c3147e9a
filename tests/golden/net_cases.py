"""Weights and images that a golden generator and its test both draw, so that none are stored."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

# name of the case -> (net, shape, options); forward values of each are in nets.npz.
NET_CASES: dict[str, tuple[str, tuple[int, int, int], dict[str, Any]]] = {
    "convnet": ("ConvNet", (32, 32, 3), {"width": 16}),
    "convnet_grey": ("ConvNet", (28, 28, 1), {"width": 8}),
    "convnet_wide": ("ConvNet", (16, 21, 3), {"width": 8}),
    "convnet_group_swish": ("ConvNet", (16, 16, 3), {"width": 8, "norm": "group", "act": "swish"}),
    "convnet_layer_leaky": ("ConvNet", (16, 16, 3), {"width": 8, "norm": "layer", "act": "leaky"}),
    "convnet_none_sigmoid": (
        "ConvNet",
        (16, 16, 3),
        {"width": 8, "depth": 2, "norm": "none", "act": "sigmoid", "pool": "none"},
    ),
    "convnet_max": ("ConvNet", (15, 18, 3), {"width": 8, "pool": "max"}),
    "convnet_bn": ("ConvNetBN", (16, 16, 3), {"width": 8}),
    "mlp": ("MLP", (8, 8, 3), {}),
    "lenet": ("LeNet", (32, 32, 3), {}),
    "lenet_grey": ("LeNet", (28, 28, 1), {}),
    "alexnet_grey": ("AlexNet", (28, 28, 1), {"width": 8}),
    "alexnet_bn": ("AlexNetBN", (16, 16, 3), {"width": 8}),
    "vgg11_grey": ("VGG11", (28, 28, 1), {"width": 8}),
    "vgg11_bn": ("VGG11BN", (32, 32, 3), {"width": 4}),
    "resnet18": ("ResNet18", (16, 16, 3), {"width": 4}),
    "resnet18_bn_ap": ("ResNet18BN_AP", (28, 28, 1), {"width": 4}),
}
# The nets of SRe2L, G-VBSM and RDED; their values are in decoupled_nets.npz.
DECOUPLED: dict[str, tuple[str, tuple[int, int, int], dict[str, Any]]] = {
    "resnet18_in": ("ResNet18BN_IN", (37, 34, 3), {"width": 4}),
    "resnet50": ("ResNet50BN", (16, 18, 3), {"width": 4}),
    "mobilenet": ("MobileNetV2", (16, 12, 3), {"width": 12}),
    "shufflenet": ("ShuffleNetV2", (65, 64, 3), {"width": 4}),
    "shufflenet_small": ("ShuffleNetV2", (16, 16, 1), {"width": 6}),
    "wrn": ("WRN16_2", (16, 12, 3), {"width": 4}),
}
CLASSES = 10
# The other cases check the forward pass alone: compiling a gradient takes seconds.
WITH_GRADIENTS = (
    "convnet",
    "convnet_group_swish",
    "convnet_layer_leaky",
    "convnet_max",
    "convnet_bn/train",
)


def modes(case: str) -> tuple[bool, ...]:
    """Return the values of ``train`` a case is run with: both for one net with batch norm."""
    return (False, True) if case == "convnet_bn" else ("BN" in NET_CASES[case][0],)


def _rng(path: str) -> np.random.Generator:
    return np.random.default_rng([7, zlib.crc32(path.encode())])


def leaf(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the float64 array of one variable, by its path such as ``params/conv1/kernel``."""
    rng, kind = _rng(path), path.rsplit("/", 1)[1]
    if kind == "kernel":
        bound = math.sqrt(3 / math.prod(shape[:-1]))  # unit gain: deep nets keep their scale
        return rng.uniform(-bound, bound, shape)
    if kind in ("scale", "var"):
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, 0.2, shape)


def variables(shapes: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return arrays for a nested dictionary of things with a shape."""
    return {
        name: variables(value, f"{path}{name}/")
        if isinstance(value, dict)
        else leaf(f"{path}{name}", value.shape)
        for name, value in shapes.items()
    }


def images(case: str, shape: tuple[int, int, int], n: int = 3) -> np.ndarray:
    """Return the float64 images of a case, [n, h, w, c]."""
    return _rng(case).normal(size=(n, *shape))
