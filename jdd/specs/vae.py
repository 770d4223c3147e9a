"""A VAE of the real images as a generator, with a Gaussian of each class in latent space."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.common import Baselines, Common, Eval, Net
from jdd.schema.experts import Experts
from jdd.schema.generative import Sampling, Vae, validate_generator, validate_levels
from jdd.schema.key import group, like
from jdd.schema.quality import Quality
from jdd.specs.base import Spec, Values
from jdd.stages.registry import Phase

# The phase, for the stages of every method that builds on a VAE.
VAE = Phase(
    "vae",
    make="jdd.methods.vae:phase",
    help="generative methods: train the VAE on the real images",
    steps="vae.steps",
    keys=("vae.",),
    smaller=("vae.parts", "vae.batch", "vae.width"),
)

DEFAULTS = {"steps": 0, "eval.lr": 0.01, "eval.epochs": 300, "data.zca": "none"}
# Settings of the VAE by dataset, for every method that trains one.
PRIORS = {
    "digits": {
        "vae.steps": 2500, "vae.batch": 64, "vae.parts": 1, "vae.channels": 16, "vae.width": 16,
        "vae.levels": 3,
    },
    "mnist": {"vae.steps": 4000, "vae.width": 16},
    "fashion_mnist": {"vae.steps": 4000, "vae.width": 16},
    "cifar10": {"vae.steps": 10000, "vae.levels": 2},
}  # fmt: skip
# Settings of students and of the nets trained on all images.
STUDENTS = {
    "digits": {
        "net.width": 32, "experts.batch": 64, "experts.epochs": 10, "baselines.full_epochs": 20,
    },
}  # fmt: skip
STARTS = {name: values | STUDENTS.get(name, {}) for name, values in PRIORS.items()}


@dataclass(frozen=True)
class Generated(Common):
    """Keys of the methods whose product is a generator of trained priors."""

    ipc: int = like(
        Common, "ipc", default=10, help="images of each class that are drawn for every epoch"
    )
    align_corners: bool = like(Common, "align_corners", default=False)
    net: Net = group(Net)
    eval: Eval = group(Eval, curve=0)
    baselines: Baselines = group(Baselines)
    experts: Experts = group(Experts, momentum=0.9, weight_decay=5e-4)
    vae: Vae = group(Vae)
    sampling: Sampling = group(Sampling)
    quality: Quality = group(Quality)


@dataclass(frozen=True)
class Config(Generated):
    """Keys of the VAE."""


def idle(values: Values) -> dict[str, tuple[str, str]]:
    """Return the keys of sampling that are of diffusion alone."""
    names = ("steps", "guidance", "strength", "eta")
    why = ("a VAE's images are decoded at once", "leave it out, or --config=diffusion")
    return {f"sampling.{name}": why for name in names}


SPEC = Spec(
    name="vae",
    title="VAE",
    make="jdd.methods.vae:make",
    config=Config,
    defaults=DEFAULTS,
    starts=STARTS,
    validate=validate_generator,
    validate_data=validate_levels,
    idle=idle,
    stages=(VAE, "distill", "evaluate", "report", "full"),
)
