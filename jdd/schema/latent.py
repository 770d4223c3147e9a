"""Keys of latent matching: latents of a trained prior are learned in place of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jdd.schema.key import option

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
        0.0,
        "learning rate of the latents, in place of lr_img (0: the value of lr_img)",
        minimum=0,
        later=True,
        sparse=True,
    )


def idle(values: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the keys without effect: (why, what to do) by name. See ``Spec.idle``."""
    if "latent.prior" not in values:
        return {}
    if values["latent.prior"] == NONE:
        why = "pixels are learned, at lr_img"
        return {"latent.lr": (why, "leave it out, or --config.latent.prior=PATH with it")}
    if not values["latent.lr"]:
        return {}
    why = f"latent.lr={values['latent.lr']:g} is the rate of the latents"
    return {"lr_img": (why, "leave one of them out")}
