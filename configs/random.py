"""Random real images, as many as a distilled set has: the first thing to beat.

    python -m jdd.main --config=configs/random.py:cifar10,ipc=10 --workdir=runs/random
    python -m jdd.main --config=configs/random.py:digits,ipc=1

No image is changed and no step taken: the set is what the seed draws. It is evaluated as DC, DSA
and DM evaluate theirs: rate 0.01, 1000 epochs with DSA, 300 with data.dsa=none.

Digits: docs/methods/coresets.md. The published settings in full: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "random"})
