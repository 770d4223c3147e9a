"""DSA: gradient matching with differentiable Siamese augmentation (Zhao & Bilen, ICML 2021)."""

from __future__ import annotations

from typing import Any

from jdd.specs import dc
from jdd.specs.base import Spec

Config = dc.Matching
DEFAULTS = {"lr_img": 0.1, "pix_init": "real"}
STARTS = {"digits": dc.STARTS["digits"] | {"steps": 120, "eval.epochs": 300}}


def _row(accuracy: float, std: float, ipc: int) -> dict[str, Any]:
    source = "DSA (Zhao & Bilen, ICML 2021), final step"
    return dc.row(accuracy, std, source, ipc, **DEFAULTS)


# fmt: off
PUBLISHED = {
    ("mnist", 1):          _row(0.887, 0.006, 1),
    ("mnist", 10):         _row(0.978, 0.001, 10),
    ("mnist", 50):         _row(0.992, 0.001, 50),
    ("fashion_mnist", 1):  _row(0.706, 0.006, 1),
    ("fashion_mnist", 10): _row(0.846, 0.003, 10),
    ("fashion_mnist", 50): _row(0.887, 0.002, 50),
    ("svhn", 1):           _row(0.275, 0.014, 1),
    ("svhn", 10):          _row(0.792, 0.005, 10),
    ("svhn", 50):          _row(0.844, 0.004, 50),
    ("cifar10", 1):        _row(0.288, 0.007, 1),
    ("cifar10", 10):       _row(0.521, 0.005, 10),
    ("cifar10", 50):       _row(0.606, 0.005, 50),
    ("cifar100", 1):       _row(0.139, 0.003, 1),
    ("cifar100", 10):      _row(0.323, 0.003, 10),
    ("cifar100", 50):      _row(0.428, 0.004, 50),
    ("tiny_imagenet", 1):  _row(0.066, 0.002, 1),
    ("tiny_imagenet", 10): _row(0.144, 0.020, 10),
}
# fmt: on

CROSS = {
    ("cifar10", 10): {
        "values": {
            "ConvNet": (0.521, 0.004), "ResNet18": (0.428, 0.010), "VGG11": (0.432, 0.005),
            "AlexNet": (0.359, 0.013),
        },
        "source": "DSA as measured in the MTT paper (Cazenavette et al., CVPR 2022), quoted from "
        "memory and not checked",
    },
}  # fmt: skip

PROTOCOL = dc.GRADIENT_PROTOCOL | {"eval.epochs": 1000}


SPEC = Spec(
    name="dsa",
    make="jdd.methods.dsa:make",
    probe=("lr_img",),
    title="DSA",
    config=Config,
    stages=dc.STAGES,
    protocol=PROTOCOL,
    derived=dc.LOOP_RULES,
    defaults=DEFAULTS,
    published=PUBLISHED,
    cross=CROSS,
    starts=STARTS,
)
