"""AC-WGAN-GP: a conditional GAN whose students see fresh images every epoch.

    python -m jdd.main --config=configs/gan.py:digits

``ipc`` images of each class are drawn for every epoch of a student. Not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "gan"})
