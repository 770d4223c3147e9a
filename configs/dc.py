"""DC: dataset condensation with gradient matching (Zhao et al., ICLR 2021).

    python -m jdd.main --config=configs/dc.py:mnist,ipc=1 --config.data.path=mnist_png.zip
    python -m jdd.main --config=configs/dc.py:cifar10,ipc=10 --workdir=runs/dc

The loss: for every class, the distance, output unit by output unit, between the gradients that its
synthetic and its real images give to the weights of a net. Nets are fresh every outer_loop steps;
between these they are trained on the set for inner_epochs. The images move by SGD(img_momentum) at
lr_img; steps counts their updates, so that the authors' 1000 iterations are 1000 outer_loop steps.

MNIST, IPC 1, in full: 92.0 +- 0.4 % (n = 20, seed 0; published 91.7 +- 0.5), 62 minutes on two CPU
cores, partly beside other jobs. The other rows: not yet run.

Digits, three seeds of 5 nets (python -m benchmarks.digits), on 2 CPU cores: IPC 1 79.0 +- 4.6 %, in
31 seconds at the most; IPC 10 94.6 +- 1.1 %, in 54.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "dc"})
