"""DSA: gradient matching with differentiable Siamese augmentation (Zhao & Bilen, ICML 2021).

    python -m jdd.main --config=configs/dsa.py:cifar10,ipc=10 --workdir=runs/dsa
    python -m jdd.main --config=configs/dsa.py:mnist,ipc=1 --config.data.path=mnist_png.zip

DC's loss and keys; for each class and step one augmentation, the same for its real and synthetic
images, out of data.dsa. Nets, those between the steps and those of the evaluation, are trained with
augmentations of each image's own. Images start as real ones.

MNIST, IPC 1, in full: 88.8 +- 0.5 % (n = 20, seed 0; published 88.7 +- 0.6), 2.3 hours on two CPU
cores, partly beside other jobs. The other rows: not yet run.

Digits, three seeds of 5 nets (python -m benchmarks.digits), on 2 CPU cores: IPC 1 82.8 +- 7.0 %, in
23 seconds at the most; IPC 10 97.2 +- 0.6 %, in 45.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "dsa"})
