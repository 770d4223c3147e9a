"""DD: dataset distillation (Wang et al. 2018): a few gradient steps and their rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jdd.errors import BadInput
from jdd.schema.families import Estimated
from jdd.schema.key import AUTO, group, option
from jdd.specs.base import Spec, Values

if TYPE_CHECKING:
    from jdd.data.dataset import Dataset


@dataclass(frozen=True)
class Source:
    """The source dataset, on which nets are pretrained (``objective=adapt``)."""

    name: str = option("", "objective=adapt: the dataset the pretrained nets come from")
    path: str = option("", "its file, folder or archive, as data.path", resumable=True)
    source: str = option(
        AUTO,
        "where its images come from, as data.source",
        choices=("digits", "npz", "folder", "tfds", "hf"),
        resumable=True,
    )


@dataclass(frozen=True)
class Config(Estimated):
    """Keys of DD."""

    objective: str = option(
        "distill",
        "train nets; adapt nets of another dataset; or attack trained nets",
        choices=("distill", "adapt", "attack"),
    )
    init: str = option(
        AUTO,
        "initial weights of the steps (auto: random; to adapt or attack, pretrained)",
        choices=("random", "fixed", "pretrained"),
    )
    source: Source = group(Source)
    attack_class: str = option("", "objective=attack: images of this class, a name or a number ...")
    target_class: str = option("", "... are to be classified as this one")
    distill_steps: int = option(
        AUTO,
        "S: batches of the set, ipc / S images per class each (auto: ipc)",
        minimum=1,
    )
    distill_epochs: int = option(
        AUTO,
        "E: times the batches are gone through (auto: 3, or what makes 10 steps)",
        minimum=1,
    )
    lr_student: float = option(AUTO, "every step's rate at the start", above=0)
    lr_img: float = option(0.01, "Adam's rate for the images", minimum=0)
    lr_lr: float = option(0.01, "Adam's rate for the steps' raw rates", minimum=0)
    decay_epochs: int = option(40, "both halve after this many epochs of real images", minimum=1)
    batch_real: int = option(1024, "real images of the outer loss", minimum=1)
    real_augment: str = option(
        AUTO, "augmentation of the real images", choices=("none", "crop_flip")
    )
    inits: int = option(1, "initial weights averaged per distillation step", minimum=1)
    held_out: int = option(AUTO, "pretrained nets held out for the test (auto: a fifth)", minimum=1)


# Without a published row: the authors' MNIST settings, fewer steps.
DEFAULTS = {
    "lr_student": 0.02, "real_augment": "none", "data.dsa": "none", "data.zca": False,
    "net.init": "xavier", "steps": 1000,
}  # fmt: skip

# The published nets; options that are set override them. The digits' values were chosen on a
# validation split of the training images; deeper nets learn less from few steps there.
STARTS: dict[str, dict[str, Any]] = {
    "mnist": {"net.name": "LeNet", "nets": ("LeNet",)},
    "cifar10": {"net.name": "AlexCifarNet", "nets": ("AlexCifarNet",)},
    "digits": {
        "steps": 400, "lr_student": 0.1, "lr_img": 0.1, "lr_lr": 0.02, "batch_real": 128,
        "inits": 2, "net.width": 32, "net.depth": 2, "net.init": "torch",
        "experts.lr": 0.1, "experts.count": 25, "experts.epochs": 20,
    },
}  # fmt: skip


def _row(accuracy: float, std: float, source: str, steps: int, **settings: Any) -> dict[str, Any]:
    values = DEFAULTS | {"steps": steps} | settings
    return {"values": values, "accuracy": accuracy, "std": std, "source": source}


# 400 epochs of batches of 1024: 58 steps per epoch on MNIST, 48 on CIFAR-10.
PUBLISHED = {
    ("mnist", 10): _row(
        0.795, 0.081, "DD (Wang et al. 2018), random init, as later papers quote it", 400 * 58,
        **{"net.name": "LeNet"},
    ),
    ("cifar10", 10): _row(
        0.368, 0.012, "DD (Wang et al. 2018), random init, as later papers quote it", 400 * 48,
        **{"net.name": "AlexCifarNet", "lr_student": 0.001, "real_augment": "crop_flip"},
    ),
}  # fmt: skip

PROTOCOL = {
    "objective": "distill", "init": "random", "distill_steps": 10, "distill_epochs": 3,
    "lr_img": 0.01, "lr_lr": 0.01, "decay_epochs": 40, "batch_real": 1024, "inits": 1,
    "estimator": "exact", "window": 0, "eval.lr": 0.0, "eval.steps": 0,
}  # fmt: skip


def _source(values: Values) -> str:
    """Return the source of the source dataset's images; that of the data without one."""
    from jdd.data.sources.request import source_of

    name, path = values["source.name"], values["source.path"]
    return source_of(name, "auto", path) if name else values["data.source"]


