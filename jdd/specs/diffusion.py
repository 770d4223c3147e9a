"""A diffusion model of the real images as a generator."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.errors import BadInput
from jdd.schema.generative import Diffusion, validate_generator, validate_levels
from jdd.schema.key import group
from jdd.specs import vae
from jdd.specs.base import Spec, Stages, Values
from jdd.stages.registry import Phase

# The phase, for the stages of every method that builds on diffusion.
DIFFUSION = Phase(
    "diffusion",
    make="jdd.methods.diffusion:phase",
    help="generative methods: train the noise predictor",
    steps="diffusion.steps",
    keys=("diffusion.", "sampling."),
    smaller=("diffusion.parts", "diffusion.batch", "diffusion.width"),
)

# Settings of the predictor by dataset, for every method that trains one.
PRIORS = {
    "digits": {
        "diffusion.steps": 5000, "diffusion.batch": 64, "diffusion.parts": 1,
        "diffusion.timesteps": 200, "diffusion.width": 128, "sampling.steps": 20,
    },
    "mnist": {"diffusion.steps": 8000, "diffusion.width": 32},
    "fashion_mnist": {"diffusion.steps": 8000, "diffusion.width": 32},
    "cifar10": {"diffusion.steps": 20000, "diffusion.width": 48},
}  # fmt: skip
STARTS = {name: values | PRIORS[name] for name, values in vae.STARTS.items()}


@dataclass(frozen=True)
class Config(vae.Generated):
    """Keys of the diffusion model."""

    diffusion: Diffusion = group(Diffusion)


def stages(values: Values) -> Stages:
    """Return the stages: latents have a VAE trained first."""
    first = (vae.VAE,) if values["diffusion.space"] == "latents" else ()
    return (*first, DIFFUSION, "distill", "evaluate", "report", "full")


def idle(values: Values) -> dict[str, tuple[str, str]]:
    """Return the keys of the VAE where pixels are diffused, without one."""
    if values["diffusion.space"] == "latents":
        return {}
    remedy = "leave it out, or --config.diffusion.space=latents"
    return {"vae.": ("diffusion.space=pixels trains no VAE", remedy)}


def validate(values: Values) -> None:
    """Refuse resolved values that do not go together."""
    validate_generator(values)
    for name, only, why in (
        ("strength", 1.0, "a generator starts from noise"),
        ("eta", 0.0, "a generator's images follow from their start noise alone"),
    ):
        if values[f"sampling.{name}"] != only:
            found = f"{values[f'sampling.{name}']} with method=diffusion"
            raise BadInput(f"config.sampling.{name}", found, f"{only:g}: {why}")


SPEC = Spec(
    name="diffusion",
    title="Diffusion",
    make="jdd.methods.diffusion:make",
    config=Config,
    defaults=vae.DEFAULTS,
    starts=STARTS,
    validate=validate,
    validate_data=validate_levels,
    stages=stages,
    idle=idle,
)
