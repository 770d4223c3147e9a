"""DM: dataset condensation with distribution matching (Zhao & Bilen, WACV 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jdd.schema.families import ClassMatched
from jdd.schema.key import option
from jdd.specs.base import Spec


@dataclass(frozen=True)
class Config(ClassMatched):
    """Keys of DM."""

    irg_edges: float = option(
        0.0,
        "weight of the distances between the classes' means, synthetic against real ones (0: off); "
        "all classes then pass together",
        minimum=0,
        later=True,
        sparse=True,
    )


DEFAULTS = {"lr_img": 1.0, "pix_init": "real", "steps": 20000}

# Found by a few trials.
STARTS = {
    "digits": {
        "net.width": 32, "batch_real": 64, "lr_img": 10.0, "steps": 500, "eval.epochs": 400,
    },
}  # fmt: skip


def _row(accuracy: float, std: float, lr_img: float = 1.0, note: str = "") -> dict[str, Any]:
    source = "DM (Zhao & Bilen, WACV 2023), final step" + note
    values = DEFAULTS | {"lr_img": lr_img}
    return {"values": values, "accuracy": accuracy, "std": std, "source": source}


_QUOTED = ", quoted from memory and not checked"

# fmt: off
PUBLISHED = {
    ("mnist", 1):          _row(0.897, 0.006, note=_QUOTED),
    ("mnist", 10):         _row(0.975, 0.001, note=_QUOTED),
    ("mnist", 50):         _row(0.986, 0.001, note=_QUOTED),
    ("fashion_mnist", 1):  _row(0.707, 0.006, note=_QUOTED),
    ("fashion_mnist", 10): _row(0.835, 0.003, note=_QUOTED),
    ("fashion_mnist", 50): _row(0.881, 0.006, note=_QUOTED),
    ("svhn", 1):           _row(0.303, 0.001, note=_QUOTED),
    ("svhn", 10):          _row(0.735, 0.005, note=_QUOTED),
    ("svhn", 50):          _row(0.820, 0.002, note=_QUOTED),
    ("cifar10", 1):        _row(0.260, 0.008),
    ("cifar10", 10):       _row(0.489, 0.006),
    ("cifar10", 50):       _row(0.630, 0.004),
    ("cifar10", 100):      _row(0.670, 0.003, 10.0),
    ("cifar10", 200):      _row(0.712, 0.004, 10.0),
    ("cifar10", 500):      _row(0.761, 0.003, 10.0),
    ("cifar10", 1000):     _row(0.798, 0.003, 10.0),
    ("cifar10", 1250):     _row(0.808, 0.003, 10.0),
    ("cifar100", 1):       _row(0.114, 0.003),
    ("cifar100", 10):      _row(0.297, 0.003),
    ("cifar100", 50):      _row(0.436, 0.004),
    ("tiny_imagenet", 1):  _row(0.039, 0.002),
    ("tiny_imagenet", 10): _row(0.129, 0.004),
    ("tiny_imagenet", 50): _row(0.241, 0.003),
}
# fmt: on

# {(dataset, IPC): accuracies of other nets}, of sets distilled with ConvNetBN.
CROSS = {
    ("cifar10", 50): {
        "net": "ConvNetBN",
        "values": {
            "ConvNetBN": (0.652, None), "AlexNetBN": (0.613, None), "VGG11BN": (0.599, None),
            "ResNet18BN": (0.570, None),
        },
        "source": "DM (Zhao & Bilen, WACV 2023), distilled with ConvNetBN" + _QUOTED,
    },
}  # fmt: skip

PROTOCOL = {
    "net.name": "ConvNet", "net.width": 128, "net.norm": "instance", "net.act": "relu",
    "net.pool": "avg", "net.init": "torch", "img_momentum": 0.5, "batch_real": 256,
    "align_corners": False, "eval.epochs": 1000, "eval.batch": 256, "eval.lr": 0.0,
    "eval.steps": 0,
}  # fmt: skip
STAGES = ("distill", "evaluate", "report", "full")


SPEC = Spec(
    name="dm",
    make="jdd.methods.dm:make",
    probe=("lr_img",),
    title="DM",
    config=Config,
    stages=STAGES,
    protocol=PROTOCOL,
    defaults=DEFAULTS,
    published=PUBLISHED,
    cross=CROSS,
    starts=STARTS,
)
