"""DC: dataset condensation with gradient matching (Zhao et al., ICLR 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jdd.errors import BadInput
from jdd.schema.families import ClassMatched
from jdd.schema.key import AUTO, option
from jdd.specs.base import Spec, Values


@dataclass(frozen=True)
class Matching(ClassMatched):
    """Keys of DC and DSA."""

    outer_loop: int = option(AUTO, "T: updates of the images on one net", minimum=1)
    inner_epochs: int = option(AUTO, "E: epochs on the set between two updates", minimum=0)
    lr_net: float = option(0.01, "learning rate of the net between updates", minimum=0)
    batch_net: int = option(256, "images per step between updates", minimum=1)
    distance: str = option(
        "unit",
        "between gradients: by output unit, squared, or one cosine",
        choices=("unit", "mse", "cos"),
    )


@dataclass(frozen=True)
class Config(Matching):
    """Keys of DC."""

    dc_aug: str = option(
        AUTO,
        "DC's own augmentation, in evaluation: crop_scale_rotate, crop_noise, none",
    )


DEFAULTS = {"lr_img": 0.1, "pix_init": "noise", "data.dsa": "none"}

# Found by a few trials: shorter loops and batches, real images first.
STARTS = {
    "digits": {
        "net.width": 32, "batch_real": 64, "pix_init": "real", "lr_img": 0.1, "lr_net": 0.02,
        "inner_epochs": 5, "steps": 220,
    },
}  # fmt: skip

# IPC: (T, E); the rest of the table in the authors' code.
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


def loops(ipc: int) -> tuple[int, int]:
    """Return T and E: the authors' values for their IPCs.

    Between these, T is the IPC and E that of the next row below (50 below 10); above 50 they are 50
    and 10, as the authors recommend.
    """
    if ipc in LOOPS or ipc > 50:
        return LOOPS[min(ipc, 50)]
    return ipc, LOOPS[max(10, ipc // 10 * 10)][1]


def row(accuracy: float, std: float, source: str, ipc: int, **values: object) -> dict[str, Any]:
    """Return a row of a table of published figures; the final step, 5 runs of 20 nets."""
    outer, inner = loops(ipc)
    counts = {"steps": 1000 * outer, "outer_loop": outer, "inner_epochs": inner}
    return {"values": values | counts, "accuracy": accuracy, "std": std, "source": source}


def _row(accuracy: float, std: float, ipc: int, augment: str = "none") -> dict[str, Any]:
    source = "DC (Zhao et al., ICLR 2021), final step"
    evaluated = {"dc_aug": augment, "eval.epochs": 300 if augment == "none" else 1000}
    return row(accuracy, std, source, ipc, **DEFAULTS, **evaluated)


_MOVES = "crop_scale_rotate"


# fmt: off
PUBLISHED = {
    ("mnist", 1):          _row(0.917, 0.005, 1, _MOVES),
    ("mnist", 10):         _row(0.974, 0.002, 10, _MOVES),
    ("mnist", 50):         _row(0.988, 0.001, 50, _MOVES),
    ("fashion_mnist", 1):  _row(0.705, 0.006, 1),
    ("fashion_mnist", 10): _row(0.823, 0.004, 10),
    ("fashion_mnist", 50): _row(0.836, 0.004, 50),
    ("svhn", 1):           _row(0.312, 0.014, 1),
    ("svhn", 10):          _row(0.761, 0.006, 10),
    ("svhn", 50):          _row(0.823, 0.003, 50),
    ("cifar10", 1):        _row(0.283, 0.005, 1),
    ("cifar10", 10):       _row(0.449, 0.005, 10),
    ("cifar10", 50):       _row(0.539, 0.005, 50),
    ("cifar100", 1):       _row(0.128, 0.003, 1),
    ("cifar100", 10):      _row(0.252, 0.003, 10),
}
# fmt: on

# {(dataset, IPC): accuracies of other nets on the set}, of sets distilled with ConvNet.
CROSS = {
    ("mnist", 1): {
        "values": {
            "MLP": (0.696, 0.016), "ConvNet": (0.917, 0.005), "LeNet": (0.853, 0.018),
            "AlexNet": (0.851, 0.030), "VGG11": (0.834, 0.018), "ResNet18": (0.900, 0.008),
        },
        "source": "DC (Zhao et al., ICLR 2021), table 2; all but ConvNet quoted from memory",
    },
}  # fmt: skip

# The rest of the published protocol; a run that differs is still compared, with a note.
GRADIENT_PROTOCOL = {
    "net.name": "ConvNet", "net.width": 128, "net.norm": "instance", "net.act": "relu",
    "net.pool": "avg", "net.init": "torch", "img_momentum": 0.5, "batch_real": 256,
    "lr_net": 0.01, "batch_net": 256, "distance": "unit", "align_corners": False,
    "eval.batch": 256, "eval.lr": 0.0, "eval.steps": 0,
}  # fmt: skip
PROTOCOL = GRADIENT_PROTOCOL


def _augmentation(values: Values) -> str:
    if values["data.dsa"] not in ("", "none"):
        return "none"
    if values["data.name"] == "mnist":
        return _MOVES
    batch = values["net.norm"] == "batch" or "BN" in values["net.name"]
    return "crop_noise" if batch else "none"


def _epochs(values: Values) -> int:
    plain = values["data.dsa"] in ("", "none") and values["dc_aug"] == "none"
    return 300 if plain else 1000


# Keys whose 'auto' follows from other keys, for DSA too.
LOOP_RULES = {
    "outer_loop": lambda values: loops(values["ipc"])[0],
    "inner_epochs": lambda values: loops(values["ipc"])[1],
    "steps": lambda values: 1000 * values["outer_loop"],
}
DERIVED = LOOP_RULES | {"dc_aug": _augmentation, "eval.epochs": _epochs}
STAGES = ("distill", "evaluate", "report", "full")


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    from jdd.augment import dc

    if dc.names(values["dc_aug"]) and values["data.dsa"] not in ("", "none", "auto"):
        found = f"{values['dc_aug']} with data.dsa={values['data.dsa']}"
        raise BadInput("config.dc_aug", found, "one of both: the other is none")


SPEC = Spec(
    name="dc",
    make="jdd.methods.dc:make",
    probe=("lr_img",),
    title="DC",
    config=Config,
    stages=STAGES,
    protocol=PROTOCOL,
    derived=DERIVED,
    validate=validate,
    defaults=DEFAULTS,
    published=PUBLISHED,
    cross=CROSS,
    starts=STARTS,
)
