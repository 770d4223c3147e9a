"""EL2N: real images chosen by the error of nets early in training (Paul et al., NeurIPS 2021).

    python -m jdd.main --config=configs/el2n.py:cifar10,ipc=10 --workdir=runs/el2n
    python -m jdd.main --config=configs/el2n.py:digits,ipc=1

The score of an image is the mean over experts.count nets, after experts.epochs epochs, of the
length of their error; select chooses the easiest images, a band or the hardest. The set is
evaluated as DC, DSA and DM evaluate theirs: rate 0.01, 1000 epochs with DSA, 300 with
data.dsa=none.

Digits: docs/methods/coresets.md. CIFAR-10: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "el2n"})
