"""DiM: a conditional GAN whose generator then matches real images in nets trained meanwhile.

    python -m jdd.main --config=configs/dim.py:digits,ipc=10

``ipc`` images of each class are drawn for every epoch of a student. On the digits seven and a
half minutes on 2 busy cores: 96.2 ± 0.9 % at IPC 10, random images 95.6 ± 0.9
(docs/methods/dim.md).
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "dim"})
