"""A Gaussian of each class as a generator: what a trained generator is held to."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.errors import BadInput
from jdd.schema.common import Baselines, Common, Eval, Net
from jdd.schema.experts import Experts
from jdd.schema.generative import validate_product
from jdd.schema.key import group, like, option
from jdd.schema.quality import Quality
from jdd.specs.base import Spec, Values

DEFAULTS = {"steps": 0, "eval.lr": 0.01, "eval.epochs": 300, "data.zca": "none"}
STARTS = {
    "digits": {
        "net.width": 32, "experts.batch": 64, "experts.epochs": 10, "baselines.full_epochs": 20,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Config(Common):
    """Keys of the Gaussian generator."""

    ipc: int = like(Common, "ipc", default=10, minimum=2)
    per_class: int = option(10, "images of each class that are drawn for every epoch", minimum=1)
    align_corners: bool = like(Common, "align_corners", default=False)
    net: Net = group(Net)
    eval: Eval = group(Eval, curve=0)
    baselines: Baselines = group(Baselines)
    experts: Experts = group(Experts, momentum=0.9, weight_decay=5e-4)
    quality: Quality = group(Quality)


def validate(values: Values) -> None:
    """Refuse resolved values that do not go together."""
    if values["steps"]:
        found = f"{values['steps']} with method={values['method']}"
        raise BadInput("config.steps", found, "0: the Gaussians are fitted, no step changes them")
    validate_product(values)


SPEC = Spec(
    name="gaussian",
    title="Gaussian",
    make="jdd.methods.gaussian:make",
    config=Config,
    defaults=DEFAULTS,
    starts=STARTS,
    validate=validate,
    stages=("distill", "evaluate", "report", "full"),
)
