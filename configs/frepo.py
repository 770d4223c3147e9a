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

from jdd.config import Key, from_arg
from jdd.config.keys import COMMON
from jdd.data import catalogue
from jdd.errors import BadInput

STAGES = ("distill", "evaluate", "report", "full")

KEYS = {
    "batch_real": Key(int, 1024, "real images predicted in a step", minimum=1),
    "real_parts": Key(
        int, 1, "equal parts of the real batch, taken in turn or by several devices", minimum=1
    ),
    "flip": Key(bool, "auto", "mirror images take part in the regression too", auto=True),
    "lr_img": Key(float, "auto", "LAMB's rate for the images", auto=True, minimum=0),
    "lr_label": Key(
        float, "auto", "LAMB's rate for the labels (auto: lr_img)", auto=True, minimum=0
    ),
    "decay_steps": Key(
        int, "auto", "steps in which both rates fall to a tenth (auto: steps)", auto=True, minimum=0
    ),
    "margin_weight": Key(float, 1.0, "weight of the labels' margin", minimum=0),
    "pool_size": Key(int, 10, "nets in the pool", minimum=1),
    "pool_steps": Key(int, 100, "a net that has taken more steps is replaced", minimum=0),
    "pool_norm": Key(
        str, "auto", "the pool's normalisation; own: net.norm (auto: batch, if the net can)",
        choices=("batch", "none", "instance", "group", "layer", "own"), auto=True,
    ),
    "lr_pool": Key(float, 3e-4, "Adam's rate for the pool", minimum=0),
    "batch_pool": Key(
        int, 1000, "synthetic images in a step of the pool, at the most", minimum=1
    ),
    "lr_student": Key(
        float, "auto", "Adam's rate for nets trained on the set", auto=True, above=0
    ),
    "augment": Key(
        str, "auto",
        "augmentation of nets trained on the set: FRePo's operations joined by '_', or none "
        "(auto: all; without flip for figures and garments)",
        auto=True,
    ),
    "pix_init": Key(
        str, "real", "images start as real ones or as noise", choices=("real", "noise")
    ),
    # The method's own net, and a pace that fits half a million steps and the pool in a checkpoint.
    "net.name": COMMON["net.name"]._replace(default="FRePoNet"),
    "nets": COMMON["nets"]._replace(default=("FRePoNet",)),
    # Without normalisation the baseline of the whole training set wants momentum.
    "experts.momentum": COMMON["experts.momentum"]._replace(default=0.9),
    "log_every": COMMON["log_every"]._replace(default=100),
    "checkpoint_every": COMMON["checkpoint_every"]._replace(default=1000),
}  # fmt: skip

_NAMES = ("flip", "data.zca", "lr_img", "lr_student", "steps")

# Where no row is published (digits, your own data, another IPC): starting points, not tuned values.
DEFAULTS = dict(zip(_NAMES, (False, "none", 3e-3, 3e-4, 5000), strict=True))

# Digits' found by trial; the others keep what the published rows of their datasets have in common.
STARTS = {
    "cifar10": {"flip": True, "data.zca": "frepo"},
    "cifar100": {"data.zca": "frepo"},
    "tiny_imagenet": {"data.zca": "frepo"},
    "digits": {
        "steps": 500, "lr_img": 0.01, "lr_student": 3e-3, "net.width": 24, "net.depth": 2,
        "batch_real": 256, "lr_pool": 3e-3, "eval.steps": 300, "experts.lr": 0.05,
    },
}  # fmt: skip


_MOVES = "color_crop_rotate_translate_cutout"


def _row(accuracy: float, std: float, flip: bool, zca: str, note: str = "") -> dict:
    values = dict(zip(_NAMES, (flip, zca, 3e-4, 3e-4, 500_000), strict=True))
    values["augment"] = _MOVES if zca == "none" else f"flip_{_MOVES}"  # grey images are not flipped
    source = "FRePo (Zhou, Nezhadarya & Ba, NeurIPS 2022), its own wide net" + note
    return {"values": values, "accuracy": accuracy, "std": std, "source": source}


