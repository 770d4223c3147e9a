"""CDA: curriculum data augmentation (Yin & Shen, TMLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.decoupled import Recover
from jdd.schema.key import option
from jdd.specs import sre2l
from jdd.specs.base import Spec


@dataclass(frozen=True)
class Config(Recover):
    """Keys of CDA."""

    curriculum: str = option(
        "cosine",
        "how the smallest crop falls: cosine, linear, step; none: it is min_scale",
        choices=("cosine", "linear", "step", "none"),
    )
    milestone: float = option(1.0, "part of the steps in which it falls", minimum=0, maximum=1)


CURRICULUM = {"crop": "resized", "flip": 0.5}
# No settings for 32x32 images are published: SRe2L's, with crops of at least half of the image.
DEFAULTS = sre2l.CIFAR | CURRICULUM | {"min_scale": 0.5}
TINY = sre2l.TINY | {"lr_img": 0.4, "r_bn": 0.05}
IMAGENET = sre2l.IMAGENET | {"eval.batch": 128, "post.accumulate": 1}
STARTS = {
    "cifar10": DEFAULTS,  # the settings of 32x32 images
    "digits": sre2l.DIGITS | {"flip": 0.0, "min_scale": 0.5},
    "imagenet": sre2l.STARTS["imagenet"] | IMAGENET,
}

_OWN = "CDA (Yin & Shen, TMLR 2024), ResNet18"
_CVDD = "CDA as CV-DD's table quotes it, ResNet18"

PUBLISHED = {
    ("tiny_imagenet", 1): sre2l.row(0.033, None, _CVDD, TINY),
    ("tiny_imagenet", 10): sre2l.row(0.430, None, _CVDD, TINY),
    ("tiny_imagenet", 50): sre2l.row(0.487, None, _OWN, TINY),
    ("tiny_imagenet", 100): sre2l.row(0.532, None, _OWN, TINY),
    ("imagenet", 10): sre2l.row(0.336, None, _CVDD, IMAGENET),
    ("imagenet", 50): sre2l.row(0.535, None, _OWN, IMAGENET),
    ("imagenet", 100): sre2l.row(0.580, None, _OWN, IMAGENET),
    ("imagenet", 200): sre2l.row(0.633, None, _OWN, IMAGENET),
}


SPEC = Spec(
    name="cda",
    make="jdd.methods.cda:make",
    title="CDA",
    config=Config,
    stages=sre2l.STAGES,
    protocol=sre2l.PROTOCOL,
    validate=sre2l.validate,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
