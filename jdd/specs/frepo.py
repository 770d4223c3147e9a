"""FRePo: feature regression with a pool of nets (Zhou, Nezhadarya & Ba, NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jdd.errors import BadInput
from jdd.schema.common import Common, Net
from jdd.schema.experts import Experts
from jdd.schema.families import Start
from jdd.schema.key import AUTO, group, like, option
from jdd.specs.base import Spec, Values

if TYPE_CHECKING:
    from jdd.data.dataset import Dataset


STAGES = ("distill", "evaluate", "report", "full")


@dataclass(frozen=True)
class Config(Common):
    """Keys of FRePo."""

    # The method's own net; intervals that suit half a million steps and a pool in checkpoints.
    nets: tuple[str, ...] = like(Common, "nets", default=("FRePoNet",))
    net: Net = group(Net, name="FRePoNet")
    # Without normalisation the baseline of the whole training set needs momentum.
    experts: Experts = group(Experts, momentum=0.9)
    log_every: int = like(Common, "log_every", default=100)
    checkpoint_every: int = like(Common, "checkpoint_every", default=1000)
    batch_real: int = option(1024, "real images predicted in a step", minimum=1)
    real_parts: int = option(
        1, "equal parts of the real batch, taken in turn or by several devices", minimum=1
    )
    flip: bool = option(AUTO, "mirror images are used in the regression too")
    lr_img: float = option(AUTO, "LAMB's rate for the images", minimum=0)
    lr_label: float = option(AUTO, "LAMB's rate for the labels (auto: lr_img)", minimum=0)
    decay_steps: int = option(
        AUTO, "steps in which both rates fall to a tenth (auto: steps)", minimum=0
    )
    margin_weight: float = option(1.0, "weight of the labels' margin", minimum=0)
    pool_size: int = option(10, "nets in the pool", minimum=1)
    pool_steps: int = option(100, "a net that has taken more steps is replaced", minimum=0)
    pool_norm: str = option(
        AUTO,
        "the pool's normalisation; own: net.norm (auto: batch, if the net can)",
        choices=("batch", "none", "instance", "group", "layer", "own"),
    )
    lr_pool: float = option(3e-4, "Adam's rate for the pool", minimum=0)
    batch_pool: int = option(1000, "synthetic images in a step of the pool, at the most", minimum=1)
    lr_student: float = option(AUTO, "Adam's rate for nets trained on the set", above=0)
    augment: str = option(
        AUTO,
        "augmentation of nets trained on the set: FRePo's operations joined by '_', or none "
        "(auto: all; without flip for figures and garments)",
    )
    pix_init: str = option(
        "real", "images start as real ones or as noise", choices=("real", "noise")
    )
    init_set: str = like(Start, "init_set")


_NAMES = ("flip", "data.zca", "lr_img", "lr_student", "steps")

# Without a published row (digits, your own data, another IPC): starting points, not tuned values.
DEFAULTS = dict(zip(_NAMES, (False, "none", 3e-3, 3e-4, 5000), strict=True))

# Digits' found by trial; the others have the common values of their datasets' published rows.
STARTS: dict[str, dict[str, Any]] = {
    "cifar10": {"flip": True, "data.zca": "frepo"},
    "cifar100": {"data.zca": "frepo"},
    "tiny_imagenet": {"data.zca": "frepo"},
    "digits": {
        "steps": 500, "lr_img": 0.01, "lr_student": 3e-3, "net.width": 24, "net.depth": 2,
        "batch_real": 256, "lr_pool": 3e-3, "eval.steps": 300, "experts.lr": 0.05,
    },
}  # fmt: skip


_MOVES = "color_crop_rotate_translate_cutout"


def _row(accuracy: float, std: float, flip: bool, zca: str, note: str = "") -> dict[str, Any]:
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

# The rest of the published protocol; a run that differs is still compared, with a note.
PROTOCOL = {
    "net.name": "FRePoNet", "net.width": 128, "net.norm": "none", "net.init": "lecun",
    "lr_label": 3e-4, "decay_steps": 500_000, "batch_real": 1024, "margin_weight": 1.0,
    "pool_size": 10, "pool_steps": 100, "pool_norm": "batch", "lr_pool": 3e-4, "batch_pool": 1000,
    "pix_init": "real", "eval.steps": 0, "eval.lr": 0.0,
}  # fmt: skip

_UNFLIPPED = ("digits", "mnist", "fashion_mnist", "svhn")


def _augment(values: Values) -> str:
    from jdd.data import catalogue

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


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    from jdd.augment import frepo

    frepo.names(values["augment"])
    batch, parts = values["batch_real"], values["real_parts"]
    if batch % parts:
        raise BadInput("config.real_parts", str(parts), f"a divisor of batch_real, {batch}")
    net = values["net.name"]
    if values["pool_norm"] != "own" and not _norm_is_a_choice(net):
        found = f"{values['pool_norm']}, and {net} has no choice of it"
        raise BadInput("config.pool_norm", found, "own, or auto")


def validate_data(values: Values, data: Dataset) -> None:
    """Refuse resolved values that do not fit the dataset."""
    if data.classes < 2:
        raise BadInput("config.data.name", f"{data.name} of one class", "two classes or more")
    parts, images = values["real_parts"], len(data.train.labels)
    if parts > images:
        raise BadInput("config.real_parts", str(parts), f"1 to {images}, the training images")


SPEC = Spec(
    name="frepo",
    make="jdd.methods.frepo:make",
    title="FRePo",
    config=Config,
    stages=STAGES,
    protocol=PROTOCOL,
    derived=DERIVED,
    validate=validate,
    validate_data=validate_data,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
