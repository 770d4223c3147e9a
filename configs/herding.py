"""Herding: real images whose mean feature follows their class's (Welling 2009, as iCaRL has it).

    python -m jdd.main --config=configs/herding.py:cifar10,ipc=10 --workdir=runs/herding
    python -m jdd.main --config=configs/herding.py:digits,ipc=1

Features are those of one net trained on the whole set, expert 0 after experts.epochs epochs. The
set is evaluated as DC, DSA and DM evaluate theirs: rate 0.01, 1000 epochs with DSA, 300 with
data.dsa=none.

Digits: docs/methods/coresets.md. The published settings in full: not yet run.
"""

from jdd.config import from_arg, method_file

RANDOM = method_file("random")
KEYS, DEFAULTS, STARTS, PROTOCOL = RANDOM.KEYS, RANDOM.DEFAULTS, RANDOM.STARTS, RANDOM.PROTOCOL
DERIVED, check, row = RANDOM.DERIVED, RANDOM.check, RANDOM.row

_AP = "Herding, as AutoPalette's Table 1 quotes it; whether with DSA it does not say"
_OLD = "Herding, quoted from memory and not checked"

PUBLISHED = {
    ("cifar10", 1): row(0.215, 0.013, _AP),
    ("cifar10", 10): row(0.316, 0.007, _AP),
    ("cifar10", 50): row(0.404, 0.006, _AP),
    ("cifar100", 1): row(0.084, 0.003, _AP),
    ("cifar100", 10): row(0.173, 0.003, _AP),
    ("cifar100", 50): row(0.337, 0.005, _AP),
    ("tiny_imagenet", 1): row(0.028, 0.002, _OLD),
    ("tiny_imagenet", 10): row(0.063, 0.002, _OLD),
    ("tiny_imagenet", 50): row(0.167, 0.003, _OLD),
    ("mnist", 1): row(0.892, 0.016, _OLD),
    ("mnist", 10): row(0.937, 0.003, _OLD),
    ("mnist", 50): row(0.948, 0.002, _OLD),
    ("fashion_mnist", 1): row(0.670, 0.019, _OLD),
    ("fashion_mnist", 10): row(0.711, 0.007, _OLD),
    ("fashion_mnist", 50): row(0.719, 0.008, _OLD),
    ("svhn", 1): row(0.209, 0.013, _OLD),
    ("svhn", 10): row(0.505, 0.033, _OLD),
    ("svhn", 50): row(0.726, 0.008, _OLD),
}


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "herding"})
