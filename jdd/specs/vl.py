"""VL: matching the trajectories of two towers (Wu et al., TMLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.errors import BadInput
from jdd.schema import pairs as schema
from jdd.schema.experts import Experts
from jdd.schema.families import Estimated
from jdd.schema.key import AUTO, group, like, option
from jdd.schema.pairs import PairConfig, validate_batch, validate_pairs
from jdd.specs.base import Spec, Values


@dataclass(frozen=True)
class Config(PairConfig, Estimated):
    """Keys of VL."""

    protocol: str = like(PairConfig, "protocol", default="vl")
    experts: Experts = group(Experts, count=20)
    syn_steps: int = option(8, "n: student steps on the pairs per match", minimum=1)
    expert_epochs: int = option(1, "M: expert epochs they have to match", minimum=1)
    max_start_epoch: int = option(2, "T+: matches start at expert epochs below this", minimum=1)
    batch_syn: int = option(AUTO, "synthetic pairs per student step (0: all)", minimum=0)
    lr_img: float = option(AUTO, "learning rate of the images", minimum=0)
    lr_txt: float = option(AUTO, "learning rate of the text vectors", minimum=0)
    lr_lr: float = option(AUTO, "learning rate of the student rates alpha", minimum=0)
    lr_student: float = option(0.1, "alpha of both branches at the start", above=0)
    min_lr: float = option(1e-3, "the student rates stay at or above this", above=0)
    momentum: float = option(
        0.5, "momentum of the SGD of all that is learned", minimum=0, maximum=1
    )
    loss: str = option(
        "nce",
        "contrastive loss of the students: InfoNCE, binary cross entropy, or that with positive "
        "and negative cells weighing the same",
        choices=("nce", "bce", "wbce"),
    )
    tau_inner: str = option(
        "exact",
        "students' similarities while distilling: over tau, or times log(1/tau), as published",
        choices=("exact", "raw"),
    )
    distance: str = option(
        "branches",
        "distance to the expert: the sum of both branches' normalised ones, or one of all weights",
        choices=("branches", "merged"),
    )
    segments: int = option(1, "expert segments averaged per distillation step", minimum=1)
    mix: float = option(
        0.0,
        "students' pairs are blended with others by weights from Beta(mix, mix) (0: off)",
        minimum=0,
        later=True,
        sparse=True,
    )


NAMES = ("steps", "batch_syn", "lr_img", "lr_txt", "lr_lr")
DEFAULTS = {
    **dict(zip(NAMES, (2000, 0, 100.0, 100.0, 1e-2), strict=True)),
    "eval.lr": 0.0, "eval.epochs": 150, "data.zca": "none", "data.dsa": "none",
}  # fmt: skip
# One caption an image, an image tower of one hidden layer from one shared start.
STARTS = {
    "digits_captions": {
        **schema.STARTS["digits_captions"],
        "protocol": "own",
        "net.name": "MLP1", "nets": ("MLP1",), "steps": 800, "lr_img": 1000.0, "lr_txt": 100.0,
        "lr_lr": 1e-3, "lr_student": 0.05, "text.captions": 1, "text.size": 64, "towers.size": 48,
        "towers.start": "shared", "experts.count": 6, "experts.group": 6,
    },
    "flickr8k": {
        **schema.STARTS["flickr8k"],
        "experts.count": 4, "experts.group": 1, "max_start_epoch": 4, "steps": 600,
        "lr_img": 1e4, "lr_txt": 1e5, "lr_lr": 1e-3,
    },
}  # fmt: skip


def _epochs_read(values: Values) -> int:
    read: int = values["max_start_epoch"] - 1 + values["expert_epochs"]
    return read


DERIVED = {"experts.epochs": _epochs_read}


def validate(values: Values) -> None:
    """Refuse resolved values that do not go together."""
    validate_pairs(values)
    steps, window = values["syn_steps"], values["window"]
    truncated = values["estimator"] == "truncated"
    if truncated and not 1 <= window <= steps:
        raise BadInput("config.window", str(window), f"1 to {steps} (syn_steps)")
    if window and not truncated:
        found = f"{window} with estimator={values['estimator']}"
        raise BadInput("config.window", found, "0, or --config.estimator=truncated with it")
    need, have = _epochs_read(values), values["experts.epochs"]
    if have < need:
        allowed = f"{need} or more (max_start_epoch - 1 + expert_epochs), or auto"
        raise BadInput("config.experts.epochs", str(have), allowed)
    validate_batch(values)
    if values["tau_inner"] == "raw" and values["towers.tau"] >= 1:
        found = f"raw with towers.tau={values['towers.tau']:g}: log(1/tau) is not above 0"
        raise BadInput("config.tau_inner", found, "exact, or --config.towers.tau below 1")
    if values["lr_student"] < values["min_lr"]:
        found = f"{values['lr_student']:g}, below min_lr={values['min_lr']:g}"
        raise BadInput("config.lr_student", found, "min_lr or more")


SPEC = Spec(
    name="vl",
    title="VL",
    make="jdd.methods.vl:make",
    config=Config,
    task="retrieval",
    defaults=DEFAULTS,
    starts=STARTS,
    derived=DERIVED,
    validate=validate,
)
