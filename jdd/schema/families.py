"""Keys of families of methods: those that unroll training, start from a set, or match by class."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.common import Common
from jdd.schema.key import AUTO, group, like, option
from jdd.schema.latent import Latent


@dataclass(frozen=True)
class Unrolled(Common):
    """Keys of the methods that differentiate through training."""

    unroll: str = option(
        "mixed",
        "how the exact meta-gradient is computed",
        choices=("mixed", "remat", "reverse"),
    )


@dataclass(frozen=True)
class Estimated(Unrolled):
    """Keys of the methods whose meta-gradient may be estimated."""

    estimator: str = option(
        "exact",
        "meta-gradient: exact, or of the last steps, or with TESLA's frozen adjoint",
        choices=("exact", "truncated", "tesla"),
    )
    window: int = option(0, "steps that estimator=truncated differentiates through", minimum=0)


@dataclass(frozen=True)
class Start:
    """Keys of the methods whose images may start as another set's."""

    init_set: str = option(
        "",
        "images start as those of this set, a run's folder or distilled.npz, in place of pix_init",
        later=True,
        sparse=True,
    )


@dataclass(frozen=True)
class ClassMatched(Common):
    """Keys of the methods that match per class (DC, DSA, DM)."""

    align_corners: bool = like(Common, "align_corners", default=False)
    pix_init: str = option(AUTO, "images start as real ones or as noise", choices=("real", "noise"))
    lr_img: float = option(AUTO, "learning rate of the images", minimum=0)
    img_momentum: float = option(0.5, "momentum of the images' SGD", minimum=0, maximum=1)
    batch_real: int = option(256, "real images of each class in a step", minimum=1)
    classes_at_once: int = option(
        0,
        "classes in one vmap; fewer need less memory (0: by the devices' own, 1 on a CPU)",
        resumable=True,
        minimum=0,
    )
    init_set: str = like(Start, "init_set")
    latent: Latent = group(Latent)
