"""DiM: a conditional GAN whose generator then matches real images in nets trained meanwhile.

    python -m jdd.main --config=configs/dim.py:digits,ipc=10

``ipc`` images of each class are drawn for every epoch of a student. Not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "dim"})
