"""Random real images, as many as a distilled set has: the baseline of every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jdd.errors import BadInput
from jdd.schema.common import Common
from jdd.schema.experts import Experts
from jdd.schema.key import group, like
from jdd.specs.base import Spec, Values

STAGES = ("distill", "evaluate", "report", "full")


# Shared with herding and k-center. Nets are trained on the whole set for accuracy, not for their
# trajectories: with momentum and decay, and so is the full baseline.
@dataclass(frozen=True)
class Config(Common):
    """Keys of Random."""

    align_corners: bool = like(Common, "align_corners", default=False)
    experts: Experts = group(Experts, count=1, group=1, momentum=0.9, weight_decay=5e-4)


DEFAULTS = {"steps": 0, "eval.lr": 0.01, "data.zca": "none"}

STARTS = {
    "digits": {
        "net.width": 32, "experts.batch": 64, "experts.epochs": 10, "baselines.full_epochs": 20,
    },
}  # fmt: skip


def row(accuracy: float, std: float | None, source: str) -> dict[str, Any]:
    """Return one published row: the figure, and the settings common to all rows."""
    return {"values": DEFAULTS, "accuracy": accuracy, "std": std, "source": source}


_DC = "Random, as AutoPalette's and PAD's tables quote it; whether with DSA they do not say"
_PAD = "Random in PAD's protocol, as its paper prints it"
_OLD = "Random, quoted from memory and not checked; DC's protocol, without DSA"

# Tables print CIFAR-10 a second time, in PAD's protocol: 15.4, 31.0 and 50.6 % (CIFAR-100, IPC 50:
# 33.4 %).
PUBLISHED = {
    ("cifar10", 1): row(0.144, 0.020, _DC),
    ("cifar10", 10): row(0.260, 0.012, _DC),
    ("cifar10", 50): row(0.434, 0.010, _DC),
    ("cifar10", 500): row(0.732, None, _PAD),
    ("cifar10", 1000): row(0.784, None, _PAD),
    ("cifar100", 1): row(0.042, 0.003, _DC),
    ("cifar100", 10): row(0.146, 0.005, _DC),
    ("cifar100", 50): row(0.300, 0.004, _DC),
    ("cifar100", 100): row(0.428, None, _PAD),
    ("tiny_imagenet", 1): row(0.014, 0.001, _DC),
    ("tiny_imagenet", 10): row(0.050, 0.002, _DC),
    ("tiny_imagenet", 50): row(0.150, 0.004, _DC),
    ("mnist", 1): row(0.649, 0.035, _OLD),
    ("mnist", 10): row(0.951, 0.009, _OLD),
    ("mnist", 50): row(0.979, 0.002, _OLD),
    ("fashion_mnist", 1): row(0.514, 0.038, _OLD),
    ("fashion_mnist", 10): row(0.738, 0.007, _OLD),
    ("fashion_mnist", 50): row(0.825, 0.007, _OLD),
    ("svhn", 1): row(0.146, 0.016, _OLD),
    ("svhn", 10): row(0.351, 0.041, _OLD),
    ("svhn", 50): row(0.709, 0.009, _OLD),
}

PROTOCOL = {
    "net.name": "ConvNet", "net.width": 128, "net.norm": "instance", "net.act": "relu",
    "net.pool": "avg", "align_corners": False,
    "eval.epochs": 1000, "eval.batch": 256, "eval.steps": 0,
}  # fmt: skip


def _epochs(values: Values) -> int:
    return 300 if values["data.dsa"] in ("", "none") else 1000


# DC trains 300 epochs without augmentation.
DERIVED = {"eval.epochs": _epochs}


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    if values["steps"]:
        found = f"{values['steps']} with method={values['method']}"
        raise BadInput("config.steps", found, "0: real images are chosen, no step changes them")
    if not values["eval.lr"]:
        raise BadInput(
            "config.eval.lr", "0, and no rate is learned", "above 0, such as --config.eval.lr=0.01"
        )


SPEC = Spec(
    name="random",
    make="jdd.methods.random:make",
    title="Random",
    config=Config,
    stages=STAGES,
    protocol=PROTOCOL,
    derived=DERIVED,
    validate=validate,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
