"""DiM: a conditional GAN whose generator then matches real images in nets trained meanwhile.

    python -m jdd.main --config=configs/dim.py:digits,ipc=10

``ipc`` images of each class are drawn for every epoch of a student. Shortened to 3000 updates of
the GAN and 400 of matching, a quarter of an hour on 2 busy cores: 93.0 ± 1.1 %
(docs/methods/dim.md); the whole length is not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "dim"})
