"""DM: dataset condensation with distribution matching (Zhao & Bilen, WACV 2023).

    python -m jdd.main --config=configs/dm.py:cifar10,ipc=10 --workdir=runs/dm
    python -m jdd.main --config=configs/dm.py:mnist,ipc=10 --config.data.path=mnist_png.zip

The loss: for every class, the squared distance between the mean embeddings of its real and its
synthetic images, under one augmentation, by the features of a net that is fresh at every step and
never trained. The images move by SGD(img_momentum) at lr_img.

Digits, three seeds of 5 nets (python -m benchmarks.digits), on 2 CPU cores: IPC 1 90.5 +- 1.3 %, in
36 seconds at the most; IPC 10 97.9 +- 0.6 %, in 55. The published rows: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "dm"})
