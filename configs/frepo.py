"""FRePo: feature regression with a pool of nets (Zhou, Nezhadarya & Ba, NeurIPS 2022).

    python -m jdd.main --config=configs/frepo.py:cifar10,ipc=10 --workdir=runs/frepo
    python -m jdd.main --config=configs/frepo.py:digits,ipc=1

A real batch is predicted by kernel ridge regression on a net's features of the set, images and
labels learned; the net comes from a pool of nets in training on the set. No experts are needed and
no gradient passes through training.

``lr_img`` falls to a tenth over ``decay_steps``, which is ``steps`` unless it is given and stays
what it was: to go on with a finished run, give both (docs/methods/frepo.md).

Digits, three seeds of 5 nets on 2 CPU cores: IPC 1 92.0 +- 1.0 %, in 21 seconds at the most; IPC 10
98.8 +- 0.5 %, in 39 (python -m benchmarks.digits).

The published settings take 500,000 steps and a net of 1.6 million weights; time and accuracy of jdd
with them: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "frepo"})
