"""A diffusion model of the real images, of a VAE's latents or of pixels, as a generator.

    python -m jdd.main --config=configs/diffusion.py:digits

``ipc`` images of each class are drawn for every epoch of a student, by DDIM with guidance
``sampling.guidance``. Also ``mnist``, ``fashion_mnist`` and ``cifar10``; pixels:
``--config.diffusion.space=pixels``. On the digits five minutes on 2 busy cores, class
agreement 99.9 %; accuracy of students: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "diffusion"})