_QUOTED = ", quoted from memory and not checked"

# (dataset, IPC): accuracy, std, flip, whitening; LAMB 3e-4 and 500,000 steps each.
# fmt: off
PUBLISHED = {
    ("cifar10", 1):        _row(0.468, 0.007, True,  "frepo"),
    ("cifar10", 10):       _row(0.655, 0.004, True,  "frepo"),
    ("cifar10", 50):       _row(0.717, 0.002, True,  "frepo"),
    ("cifar100", 1):       _row(0.287, 0.001, True,  "frepo"),
    ("cifar100", 10):      _row(0.425, 0.002, False, "frepo"),
    ("cifar100", 50):      _row(0.443, 0.002, False, "frepo"),
    ("tiny_imagenet", 1):  _row(0.154, 0.003, True,  "frepo"),
    ("tiny_imagenet", 10): _row(0.254, 0.002, False, "frepo"),
    ("mnist", 1):          _row(0.930, 0.004, False, "none", _QUOTED),
    ("mnist", 10):         _row(0.986, 0.001, False, "none", _QUOTED),
    ("mnist", 50):         _row(0.992, 0.000, False, "none", _QUOTED),
    ("fashion_mnist", 1):  _row(0.756, 0.003, False, "none", _QUOTED),
    ("fashion_mnist", 10): _row(0.862, 0.002, False, "none", _QUOTED),
    ("fashion_mnist", 50): _row(0.896, 0.001, False, "none", _QUOTED),
}
# fmt: on

# The rest of the published protocol; a run that differs is still compared, and told so.
PROTOCOL = {
    "net.name": "FRePoNet", "net.width": 128, "net.norm": "none", "net.init": "lecun",
    "lr_label": 3e-4, "decay_steps": 500_000, "batch_real": 1024, "margin_weight": 1.0,
    "pool_size": 10, "pool_steps": 100, "pool_norm": "batch", "lr_pool": 3e-4, "batch_pool": 1000,
    "pix_init": "real", "eval.steps": 0, "eval.lr": 0.0,
}  # fmt: skip

_UNFLIPPED = ("digits", "mnist", "fashion_mnist", "svhn")


def _augment(values: dict) -> str:
    known = catalogue.lookup(values["data.name"])
    grey = known is not None and known.shape[2] == 1
    return _MOVES if grey or values["data.name"] in _UNFLIPPED else f"flip_{_MOVES}"


def _norm_is_a_choice(net: str) -> bool:
    from jdd.nets import NAMES, options_of

    return net in NAMES and "norm" in options_of(net)


# Keys whose 'auto' follows from other keys.
DERIVED = {
    "lr_label": lambda values: values["lr_img"],
    "decay_steps": lambda values: values["steps"],
    "augment": _augment,
    "pool_norm": lambda values: "batch" if _norm_is_a_choice(values["net.name"]) else "own",
}


def check(values: dict) -> None:
    """Refuse resolved values that do not go together."""
    from jdd.augment import frepo

    frepo.names(values["augment"])
    batch, parts = values["batch_real"], values["real_parts"]
    if batch % parts:
        raise BadInput("config.real_parts", str(parts), f"a divisor of batch_real, {batch}")
    net = values["net.name"]
    if values["pool_norm"] != "own" and not _norm_is_a_choice(net):
        found = f"{values['pool_norm']}, and {net} has no choice of it"
        raise BadInput("config.pool_norm", found, "own, or auto")


def fits(values: dict, data) -> None:
    """Refuse resolved values that the dataset has no answer to."""
    if data.classes < 2:
        raise BadInput("config.data.name", f"{data.name} of one class", "two classes or more")
    parts, images = values["real_parts"], len(data.train.labels)
    if parts > images:
        raise BadInput("config.real_parts", str(parts), f"1 to {images}, the training images")


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "frepo"})
