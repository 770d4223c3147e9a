"""K-center: real images so that none of their class is far from all of them.

    python -m jdd.main --config=configs/kcenter.py:cifar10,ipc=10 --workdir=runs/kcenter
    python -m jdd.main --config=configs/kcenter.py:digits,ipc=1

The first image is the nearest to its class's mean, each further one the farthest from those chosen,
in the features of one net trained on the whole set, expert 0 after experts.epochs epochs. The set
is evaluated as DC, DSA and DM evaluate theirs: rate 0.01, 1000 epochs with DSA, 300 with
data.dsa=none.

Digits: docs/methods/coresets.md. The published settings in full: not yet run.
"""

from jdd.config import from_arg, method_file

RANDOM = method_file("random")
KEYS, DEFAULTS, STARTS, PROTOCOL = RANDOM.KEYS, RANDOM.DEFAULTS, RANDOM.STARTS, RANDOM.PROTOCOL
DERIVED, check, row = RANDOM.DERIVED, RANDOM.check, RANDOM.row

_DM = "K-Center of DM's paper, as AutoPalette's Table 1 quotes it"
_DC = "K-Center of DC's and CAFE's papers, quoted from memory and not checked; another start"

# Two variants are in print for CIFAR. These are DM's; DC's and CAFE's papers have 21.5, 14.7 and
# 27.0 % for CIFAR-10 and 8.3, 7.1 and 30.5 % for CIFAR-100; the other datasets have theirs alone.
PUBLISHED = {
    ("cifar10", 1): row(0.233, 0.009, _DM),
    ("cifar10", 10): row(0.364, 0.006, _DM),
    ("cifar10", 50): row(0.487, 0.003, _DM),
    ("cifar100", 1): row(0.086, 0.003, _DM),
    ("cifar100", 10): row(0.207, 0.002, _DM),
    ("cifar100", 50): row(0.336, 0.004, _DM),
    ("mnist", 1): row(0.893, 0.015, _DC),
    ("mnist", 10): row(0.844, 0.017, _DC),
    ("mnist", 50): row(0.974, 0.003, _DC),
    ("fashion_mnist", 1): row(0.669, 0.018, _DC),
    ("fashion_mnist", 10): row(0.547, 0.015, _DC),
    ("fashion_mnist", 50): row(0.683, 0.008, _DC),
    ("svhn", 1): row(0.210, 0.015, _DC),
    ("svhn", 10): row(0.140, 0.013, _DC),
    ("svhn", 50): row(0.201, 0.014, _DC),
}


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "kcenter"})
