"""K-center: real images so that none of their class is far from all of them.

    python -m jdd.main --config=configs/kcenter.py:cifar10,ipc=10 --workdir=runs/kcenter
    python -m jdd.main --config=configs/kcenter.py:digits,ipc=1

The first image is the nearest to its class's mean, each further one the farthest from those chosen,
in the features of one net trained on the whole set, expert 0 after experts.epochs epochs. The set
is evaluated as DC, DSA and DM evaluate theirs: rate 0.01, 1000 epochs with DSA, 300 with
data.dsa=none.

Digits: docs/methods/coresets.md. The published settings in full: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "kcenter"})
