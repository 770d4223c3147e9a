"""NCFM: neural characteristic function matching (Wang et al., CVPR 2025).

    python -m jdd.main --config=configs/ncfm.py:cifar10,ipc=10 --workdir=runs/ncfm
    python -m jdd.main --config=configs/ncfm.py:digits,ipc=1

The loss: for every class, the distance of the characteristic functions of its real and its decoded
images' features, in a net between untrained and trained. A stored image is four training images.

Digits, IPC 1, seed 0, 5 nets: 76.7 +- 2.8 % (random 68.7 +- 3.9 by the same training), 84 seconds
of processor time, 6 minutes on 2 CPU cores with much other work. The published rows: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "ncfm"})
