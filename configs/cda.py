"""CDA: curriculum data augmentation (Yin & Shen, TMLR 2024).

    python -m jdd.main --config=configs/cda.py:tiny_imagenet,ipc=50 --workdir=runs/cda
    python -m jdd.main --config=configs/cda.py:digits,ipc=10

SRe2L whose smallest crop falls from the whole image to min_scale in the first part (milestone) of
the steps. All keys but these two are SRe2L's.

Measured runs: docs/results.md.
"""

from jdd.config import Key, from_arg, method_file

SRE2L = method_file("sre2l")
STAGES, PROTOCOL, check = SRE2L.STAGES, SRE2L.PROTOCOL, SRE2L.check

KEYS = SRE2L.KEYS | {
    "curriculum": Key(
        str, "cosine", "how the smallest crop falls: cosine, linear, step; none: it is min_scale",
        choices=("cosine", "linear", "step", "none"),
    ),
    "milestone": Key(float, 1.0, "part of the steps in which it falls", minimum=0, maximum=1),
}  # fmt: skip

CURRICULUM = {"crop": "resized", "flip": 0.5}
# No paper has settings of 32x32 images: SRe2L's, with crops that leave half of the image.
DEFAULTS = SRE2L.CIFAR | CURRICULUM | {"min_scale": 0.5}
TINY = SRE2L.TINY | {"lr_img": 0.4, "r_bn": 0.05}
IMAGENET = SRE2L.IMAGENET | {"eval.batch": 128, "post.accumulate": 1}
STARTS = {
    "digits": SRE2L.DIGITS | {"flip": 0.0, "min_scale": 0.5},
    "imagenet": SRE2L.STARTS["imagenet"] | IMAGENET,
}

_OWN = "CDA (Yin & Shen, TMLR 2024), ResNet18"
_CVDD = "CDA as CV-DD's table quotes it, ResNet18"

PUBLISHED = {
    ("tiny_imagenet", 1): SRE2L.row(0.033, None, _CVDD, TINY),
    ("tiny_imagenet", 10): SRE2L.row(0.430, None, _CVDD, TINY),
    ("tiny_imagenet", 50): SRE2L.row(0.487, None, _OWN, TINY),
    ("tiny_imagenet", 100): SRE2L.row(0.532, None, _OWN, TINY),
    ("imagenet", 10): SRE2L.row(0.336, None, _CVDD, IMAGENET),
    ("imagenet", 50): SRE2L.row(0.535, None, _OWN, IMAGENET),
    ("imagenet", 100): SRE2L.row(0.580, None, _OWN, IMAGENET),
    ("imagenet", 200): SRE2L.row(0.633, None, _OWN, IMAGENET),
}


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "cda"})
