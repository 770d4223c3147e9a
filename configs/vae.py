"""A VAE of the real images; its generator draws from a Gaussian of each class in latent space.

    python -m jdd.main --config=configs/vae.py:digits

``ipc`` images of each class are drawn for every epoch of a student. Also ``mnist``,
``fashion_mnist`` and ``cifar10``. On the digits ten minutes on 2 busy
cores: 96.8 ± 0.7 % at IPC 10, random images 95.0 ± 0.8 (docs/methods/vae.md).
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "vae"})
