"""Herding: real images whose mean feature follows their class's (Welling 2009, as iCaRL has it).

    python -m jdd.main --config=configs/herding.py:cifar10,ipc=10 --workdir=runs/herding
    python -m jdd.main --config=configs/herding.py:digits,ipc=1

Features are those of one net trained on the whole set, expert 0 after experts.epochs epochs. The
set is evaluated as DC, DSA and DM evaluate theirs: rate 0.01, 1000 epochs with DSA, 300 with
data.dsa=none.

Digits: docs/methods/coresets.md. The published settings in full: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "herding"})
