"""EDC: elucidated dataset condensation (Shao, Zhou, Chen, Zhang & Shen, NeurIPS 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jdd.schema.common import FALLBACK
from jdd.schema.decoupled import Matched, Post, Relabel, Squeeze, StudentEval
from jdd.schema.key import AUTO, group, like, option
from jdd.specs import gvbsm, sre2l
from jdd.specs.base import Spec, Values

# CIFAR-10 has three ConvNets more: of one and two blocks, and of 32 channels.
EIGHT = (*gvbsm.TEACHERS, "ConvNet:d1", "ConvNet:d2", "ConvNet:32")


@dataclass(frozen=True)
class Config(Matched):
    """Keys of EDC."""

    squeeze: Squeeze = group(Squeeze, nets=AUTO)
    relabel: Relabel = group(Relabel, randaugment=AUTO)
    post: Post = group(Post, momentum=AUTO)
    eval: StudentEval = group(StudentEval, ema=AUTO, schedule=AUTO, milestones=AUTO, gamma=AUTO)
    pix_init: str = like(Matched, "pix_init", default="real")
    image_batch: int = like(Matched, "image_batch", default=AUTO)
    category: float = option(
        0.5,
        "share of the statistics' distance that is to the means of the batch's classes",
        minimum=0,
        maximum=1,
    )
    ref_bugs: bool = option(
        False,
        "as in the authors' code, the moving averages start at 0, and patch means and variances of "
        "classes have changed places",
    )


_MATCHING = {
    "lr_img": 0.05, "r_bn": 0.01, "crop": "resized", "flip": 0.5, "roll": 0, "patch": 4,
    "ema": 0.8, "drop": 0.0, "image_batch": 100, "class_images": 100,
}  # fmt: skip
_POST = {
    "relabel.crop": "resized", "relabel.flip": 0.5, "relabel.mix": "cutmix", "relabel.alpha": 1.0,
    "relabel.bn": "eval", "relabel.randaugment": 2, "post.momentum": 0.875,
    "post.decay": "matrices", "post.warmup": 0, "post.loss": "mse_gt", "post.temperature": 1.0,
    "post.ce_weight": 0.025, "post.accumulate": 1, "eval.ema": 0.99,
}  # fmt: skip
_SQUEEZE = {name: value for name, value in gvbsm.CIFAR.items() if name.startswith("squeeze.")}

CIFAR = _SQUEEZE | _MATCHING | _POST | {
    "squeeze.nets": EIGHT, "steps": 75, "min_scale": 0.08, "quantise": "truncate",
    "relabel.min_scale": 0.08, "post.optimizer": "adamw", "post.weight_decay": 0.01,
    "post.stretch": 1.0, "eval.schedule": "multistep", "eval.lr": 0.001, "eval.epochs": 1000,
    "eval.batch": 10,
}  # fmt: skip
CIFAR100 = CIFAR | {
    "squeeze.nets": gvbsm.TEACHERS, "squeeze.epochs": 50, "steps": 2000, "min_scale": 0.5,
    "relabel.min_scale": 0.5, "post.optimizer": "sgd", "post.weight_decay": 5e-4,
    "eval.schedule": "cosine_linear", "eval.lr": 0.1, "eval.batch": 50,
}  # fmt: skip
TINY = CIFAR100 | {
    name: value for name, value in gvbsm.TINY.items() if name.startswith("squeeze.")
} | {
    "quantise": "jpeg", "post.stretch": 2.0, "eval.schedule": "recipe", "eval.epochs": 300,
    "eval.batch": 100,
}  # fmt: skip
DEFAULTS = CIFAR100

# G-VBSM's two teachers and views: crops of 8x8 images remove too much.
DIGITS = {
    "net.name": "ConvNetBN", "net.width": 32, "net.depth": 2,
    "squeeze.nets": ("ConvNetBN", "ConvNet"), "squeeze.width": 32, "squeeze.epochs": 30,
    "squeeze.lr": 0.05, "squeeze.augment": "pad", "squeeze.schedule": "cosine",
    "steps": 300, "crop": "none", "flip": 0.0, "roll": 1, "patch": 2, "quantise": "round",
    "relabel.crop": "padded", "relabel.flip": 0.0, "relabel.randaugment": 0,
    "post.optimizer": "adamw", "post.weight_decay": 0.01, "eval.schedule": "multistep",
    "eval.lr": 0.001, "eval.batch": 10, "eval.epochs": 400, "baselines.full_epochs": 20,
}  # fmt: skip
STARTS = {"digits": DIGITS}

_OWN = "EDC (Shao et al., NeurIPS 2024), ResNet18, best of evaluations on test data, quoted from "
_OWN += "memory and not checked"
_ONE = f"{_OWN}; its CIFAR-10 script is of IPC 1"

PUBLISHED = {
    ("cifar10", 1): sre2l.row(0.326, None, _OWN, CIFAR),
    ("cifar10", 10): sre2l.row(0.791, None, _ONE, CIFAR),
    ("cifar10", 50): sre2l.row(0.870, None, _ONE, CIFAR),
    ("cifar100", 1): sre2l.row(0.397, None, _OWN, CIFAR100),
    ("cifar100", 10): sre2l.row(0.637, None, _OWN, CIFAR100),
    ("cifar100", 50): sre2l.row(0.686, None, _OWN, CIFAR100),
    ("tiny_imagenet", 1): sre2l.row(0.392, None, _OWN, TINY),
    ("tiny_imagenet", 10): sre2l.row(0.512, None, _OWN, TINY),
    ("tiny_imagenet", 50): sre2l.row(0.572, None, _OWN, TINY),
}

PROTOCOL = {name: v for name, v in sre2l.PROTOCOL.items() if name not in (
    "squeeze.nets", "image_batch", "post.momentum"
)} | {"pix_init": "real", "category": 0.5, "ref_bugs": False}  # fmt: skip


def _milestones(values: Values) -> Any:
    """Epochs 800, 900 and 950 of 1000, as fractions."""
    stepped = values["eval.schedule"] == "multistep"
    return (0.8, 0.9, 0.95) if stepped else FALLBACK["eval.milestones"]


def _gamma(values: Values) -> Any:
    return 0.5 if values["eval.schedule"] == "multistep" else FALLBACK["eval.gamma"]


SPEC = Spec(
    name="edc",
    make="jdd.methods.edc:make",
    title="EDC",
    config=Config,
    stages=sre2l.STAGES,
    protocol=PROTOCOL,
    derived={"eval.milestones": _milestones, "eval.gamma": _gamma},
    validate=sre2l.validate,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
