"""Keys of latent matching: latents of a trained prior are learned in place of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdd.schema.key import AUTO, option

NONE = "none"


@dataclass(frozen=True)
class Latent:
    """Latents that are learned in place of pixels."""

    prior: str = option(
        NONE,
        "learn latents that a VAE or a GAN decodes, in place of pixels: the working directory or "
        "distilled.npz of its finished run on the same images (none: pixels)",
        stands=(("", NONE),),
        later=True,
        sparse=True,
        content="jdd.methods.latents:digest",
    )
    lr: float = option(
        AUTO,
        "learning rate of the latents, in place of lr_img (auto: the value of lr_img)",
        minimum=0,
        later=True,
        sparse=True,
    )


def rate(values: Mapping[str, Any]) -> Any:
    """Return ``latent.lr`` where it is 'auto': ``lr_img``, and 'auto' without a prior."""
    return AUTO if values["latent.prior"] == NONE else values["lr_img"]


def idle(values: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the keys without effect: (why, what to do) by name. See ``Spec.idle``."""
    if "latent.prior" not in values:
        return {}
    if values["latent.prior"] == NONE:
        why = "pixels are learned, at lr_img"
        return {"latent.lr": (why, "leave it out, or --config.latent.prior=PATH with it")}
    why = f"latents are learned, of {values['latent.prior']}"
    return {"lr_img": (why, "--config.latent.lr in its place")}
