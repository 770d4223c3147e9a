"""TODO

python -m jdd.main --config=configs/vae.py:digits
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "vae"})
