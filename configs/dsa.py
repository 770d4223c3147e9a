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

from jdd.config import from_arg, method_file

DC = method_file("dc")

KEYS = DC.MATCHING
DEFAULTS = {"lr_img": 0.1, "pix_init": "real"}
STARTS = {"digits": DC.STARTS["digits"] | {"steps": 120, "eval.epochs": 300}}


def _row(accuracy: float, std: float, ipc: int) -> dict:
    source = "DSA (Zhao & Bilen, ICML 2021), last iterate"
    return DC.row(accuracy, std, source, ipc, **DEFAULTS)


# fmt: off
PUBLISHED = {
    ("mnist", 1):          _row(0.887, 0.006, 1),
    ("mnist", 10):         _row(0.978, 0.001, 10),
    ("mnist", 50):         _row(0.992, 0.001, 50),
    ("fashion_mnist", 1):  _row(0.706, 0.006, 1),
    ("fashion_mnist", 10): _row(0.846, 0.003, 10),
    ("fashion_mnist", 50): _row(0.887, 0.002, 50),
    ("svhn", 1):           _row(0.275, 0.014, 1),
    ("svhn", 10):          _row(0.792, 0.005, 10),
    ("svhn", 50):          _row(0.844, 0.004, 50),
    ("cifar10", 1):        _row(0.288, 0.007, 1),
    ("cifar10", 10):       _row(0.521, 0.005, 10),
    ("cifar10", 50):       _row(0.606, 0.005, 50),
    ("cifar100", 1):       _row(0.139, 0.003, 1),
    ("cifar100", 10):      _row(0.323, 0.003, 10),
    ("cifar100", 50):      _row(0.428, 0.004, 50),
    ("tiny_imagenet", 1):  _row(0.066, 0.002, 1),
    ("tiny_imagenet", 10): _row(0.144, 0.020, 10),
}
# fmt: on

CROSS = {
    ("cifar10", 10): {
        "values": {
            "ConvNet": (0.521, 0.004), "ResNet18": (0.428, 0.010), "VGG11": (0.432, 0.005),
            "AlexNet": (0.359, 0.013),
        },
        "source": "DSA as measured in the MTT paper (Cazenavette et al., CVPR 2022), quoted from "
        "memory and not checked",
    },
}  # fmt: skip

PROTOCOL = DC.GRADIENT_PROTOCOL | {"eval.epochs": 1000}
DERIVED = DC.LOOP_RULES
STAGES = DC.STAGES


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "dsa"})
