"""Keys of generative priors: the VAE, the diffusion model, and sampling from it.

Measured reasons for the defaults are on the pages docs/methods/vae.md and diffusion.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdd.errors import BadInput
from jdd.schema.key import option


@dataclass(frozen=True)
class Vae:
    """The variational autoencoder of the real images."""

    steps: int = option(10000, "training steps", resumable=True, minimum=0)
    batch: int = option(128, "real images per step", minimum=1)
    parts: int = option(
        1, "parts of a step's images, each with its own noise; devices share them",
        minimum=1,
    )  # fmt: skip
    lr: float = option(1e-3, "learning rate (Adam)", above=0)
    beta: float = option(
        0.02, "weight of the KL term: the variance of a pixel given its latent", above=0
    )
    channels: int = option(4, "numbers at each place of a latent", minimum=1)
    width: int = option(32, "channels of the first and the last map", minimum=1)
    levels: int = option(2, "halvings of the side: a latent has 1 / 2^levels of it", minimum=1)


@dataclass(frozen=True)
class Diffusion:
    """The noise predictor and what it is trained on."""

    space: str = option(
        "latents",
        "what is diffused: latents of a VAE trained before, or pixels",
        choices=("latents", "pixels"),
    )
    steps: int = option(20000, "training steps", resumable=True, minimum=0)
    batch: int = option(128, "real images per step", minimum=1)
    parts: int = option(
        1, "parts of a step's images, each with its own noise; devices share them",
        minimum=1,
    )  # fmt: skip
    lr: float = option(1e-3, "learning rate (Adam)", above=0)
    timesteps: int = option(1000, "T, steps from data to noise", minimum=2)
    schedule: str = option("scaled_linear", "noise schedule", choices=("scaled_linear", "cosine"))
    drop: float = option(
        0.1, "fraction of labels replaced by 'no class', for guidance", minimum=0, maximum=1
    )
    ema: float = option(
        0.999, "decay of the average of the weights, which samples", minimum=0, maximum=0.999999
    )
    width: int = option(64, "channels of the U-Net's first level", minimum=1)
    levels: int = option(0, "sizes of maps in the U-Net (0: by the side)", minimum=0)
    attention: bool = option(True, "attention at the U-Net's smallest maps")


@dataclass(frozen=True)
class Sampling:
    """How images are sampled from a diffusion model."""

    steps: int = option(50, "DDIM steps from noise to data", minimum=1)
    guidance: float = option(
        2.0, "g of eps_none + g (eps_class - eps_none): 0 without class, 1 plain", minimum=0
    )
    strength: float = option(
        1.0, "share of the steps: below 1 images start as others, noised", minimum=0, maximum=1
    )
    eta: float = option(0.0, "share of fresh noise in a step (DDPM: 1)", minimum=0, maximum=1)
    part: int = option(
        100, "images sampled at a time; fewer need less memory", minimum=1, resumable=True
    )


def validate_prior(values: Mapping[str, Any]) -> None:
    """Refuse resolved values of the groups that do not go together.

    Raises:
      BadInput: a batch that its parts do not divide.
    """
    for name in ("vae", "diffusion"):
        batch, parts = values.get(f"{name}.batch", 1), values.get(f"{name}.parts", 1)
        if batch % parts:
            divisors = [str(n) for n in range(1, min(batch, 64) + 1) if batch % n == 0]
            found = f"{parts}, and {name}.batch={batch}"
            raise BadInput(f"config.{name}.parts", found, f"one of {', '.join(divisors)}")
    if "diffusion.drop" in values and values.get("prior", "own") == "own":
        _validate_sampling(values)


def _validate_sampling(values: Mapping[str, Any]) -> None:
    """Refuse predictions that the predictor never learned, and steps that there are not."""
    drop, guidance = values["diffusion.drop"], values["sampling.guidance"]
    for share, only, who in ((0.0, 1.0, "no class"), (1.0, 0.0, "a class")):
        if drop == share and guidance != only:
            found = f"{guidance:g} with diffusion.drop={drop:g}: {who} was never learned"
            raise BadInput(
                "config.sampling.guidance", found, f"{only:g}, or another diffusion.drop"
            )
    steps, total = values["sampling.steps"], values["diffusion.timesteps"]
    least = 2 if values["sampling.strength"] == 1 else 1  # one step would start without noise
    if not least <= steps <= total:
        allowed = f"{least} to {total} (diffusion.timesteps)"
        raise BadInput("config.sampling.steps", str(steps), allowed)


def validate_levels(values: Mapping[str, Any], dataset: Any) -> None:
    """Refuse more halvings than a side of the images, or of their latents, allows.

    Raises:
      BadInput: naming the key and the most that fits.
    """
    side = max(dataset.shape[:2])
    of = "images"
    if values.get("diffusion.space") != "pixels":
        _validate_halvings("vae.levels", values["vae.levels"], side, of)
        side, of = -(-side // 2 ** values["vae.levels"]), "latents"
    if "diffusion.levels" in values:
        # The first level has the maps' own size.
        _validate_halvings("diffusion.levels", values["diffusion.levels"], 2 * side, of)


def _validate_halvings(name: str, levels: int, side: int, of: str) -> None:
    most = (side - 1).bit_length()
    if levels > most:
        shown = side // 2 if name == "diffusion.levels" else side
        found = f"{levels}, of {of} of {shown} a side"
        raise BadInput(f"config.{name}", found, f"{most} or fewer")


def validate_product(values: Mapping[str, Any]) -> None:
    """Refuse what no generator has: scores of a fixed set, and a learned rate of students.

    Raises:
      BadInput: naming the key.
    """
    if values["scores"]:
        found = "true, of a generator"
        raise BadInput("config.scores", found, "false: scores are of fixed sets of images")
    if not values["eval.lr"]:
        raise BadInput(
            "config.eval.lr", "0, and no rate is learned", "above 0, such as --config.eval.lr=0.01"
        )


def validate_generator(values: Mapping[str, Any]) -> None:
    """Refuse resolved values that do not go with a generator as product.

    Raises:
      BadInput: steps of the packing stage, scores, no rate, or whitened images.
    """
    validate_prior(values)
    method = values["method"]
    if values["steps"]:
        own = "vae.steps" if method == "vae" else "diffusion.steps and vae.steps"
        found = f"{values['steps']} with method={method}"
        raise BadInput("config.steps", found, f"0: a prior is trained for {own}")
    validate_product(values)
    if values["data.zca"] != "none":
        found = f"{values['data.zca']} with method={method}"
        raise BadInput("config.data.zca", found, "none: pixels are clipped to their range")
