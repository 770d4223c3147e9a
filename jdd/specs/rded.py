"""RDED: images tiled from the crops that a teacher classifies best (Sun et al., CVPR 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jdd.errors import BadInput
from jdd.schema.decoupled import Decoupled, Relabel
from jdd.schema.key import AUTO, group, option
from jdd.specs import sre2l
from jdd.specs.base import Spec, Values

if TYPE_CHECKING:
    from jdd.data.dataset import Dataset


@dataclass(frozen=True)
class Config(Decoupled):
    """Keys of RDED."""

    relabel: Relabel = group(Relabel, shuffle=AUTO)
    factor: int = option(AUTO, "crops per side of an image", minimum=1)
    candidates: int = option(300, "candidate real images per class", minimum=1)
    crops: int = option(5, "random crops of each", minimum=1)
    min_scale: float = option(0.08, "smallest area of a crop", minimum=0.01, maximum=1)
    ref_bugs: bool = option(
        False,
        "a student's step updates its running batch-norm statistics twice, as in the authors' code",
        later=True,
    )


# The authors do not say how their teachers are trained: SRe2L's recipe.
_POST = {
    "relabel.crop": "resized", "relabel.flip": 0.5, "relabel.mix": "cutmix", "relabel.alpha": 1.0,
    "relabel.bn": "eval",
    "post.optimizer": "adamw", "post.weight_decay": 0.01, "post.decay": "matrices",
    "post.stretch": 2.0, "post.warmup": 0, "post.loss": "kl", "post.temperature": 20.0,
    "post.ce_weight": 0.0, "post.accumulate": 1, "eval.lr": 0.001, "eval.epochs": 300,
}  # fmt: skip
DEFAULTS = sre2l.SQUEEZE | _POST | {"steps": 0, "quantise": "jpeg"}
TINY = DEFAULTS | {name: sre2l.TINY[name] for name in sre2l.SQUEEZE}
IMAGENET = DEFAULTS | {name: sre2l.IMAGENET[name] for name in (*sre2l.SQUEEZE, "squeeze.nets")}
STARTS = {
    "digits": {
        name: value for name, value in sre2l.DIGITS.items() if name not in ("roll",)
    } | {"relabel.crop": "padded", "relabel.flip": 0.0},
    "imagenet": IMAGENET | {"net.name": sre2l.STARTS["imagenet"]["net.name"]},
}  # fmt: skip

_CVDD = "RDED as CV-DD's table quotes it, ResNet18, best of the last fifth's evaluations"

PUBLISHED = {
    ("cifar10", 1): sre2l.row(0.229, None, _CVDD, DEFAULTS),
    ("cifar10", 10): sre2l.row(0.371, None, _CVDD, DEFAULTS),
    ("cifar10", 50): sre2l.row(0.621, None, _CVDD, DEFAULTS),
    ("cifar100", 1): sre2l.row(0.110, None, _CVDD, DEFAULTS),
    ("cifar100", 10): sre2l.row(0.426, None, _CVDD, DEFAULTS),
    ("cifar100", 50): sre2l.row(0.626, None, _CVDD, DEFAULTS),
    ("tiny_imagenet", 1): sre2l.row(0.097, None, _CVDD, TINY),
    ("tiny_imagenet", 10): sre2l.row(0.419, None, _CVDD, TINY),
    ("tiny_imagenet", 50): sre2l.row(0.582, None, _CVDD, TINY),
    ("imagenet", 1): sre2l.row(0.066, None, _CVDD, IMAGENET),
    ("imagenet", 10): sre2l.row(0.420, None, _CVDD, IMAGENET),
    ("imagenet", 50): sre2l.row(0.565, None, _CVDD, IMAGENET),
}

PROTOCOL = {
    "squeeze.nets": ("ResNet18BN",), "squeeze.width": 0, "candidates": 300, "crops": 5,
    "min_scale": 0.08, "ref_bugs": False, "net.name": "ResNet18BN", "nets": ("ResNet18BN",),
}  # fmt: skip


def _factor(values: Values) -> int | str:
    """Two crops per side, except one for small images (CIFAR, Tiny-ImageNet)."""
    shape = values["data.shape"]
    if shape is None:
        return AUTO
    return 1 if max(shape[:2]) <= 64 else 2


def _from_factor(
    rule: Callable[[int], int | float],
) -> Callable[[Values], int | float | str]:
    """Return ``rule`` of the factor; the result is 'auto' as long as the factor is."""
    return lambda values: AUTO if values["factor"] == AUTO else rule(values["factor"])


def _batch(values: Values) -> int:
    """Return the batch: 10, 50 and 100 images at IPC 1, 10 and 50; twice as many for 100 and 1000
    classes, 100 for Tiny-ImageNet's 200.
    """
    from jdd.data import catalogue

    known = catalogue.lookup(values["data.name"])
    classes = known.classes if known else 0
    base = 10 if values["ipc"] < 10 else 50 if values["ipc"] < 50 else 100
    return 100 if classes == 200 else 2 * base if classes in (100, 1000) else base


DERIVED = {
    "factor": _factor,
    "eval.batch": _batch,
    "relabel.shuffle": _from_factor(lambda factor: factor),
    "relabel.min_scale": _from_factor(lambda factor: 1 / factor),
}


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    sre2l.validate(values)
    if values["ref_bugs"] and values["post.accumulate"] > 1:
        found = f"{values['post.accumulate']} with ref_bugs=true"
        raise BadInput("config.post.accumulate", found, "1: their second update sees whole batches")
    if values["steps"]:
        found = f"{values['steps']} with method=rded"
        raise BadInput("config.steps", found, "0: crops are chosen, no step changes them")


def validate_data(values: Values, data: Dataset) -> None:
    """Refuse resolved values that do not fit the dataset."""
    height, width = data.shape[:2]
    if height % values["factor"] or width % values["factor"]:
        both = math.gcd(height, width)
        allowed = ", ".join(str(n) for n in range(1, both + 1) if both % n == 0)
        found = f"{values['factor']}, and the images have {height} x {width} pixels"
        raise BadInput("config.factor", found, f"a number that divides both: {allowed}")


SPEC = Spec(
    name="rded",
    make="jdd.methods.rded:make",
    title="RDED",
    config=Config,
    stages=sre2l.STAGES,
    protocol=PROTOCOL,
    derived=DERIVED,
    validate=validate,
    validate_data=validate_data,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
