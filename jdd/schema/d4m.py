"""Keys of D4M: its priors, prototypes and guides."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.generative import Sampling
from jdd.schema.key import AUTO, like, option


@dataclass(frozen=True)
class FromPrototypes(Sampling):
    """Sampling that starts from noised prototypes; its settings follow from the prior."""

    steps: int = like(Sampling, "steps", default=AUTO)
    guidance: float = like(Sampling, "guidance", default=AUTO)
    strength: float = like(
        Sampling, "strength", default=AUTO,
        help="share of the steps that a prototype is noised by (0: prototypes are decoded)",
    )  # fmt: skip
    part: int = like(Sampling, "part", default=AUTO)


@dataclass(frozen=True)
class Guide:
    """Shifts of latents while they are denoised (``generative/guidance.py``)."""

    mode: float = option(0.0, "pull to an image's own prototype (0: off)", minimum=0)
    representative: float = option(
        0.0, "turn towards the least similar prototype of the class (0: off)", minimum=0
    )
    diverse: float = option(
        0.0, "turn away from the most similar image of the class (0: off)", minimum=0
    )
    until: float = option(
        0.5, "guides are off in this last share of the schedule", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class StableDiffusion:
    """Stable Diffusion through diffusers."""

    weights: str = option(
        "",
        "folder of a pipeline, or its name on the hub",
        content="jdd.stages.pipeline_content:digest",
    )
    size: int = option(512, "pixels per side of encoded and generated images", minimum=8)
    scheduler: str = option("pndm", "scheduler of the denoising", choices=("pndm", "ddim"))
    prompt: str = option("{}", "prompt, with {} for the name of the class")
    negative: str = option("cartoon, anime, painting", "negative prompt")
