"""A Gaussian of each class: a generator whose students see fresh images every epoch.

    python -m jdd.main --config=configs/gaussian.py:digits,ipc=10

``ipc`` is its size: a class's mean and its ipc - 1 directions take the bytes of ipc images, and it
is compared with ipc random real images of each class. ``per_class`` images of each class are drawn
for every epoch.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "gaussian"})
