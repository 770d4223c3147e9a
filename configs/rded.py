"""RDED: images put together from the crops that a teacher finds most real (Sun et al., CVPR 2024).

    python -m jdd.main --config=configs/rded.py:cifar10,ipc=10 --workdir=runs/rded
    python -m jdd.main --config=configs/rded.py:digits,ipc=10

No image is optimised: crops of real images are chosen by a squeezed net, and factor x factor of
them make an image. Views are labelled and students trained as SRe2L's.

Measured runs, one of the published settings on CIFAR-10's JPEG copy among them: docs/results.md.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "rded"})
