"""TESLA: trajectory matching with a frozen adjoint (Cui et al., ICML 2023).

    python -m jdd.main --config=configs/tesla.py:cifar10,ipc=1 --workdir=runs/tesla
    python -m jdd.main --config=configs/tesla.py:cifar10,ipc=1 --config.estimator=exact

MTT's loss and keys; the gradient leaves out what an image does to later inner gradients. At jdd's
flat memory the exact gradient costs about the same: docs/methods/tesla.md.

Time and accuracy of jdd with these settings in full: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "tesla"})
