"""G-VBSM: generalised various backbone and statistical matching (Shao et al., CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.decoupled import Matched, Squeeze
from jdd.schema.key import group, option
from jdd.specs import sre2l
from jdd.specs.base import Spec

TEACHERS = ("ResNet18BN", "ConvNet", "MobileNetV2:16", "WRN16_2", "ShuffleNetV2")


@dataclass(frozen=True)
class Config(Matched):
    """Keys of G-VBSM."""

    squeeze: Squeeze = group(Squeeze, nets=TEACHERS)
    density: float = option(
        1.0, "weight of the density loss (diversity of a class's images)", minimum=0
    )
    tau: float = option(4.0, "temperature of the density's target spectrum", minimum=0.01)
    ref_bugs: bool = option(False, "the moving averages start at 0, as in the authors' code")


CIFAR = {
    "squeeze.epochs": 5, "squeeze.lr": 0.05, "squeeze.weight_decay": 0.0, "squeeze.batch": 64,
    "squeeze.schedule": "constant", "squeeze.warmup": 0, "squeeze.augment": "pad_flip",
    "steps": 4000, "lr_img": 0.05, "r_bn": 0.01, "crop": "padded", "min_scale": 0.08, "flip": 0.5,
    "roll": 32, "class_images": 10, "quantise": "truncate", "patch": 4, "ema": 0.8, "drop": 0.4,
    "relabel.crop": "resized", "relabel.min_scale": 0.08, "relabel.flip": 0.5,
    "relabel.mix": "cutmix", "relabel.alpha": 1.0, "relabel.bn": "eval",
    "post.optimizer": "adamw", "post.weight_decay": 0.0, "post.decay": "matrices",
    "post.stretch": 1.0, "post.warmup": 0, "post.loss": "mse_gt", "post.temperature": 1.0,
    "post.ce_weight": 0.15, "post.accumulate": 1, "eval.lr": 0.001, "eval.epochs": 1000,
    "eval.batch": 100,
}  # fmt: skip
CIFAR100 = CIFAR | {
    "squeeze.epochs": 50, "post.optimizer": "sgd", "post.weight_decay": 5e-4, "eval.lr": 0.1,
    "eval.batch": 64,
}  # fmt: skip
TINY = CIFAR | {
    "squeeze.epochs": 50, "squeeze.lr": 0.1, "squeeze.batch": 128, "squeeze.schedule": "cosine",
    "squeeze.augment": "rrc_flip", "quantise": "jpeg",
    "post.optimizer": "sgd", "post.weight_decay": 1e-4, "post.ce_weight": 0.1,
    "post.accumulate": 2, "eval.lr": 0.1, "eval.epochs": 100, "eval.batch": 100,
}  # fmt: skip
DEFAULTS = CIFAR

# Two small teachers, one of them without batch norm; on 8x8 images crops remove too much, and a
# shift of more than a pixel changes the digit.
DIGITS = {
    "net.name": "ConvNetBN", "net.width": 32, "net.depth": 2,
    "squeeze.nets": ("ConvNetBN", "ConvNet"), "squeeze.width": 32, "squeeze.epochs": 30,
    "squeeze.lr": 0.05, "squeeze.augment": "pad", "squeeze.schedule": "cosine",
    "steps": 600, "lr_img": 0.25, "crop": "none", "flip": 0.0, "roll": 1, "patch": 2,
    "quantise": "round", "relabel.crop": "padded", "relabel.flip": 0.0, "eval.batch": 50,
    "eval.epochs": 250, "baselines.full_epochs": 20,
}  # fmt: skip
STARTS = {"digits": DIGITS}

_OWN = "G-VBSM (Shao et al., CVPR 2024), ResNet18, best of evaluations on test data"

PUBLISHED = {
    ("cifar10", 10): sre2l.row(0.535, 0.006, _OWN, CIFAR),
    ("cifar10", 50): sre2l.row(0.592, 0.004, _OWN, CIFAR),
    ("cifar100", 1): sre2l.row(0.259, 0.005, _OWN, CIFAR100),
    ("cifar100", 10): sre2l.row(0.595, 0.004, _OWN, CIFAR100),
    ("cifar100", 50): sre2l.row(0.650, 0.005, _OWN, CIFAR100),
    ("tiny_imagenet", 50): sre2l.row(0.476, None, _OWN, TINY),
    ("tiny_imagenet", 100): sre2l.row(0.510, None, _OWN, TINY),
}

PROTOCOL = sre2l.PROTOCOL | {
    "squeeze.nets": TEACHERS, "density": 1.0, "tau": 4.0, "ref_bugs": False,
}  # fmt: skip


SPEC = Spec(
    name="gvbsm",
    make="jdd.methods.gvbsm:make",
    title="G-VBSM",
    config=Config,
    stages=sre2l.STAGES,
    protocol=PROTOCOL,
    validate=sre2l.validate,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
