"""Keys of the conditional GAN and of the matching phase of DiM."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.key import AUTO, option


@dataclass(frozen=True)
class Gan:
    """The conditional GAN: generator and critic, trained in turn."""

    width: int = option(AUTO, "channels of every layer of generator and critic", minimum=1)
    latent: int = option(
        AUTO, "entries of the latent vector; the first ones, one a class, are the class", minimum=2
    )
    lr: float = option(AUTO, "learning rate of both, by Adam", above=0)
    beta1: float = option(0.0, "Adam's decay of the mean gradient", minimum=0, maximum=0.999)
    beta2: float = option(0.9, "Adam's decay of the squared gradient", minimum=0, maximum=0.9999)
    batch: int = option(
        AUTO, "real images of an update, at most all, and as many generated ones", minimum=2
    )
    parts: int = option(
        1,
        "equal parts of a batch, taken in turn or by several devices; batch norm sees a part",
        minimum=1,
    )
    penalty: float = option(10.0, "weight of the gradient penalty", minimum=0)


@dataclass(frozen=True)
class Match:
    """Matching of generated images to real ones in nets trained meanwhile (DiM)."""

    loss: str = option(
        "logit",
        "what is matched in the net: log probabilities of images paired by class, gradients of its "
        "weights, or mean features of its blocks; none: the GAN is trained on",
        choices=("logit", "gradient", "feature", "none"),
    )
    weight: float = option(AUTO, "weight of the loss (auto: logit 0.01, else 0.001)", minimum=0)
    nets: tuple[str, ...] = option(
        AUTO, "nets of which one is drawn and trained anew each epoch, NET or NET:WIDTH"
    )
    net_steps: int = option(
        AUTO, "steps of the net on real images before each update of the generator", minimum=0
    )
    net_lr: float = option(0.01, "learning rate of the net, by SGD", above=0)
    net_momentum: float = option(0.9, "momentum of the net's SGD", minimum=0, maximum=1)
    net_weight_decay: float = option(5e-4, "weight decay of the net", minimum=0)
    net_augment: str = option(
        "color_crop", "operations on the images that train the net, all in their order, or none"
    )
    augment: str = option(
        "color_crop_cutout",
        "operations on the matched images, one draw for real and generated ones, or none",
    )
    lr: float = option(AUTO, "learning rate of generator and critic while they match", above=0)
    batch: int = option(AUTO, "real images of an update while they match", minimum=2)