DERIVED = {
    "source.source": _source,
    "init": lambda values: "random" if values["objective"] == "distill" else "pretrained",
    "distill_steps": lambda values: values["ipc"],
    "distill_epochs": lambda values: max(3, -(-10 // values["distill_steps"])),
    "held_out": lambda values: max(1, values["experts.count"] // 5),
}


def stages(values: Values) -> tuple[str, ...]:
    """Return the stages of a config: experts only where nets are pretrained."""
    first = ("experts",) if values["init"] == "pretrained" else ()
    # The whole training set is no baseline for an attack.
    last = ("full",) if values["objective"] != "attack" else ()
    return (*first, "distill", "evaluate", "report", *last)


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    _validate_steps(values)
    _validate_objective(values)
    if values["eval.schedule"] != "recipe" and not values["eval.lr"]:
        found = f"{values['eval.schedule']}, and the set learns a rate for every step"
        raise BadInput("config.eval.schedule", found, "recipe, or --config.eval.lr=0.01 with it")
    pool, tested = values["experts.count"], values["held_out"]
    if values["init"] == "pretrained" and pool < 2:
        found = f"{pool} for init=pretrained"
        raise BadInput("config.experts.count", found, "2 or more: some are held out for the test")
    if values["init"] == "pretrained" and tested >= pool:
        raise BadInput(
            "config.held_out", f"{tested} of {pool} experts", f"1 to {pool - 1}, or auto"
        )
    if values["net.norm"] == "batch" or values["net.name"].endswith(("BN", "BN_AP")):
        found = "batch norm, whose running statistics no unroll carries"
        raise BadInput("config.net.norm", found, "instance, group, layer or none")


def _validate_steps(values: Values) -> None:
    ipc, batches = values["ipc"], values["distill_steps"]
    if ipc % batches:
        fit = ", ".join(str(i) for i in range(1, ipc + 1) if ipc % i == 0)
        raise BadInput("config.distill_steps", f"{batches} at ipc {ipc}", f"one of {fit}, or auto")
    steps, window = batches * values["distill_epochs"], values["window"]
    if values["estimator"] == "truncated" and not 1 <= window <= steps:
        allowed = f"1 to {steps} (distill_steps x distill_epochs)"
        raise BadInput("config.window", str(window), allowed)
    if values["estimator"] != "truncated" and window:
        found = f"{window} with estimator={values['estimator']}"
        raise BadInput("config.window", found, "0, or --config.estimator=truncated with it")
    if values["eval.steps"] > steps and not values["eval.lr"]:
        found = f"{values['eval.steps']}, and {steps} rates are learned, one a step"
        allowed = f"{steps} at most, or one rate for all: --config.eval.lr=0.01"
        raise BadInput("config.eval.steps", found, allowed)


# The keys of a single objective.
_OF = {
    "source.name": "adapt", "source.path": "adapt",
    "attack_class": "attack", "target_class": "attack",
}  # fmt: skip


def _validate_objective(values: Values) -> None:
    objective, net = values["objective"], values["net.name"]
    for name, owner in _OF.items():
        if values[name] and objective != owner:
            found = f"{values[name]} with objective={objective}"
            raise BadInput(f"config.{name}", found, f"it belongs to --config.objective={owner}")
        if objective == owner and not values[name] and name != "source.path":
            what = "the dataset of the pretrained nets" if owner == "adapt" else "a class"
            raise BadInput(f"config.{name}", "empty", f"{what}: --config.{name}=...")
    if objective == "distill":
        return
    if values["init"] != "pretrained":
        found = f"{values['init']} with objective={objective}"
        raise BadInput("config.init", found, "pretrained (or auto): trained nets are its subject")
    if tuple(values["nets"]) != (net,):
        found = f"{','.join(values['nets'])} with objective={objective}"
        raise BadInput("config.nets", found, f"{net} alone: only net.name is pretrained")


def validate_data(values: Values, data: Dataset) -> None:
    """Refuse resolved values that do not fit the dataset."""
    if values["objective"] != "attack":
        return
    from jdd.data.relabel import class_of

    names = ("attack_class", "target_class")
    labels = [class_of(values[name], data.class_names, f"config.{name}") for name in names]
    if labels[0] == labels[1]:
        found = f"{values['target_class']}, the class that is attacked"
        raise BadInput("config.target_class", found, "another class")
    for split, words in ((data.test, "test"), (data.val, "validation")):
        if split is not None and labels[0] not in split.labels:
            found = f"{values['attack_class']}, of which there is no {words} image"
            raise BadInput("config.attack_class", found, f"a class with {words} images")


SPEC = Spec(
    name="dd",
    make="jdd.methods.dd:make",
    title="DD",
    config=Config,
    stages=stages,
    protocol=PROTOCOL,
    derived=DERIVED,
    validate=validate,
    validate_data=validate_data,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
