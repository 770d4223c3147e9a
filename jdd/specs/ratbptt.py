"""RaT-BPTT: meta-gradients through a random window of training (Feng et al., ICLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jdd.errors import BadInput
from jdd.schema.common import Common, Eval
from jdd.schema.families import Start, Unrolled
from jdd.schema.key import AUTO, group, like, option
from jdd.specs.base import Spec, Values

if TYPE_CHECKING:
    from jdd.data.dataset import Dataset


STAGES = ("distill", "evaluate", "report", "full")
RADIUS = 10


@dataclass(frozen=True)
class Config(Unrolled):
    """Keys of RaT-BPTT."""

    # The authors' grid and number of nets, in place of the common defaults.
    align_corners: bool = like(Common, "align_corners", default=False)
    eval: Eval = group(Eval, n=8)
    unroll_steps: int = option(AUTO, "T: steps of a whole training", minimum=1)
    window: int = option(AUTO, "W: steps differentiated through, up to T", minimum=1)
    window_draw: str = option(
        AUTO,
        "the window is drawn anew each epoch of the real images, each step, or is the end",
        choices=("epoch", "step", "end"),
    )
    window_policy: str = option(
        "uniform",
        "windows: W steps from a start drawn by window_draw, start and size chosen by the lengths "
        "of a plain training's gradients as AT-BPTT does (at), or all T steps (whole)",
        choices=("uniform", "at", "whole"),
        later=True,
        sparse=True,
    )
    window_radius: int = option(
        RADIUS,
        "window_policy=at: d, sizes are W - d to W + d",
        minimum=0,
        later=True,
        sparse=True,
    )
    inner: str = option(
        "adam", "optimiser of the inner training", choices=("adam", "momentum", "sgd")
    )
    lr_student: float = option(AUTO, "rate of the inner training", above=0)
    inner_momentum: float = option(0.9, "momentum of inner=momentum", minimum=0, maximum=1)
    inner_decay: float = option(
        AUTO, "inner weight decay (auto: 0 with adam, else 5e-4)", minimum=0
    )
    per_class: int = option(AUTO, "synthetic images of a class in a step (0: all)", minimum=0)
    classes_per_step: int = option(AUTO, "classes in a step (0: all)", minimum=0)
    batch_real: int = option(AUTO, "real images of a step's loss", minimum=1)
    lr_img: float = option(AUTO, "learning rate of images and labels (Adam)", minimum=0)
    learn_labels: bool = option(AUTO, "labels are learned too, starting at one-hot")
    clip: float = option(
        2.0, "images' gradient is clipped at this times its mean norm (0: not)", minimum=0
    )
    pix_init: str = option(AUTO, "images start as noise or as real ones", choices=("noise", "real"))
    inits: int = option(1, "fresh nets, each with its window, averaged per step", minimum=1)
    init_set: str = like(Start, "init_set")


_NAMES = (
    "per_class", "classes_per_step", "window", "unroll_steps", "batch_real", "lr_img",
    "learn_labels", "window_draw", "steps", "lr_student", "data.zca", "pix_init",
)  # fmt: skip

# Without a published row (MNIST, digits, your own data): starting points, not tuned values.
DEFAULTS = dict(
    zip(
        _NAMES,
        (0, 0, 40, 100, 1000, 1e-3, True, "epoch", 2000, 1e-3, "none", "noise"),
        strict=True,
    )
)


# Found by trial at IPC 1.
STARTS = {
    "digits": {
        "steps": 200, "unroll_steps": 60, "window": 20, "window_draw": "step", "batch_real": 512,
        "lr_img": 0.05, "lr_student": 0.005, "learn_labels": False, "pix_init": "real",
        "data.dsa": "none", "net.width": 32, "experts.lr": 0.1,
    },
}  # fmt: skip


def _row(accuracy: float, std: float | None, source: str, *settings: object) -> dict[str, Any]:
    values = dict(zip(_NAMES, (*settings, 12000, 1e-3, "kip", "noise"), strict=True))
    by = "RaT-BPTT (Feng et al., ICLR 2024), best over evaluations on test data"
    return {"values": values, "accuracy": accuracy, "std": std, "source": f"{by}; {source}"}


_OWN = "settings of its commands but for the number of steps"
_LIKE = "its settings are not in print, these are those of"

# (dataset, IPC): accuracy, std, images per class and classes per step (0: all), W, T, real batch,
# rate, learned labels, window. ImageNet-1K is 64x64, with images of your own
# (data.name=imagenet64). Tiny-ImageNet IPC 10 has a second command: W 90, T 270, 2000 real images,
# rate 3e-4, the window at the end.
# fmt: off
PUBLISHED = {
    ("cifar10", 1):        _row(0.532, 0.007, f"{_LIKE} IPC 10",
                                0, 0, 60, 200, 5000, 1e-3, False, "epoch"),
    ("cifar10", 10):       _row(0.694, 0.004, _OWN, 0, 0, 60, 200, 5000, 1e-3, False, "epoch"),
    ("cifar10", 50):       _row(0.753, 0.003, f"{_LIKE} IPC 10",
                                10, 0, 60, 200, 5000, 1e-3, False, "epoch"),
    ("cifar100", 1):       _row(0.353, 0.004, _OWN, 1, 0, 90, 130, 5000, 3e-4, True, "end"),
    ("cifar100", 10):      _row(0.475, 0.002, _OWN, 1, 0, 100, 300, 5000, 1e-3, True, "epoch"),
    ("cifar100", 50):      _row(0.506, 0.002, f"{_LIKE} IPC 10",
                                1, 0, 100, 300, 5000, 1e-3, True, "epoch"),
    ("tiny_imagenet", 1):  _row(0.201, 0.003, f"{_LIKE} IPC 10",
                                1, 50, 100, 300, 1000, 3e-4, True, "epoch"),
    ("tiny_imagenet", 10): _row(0.244, 0.002, _OWN, 1, 50, 100, 300, 1000, 3e-4, True, "epoch"),
    ("imagenet64", 1):     _row(0.052, None, _OWN, 1, 50, 80, 280, 1500, 3e-4, True, "end"),
}
# fmt: on

# The rest of the published protocol; a run that differs is still compared, with a note.
PROTOCOL = {
    "net.name": "ConvNet", "net.width": 128, "net.norm": "instance", "net.act": "relu",
    "net.pool": "avg", "inner": "adam", "clip": 2.0, "inits": 1, "align_corners": False,
    "data.dsa": "flip_rotate", "eval.steps": 0, "eval.lr": 0.0,
}  # fmt: skip


def _operations(values: Values) -> str:
    from jdd.data import catalogue

    known = catalogue.lookup(values["data.name"])
    return "rotate" if known is not None and "flip" not in known.dsa else "flip_rotate"


def _decay(values: Values) -> float:
    return 0.0 if values["inner"] == "adam" else 5e-4


# Keys whose 'auto' follows from other keys. Digits are not mirrored.
DERIVED = {"data.dsa": _operations, "inner_decay": _decay}


def idle(values: Values) -> dict[str, tuple[str, str]]:
    """Return the keys that the window's policy leaves without effect."""
    policy = values["window_policy"]
    names = {"whole": ("window", "window_draw"), "at": ("window_draw",)}.get(policy, ())
    remedy = "leave it out, or --config.window_policy=uniform"
    return dict.fromkeys(names, (f"window_policy={policy} decides it", remedy))


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    window, steps, ipc = values["window"], values["unroll_steps"], values["ipc"]
    if window > steps:
        raise BadInput("config.window", str(window), f"1 to {steps} (unroll_steps)")
    policy, radius = values["window_policy"], values["window_radius"]
    if policy != "at" and radius != RADIUS:
        found = f"{radius} with window_policy={policy}"
        raise BadInput("config.window_radius", found, "--config.window_policy=at with it")
    most = min(window - 1, steps - window)
    if policy == "at" and radius > most:
        found = f"{radius}: sizes of {window - radius} to {window + radius} of {steps} steps"
        allowed = f"0 to {most} (below window, up to unroll_steps - window)"
        raise BadInput("config.window_radius", found, allowed)
    if values["per_class"] > ipc:
        raise BadInput("config.per_class", str(values["per_class"]), f"1 to {ipc} (ipc), or 0: all")


def validate_data(values: Values, data: Dataset) -> None:
    """Refuse resolved values that do not fit the dataset."""
    if values["classes_per_step"] > data.classes:
        found, allowed = str(values["classes_per_step"]), f"1 to {data.classes}, or 0 for all"
        raise BadInput("config.classes_per_step", found, allowed)


SPEC = Spec(
    name="ratbptt",
    make="jdd.methods.ratbptt:make",
    title="RaT-BPTT",
    adaptive=("lr_img",),
    config=Config,
    stages=STAGES,
    protocol=PROTOCOL,
    derived=DERIVED,
    validate=validate,
    idle=idle,
    validate_data=validate_data,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
