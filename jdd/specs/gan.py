"""AC-WGAN-GP: a conditional GAN whose generator is the product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jdd.errors import BadInput
from jdd.schema.common import Baselines, Common, Eval, Net
from jdd.schema.experts import Experts
from jdd.schema.gan import Gan
from jdd.schema.generative import validate_product
from jdd.schema.key import group, like
from jdd.schema.quality import Quality
from jdd.specs.base import Spec, Values

if TYPE_CHECKING:
    from jdd.data.dataset import Dataset

# 150 epochs of CIFAR-10 at 390 batches, an update of the generator and one of the critic each.
DEFAULTS = {
    "steps": 117_000, "gan.width": 196, "gan.latent": 100, "gan.lr": 1e-4, "gan.batch": 128,
    "eval.lr": 0.01, "eval.epochs": 1000, "data.dsa": "color_crop", "data.zca": "none",
}  # fmt: skip

# jdd's own: the small nets of 8 pixels; fewer updates, of narrower nets, where a CPU has to do.
STARTS: dict[str, dict[str, Any]] = {
    "digits": {
        "steps": 6000, "gan.width": 32, "gan.latent": 32, "gan.lr": 5e-4, "gan.batch": 64,
        "eval.epochs": 300, "net.width": 32, "experts.batch": 64, "experts.epochs": 10,
        "baselines.full_epochs": 20,
    },
    "mnist": {"steps": 60_000, "gan.width": 64},
}  # fmt: skip


@dataclass(frozen=True)
class Config(Common):
    """Keys of the GAN."""

    ipc: int = like(
        Common, "ipc", default=10, help="images of each class that students see in an epoch"
    )
    align_corners: bool = like(Common, "align_corners", default=False)
    gan: Gan = group(Gan)
    net: Net = group(Net)
    eval: Eval = group(Eval, batch=64, curve=0)
    baselines: Baselines = group(Baselines)
    experts: Experts = group(Experts, momentum=0.9, weight_decay=5e-4)
    quality: Quality = group(Quality)
    checkpoint_every: int = like(Common, "checkpoint_every", default=1000)
    log_every: int = like(Common, "log_every", default=100)


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    validate_product(values)
    if values["data.zca"] != "none":
        found = f"{values['data.zca']}, and the generator's pixels end in tanh"
        raise BadInput("config.data.zca", found, "none: images normalised by channel")
    batch, parts = values["gan.batch"], values["gan.parts"]
    if batch % parts or batch // parts < 2:
        found = f"{parts}, of a batch of {batch}"
        raise BadInput("config.gan.parts", found, "equal parts of two images or more")


def validate_data(values: Values, data: Dataset) -> None:
    """Refuse resolved values that do not fit the dataset."""
    from jdd.nets import gan  # imports JAX

    gan.pair(data.shape, data.classes, values["gan.latent"], values["gan.width"])
    if 2 * values["gan.parts"] > len(data.train.labels):
        most = len(data.train.labels) // 2
        raise BadInput("config.gan.parts", str(values["gan.parts"]), f"1 to {most}")


SPEC = Spec(
    name="gan",
    title="GAN",
    make="jdd.methods.gan:make",
    config=Config,
    defaults=DEFAULTS,
    starts=STARTS,
    validate=validate,
    validate_data=validate_data,
    stages=("distill", "evaluate", "report", "full"),
)
