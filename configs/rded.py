"""RDED: images put together from the crops that a teacher finds most real (Sun et al., CVPR 2024).

    python -m jdd.main --config=configs/rded.py:cifar10,ipc=10 --workdir=runs/rded
    python -m jdd.main --config=configs/rded.py:digits,ipc=10

No image is optimised: crops of real images are chosen by a squeezed net, and factor x factor of
them make an image. Views are labelled and students trained as SRe2L's.

Measured runs, one of the published settings on CIFAR-10's JPEG copy among them: docs/results.md.
"""

import math
from collections.abc import Callable

from jdd.config import AUTO, Key, from_arg, method_file
from jdd.config.keys_decoupled import DECOUPLED, RELABEL
from jdd.errors import BadInput

SRE2L = method_file("sre2l")
STAGES = SRE2L.STAGES

KEYS = DECOUPLED | {
    "relabel.shuffle": RELABEL["relabel.shuffle"]._replace(default="auto", auto=True),
    "factor": Key(int, "auto", "crops a side of an image", auto=True, minimum=1),
    "candidates": Key(int, 300, "real images of a class that are looked at", minimum=1),
    "crops": Key(int, 5, "random crops of each", minimum=1),
    "min_scale": Key(float, 0.08, "smallest area of a crop", minimum=0.01, maximum=1),
    "ref_bugs": Key(
        bool,
        False,
        "a student's step moves its running batch-norm statistics twice, as in the authors' code",
        later=True,
    ),
}

# The authors do not say how their teachers are trained: SRe2L's recipe.
_POST = {
    "relabel.crop": "resized", "relabel.flip": 0.5, "relabel.mix": "cutmix", "relabel.alpha": 1.0,
    "relabel.bn": "eval",
    "post.optimizer": "adamw", "post.weight_decay": 0.01, "post.decay": "matrices",
    "post.stretch": 2.0, "post.warmup": 0, "post.loss": "kl", "post.temperature": 20.0,
    "post.ce_weight": 0.0, "post.accumulate": 1, "eval.lr": 0.001, "eval.epochs": 300,
}  # fmt: skip
DEFAULTS = SRE2L.SQUEEZE | _POST | {"steps": 0, "quantise": "jpeg"}
TINY = DEFAULTS | {name: SRE2L.TINY[name] for name in SRE2L.SQUEEZE}
IMAGENET = DEFAULTS | {name: SRE2L.IMAGENET[name] for name in (*SRE2L.SQUEEZE, "squeeze.nets")}
STARTS = {
    "digits": {
        name: value for name, value in SRE2L.DIGITS.items() if name not in ("roll",)
    } | {"relabel.crop": "padded", "relabel.flip": 0.0},
    "imagenet": IMAGENET | {name: SRE2L.STARTS["imagenet"][name] for name in ("net.name", "nets")},
}  # fmt: skip

_CVDD = "RDED as CV-DD's table quotes it, ResNet18, best of the last fifth's evaluations"

PUBLISHED = {
    ("cifar10", 1): SRE2L.row(0.229, None, _CVDD, DEFAULTS),
    ("cifar10", 10): SRE2L.row(0.371, None, _CVDD, DEFAULTS),
    ("cifar10", 50): SRE2L.row(0.621, None, _CVDD, DEFAULTS),
    ("cifar100", 1): SRE2L.row(0.110, None, _CVDD, DEFAULTS),
    ("cifar100", 10): SRE2L.row(0.426, None, _CVDD, DEFAULTS),
    ("cifar100", 50): SRE2L.row(0.626, None, _CVDD, DEFAULTS),
    ("tiny_imagenet", 1): SRE2L.row(0.097, None, _CVDD, TINY),
    ("tiny_imagenet", 10): SRE2L.row(0.419, None, _CVDD, TINY),
    ("tiny_imagenet", 50): SRE2L.row(0.582, None, _CVDD, TINY),
    ("imagenet", 1): SRE2L.row(0.066, None, _CVDD, IMAGENET),
    ("imagenet", 10): SRE2L.row(0.420, None, _CVDD, IMAGENET),
    ("imagenet", 50): SRE2L.row(0.565, None, _CVDD, IMAGENET),
}

PROTOCOL = {
    "squeeze.nets": ("ResNet18BN",), "squeeze.width": 0, "candidates": 300, "crops": 5,
    "min_scale": 0.08, "ref_bugs": False, "net.name": "ResNet18BN", "nets": ("ResNet18BN",),
}  # fmt: skip


def _factor(values: dict) -> int | str:
    """Two crops a side but for images as small as those of CIFAR and Tiny-ImageNet."""
    shape = values["data.shape"]
    if shape is None:
        return AUTO
    return 1 if max(shape[:2]) <= 64 else 2


def _from_factor(rule: Callable[[int], int | float]) -> Callable[[dict], int | float | str]:
    """Return ``rule`` of the factor, which stays 'auto' as long as that does."""
    return lambda values: AUTO if values["factor"] == AUTO else rule(values["factor"])


def _batch(values: dict) -> int:
    """10, 50 and 100 images a step at IPC 1, 10 and 50; twice as many of 100 and 1000 classes, 100
    of Tiny-ImageNet's 200.
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


def check(values: dict) -> None:
    """Refuse resolved values that do not go together."""
    SRE2L.check(values)
    if values["ref_bugs"] and values["post.accumulate"] > 1:
        found = f"{values['post.accumulate']} with ref_bugs=true"
        raise BadInput("config.post.accumulate", found, "1: their second update sees whole batches")
    if values["steps"]:
        found = f"{values['steps']} with method=rded"
        raise BadInput("config.steps", found, "0: crops are chosen, no step changes them")


def fits(values: dict, data) -> None:
    """Refuse resolved values that the dataset has no answer to."""
    height, width = data.shape[:2]
    if height % values["factor"] or width % values["factor"]:
        both = math.gcd(height, width)
        allowed = ", ".join(str(n) for n in range(1, both + 1) if both % n == 0)
        found = f"{values['factor']}, and the images have {height} x {width} pixels"
        raise BadInput("config.factor", found, f"a number that divides both: {allowed}")


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "rded"})
