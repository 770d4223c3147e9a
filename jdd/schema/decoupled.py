"""Keys of the decoupled methods: squeeze, recover (or select) and relabel.

The sources of the defaults are on each method's page under docs/methods.
"""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.common import Baselines, Common, Eval, Net
from jdd.schema.key import AUTO, group, like, option

MAGNITUDE = 9  # of RandAugment


@dataclass(frozen=True)
class Squeeze:
    """Teachers: nets trained on the whole dataset."""

    nets: tuple[str, ...] = option(
        ("ResNet18BN",), "teachers: nets trained on the real images, NET, NET:WIDTH or NET:dDEPTH"
    )
    width: int = option(0, "channels of the teachers' first block (0: each net's own)", minimum=0)
    epochs: int = option(AUTO, "epochs on the real images", minimum=1)
    optimizer: str = option("sgd", "optimiser", choices=("sgd", "adam"), later=True)
    lr: float = option(AUTO, "learning rate at first", above=0)
    momentum: float = option(0.9, "momentum of SGD", minimum=0, maximum=1)
    weight_decay: float = option(AUTO, "weight decay", minimum=0)
    batch: int = option(AUTO, "real images per step", minimum=1)
    accumulate: int = option(
        1,
        "parts that a step's images are cut into; batch norm sees one at a time",
        minimum=1,
        later=True,
    )
    schedule: str = option(
        AUTO,
        "the rate falls to 0 by a cosine, or is constant",
        choices=("cosine", "constant"),
    )
    warmup: int = option(AUTO, "epochs in which the rate rises", minimum=0)
    augment: str = option(
        AUTO,
        "of the real images: pad (shifted crop), rrc (resized crop), flip, by '_'; none",
    )
    dir: str = option("", "where the teachers lie ('': squeeze/ in the workdir)")
    seed: int = option(0, "seed of the teachers, apart from the run's", minimum=0)
    balanced: bool = option(
        False,
        "an epoch of the teachers has as many images of each class: small classes several times",
        later=True,
        sparse=True,
    )


@dataclass(frozen=True)
class Relabel:
    """Soft labels of the teachers for every view of a student's training."""

    mode: str = option(
        "views",
        "labels of each view, stored (views) or given while students learn (online); "
        "of each image: one (static), or one per place (map)",
        choices=("views", "static", "map", "online"),
    )
    crop: str = option(
        AUTO,
        "crop of a view: resized (RandomResizedCrop), padded, none",
        choices=("resized", "padded", "none"),
    )
    min_scale: float = option(AUTO, "smallest area of a resized crop", minimum=0.01, maximum=1)
    flip: float = option(AUTO, "probability of a mirrored view", minimum=0, maximum=1)
    shuffle: int = option(
        1, "cells per side that are shuffled before the crop (RDED; 1: none)", minimum=1
    )
    mix: str = option(AUTO, "two views in one", choices=("none", "cutmix", "mixup"))
    alpha: float = option(AUTO, "alpha of the mix's Beta(alpha, alpha)", minimum=0.01)
    randaugment: int = option(
        0,
        "RandAugment before the crop: operations on each image of a view (published: 2; 0: none)",
        minimum=0,
        later=True,
        sparse=True,
    )
    magnitude: int = option(
        MAGNITUDE,
        "strength of these operations, of 30",
        minimum=0,
        maximum=30,
        later=True,
        sparse=True,
    )
    bn: str = option(
        AUTO,
        "statistics of the teachers' batch norm: as trained, or the batch's own",
        choices=("eval", "batch"),
    )
    combine: str = option(
        "mean",
        "of several teachers' logits; equal_norm: scaled to one length first",
        choices=("mean", "equal_norm"),
    )
    form: str = option(
        "logits",
        "how labels are stored (docs/labels.md)",
        choices=("logits", "topk_marginal", "topk_renormalised", "smoothing", "hard"),
    )
    k: int = option(
        5, "classes stored per label, for the topk forms; at each place of a map", minimum=1
    )


@dataclass(frozen=True)
class Post:
    """Training of a student on these labels; epochs, batch, rate and nets are eval's."""

    optimizer: str = option(
        AUTO,
        "optimiser (muon: of matrices, convolutions' among them, and nadamw of other weights)",
        choices=("adamw", "sgd", "muon"),
    )
    momentum: float = option(0.9, "momentum of SGD", minimum=0, maximum=1)
    weight_decay: float = option(AUTO, "weight decay", minimum=0)
    decay: str = option(
        AUTO,
        "what decays: all weights, or matrices (no biases, no norms)",
        choices=("all", "matrices"),
    )
    stretch: float = option(
        AUTO,
        "the cosine's length over the training's: 1 ends at 0, 2 at half",
        minimum=1,
    )
    warmup: int = option(AUTO, "epochs in which the rate rises", minimum=0)
    loss: str = option(
        AUTO,
        "kl, kl_squared (times T^2), mse_gt (with the image's own class), hard",
        choices=("kl", "kl_squared", "mse_gt", "hard"),
    )
    temperature: float = option(AUTO, "T of the loss", minimum=0.01)
    ce_weight: float = option(AUTO, "weight of the own class in mse_gt", minimum=0)
    accumulate: int = option(
        AUTO,
        "parts that a student's step is cut into; batch norm sees one at a time",
        minimum=1,
    )
    irg_edges: float = option(
        0.0,
        "IRG: weight of the distances between a batch's images, the student's against the "
        "teachers', which then run in the student's step (published: 0.005; 0: off)",
        minimum=0,
        later=True,
        sparse=True,
    )
    irg_transformations: float = option(
        0.0,
        "IRG: weight of how far each image moves within a stage, student against teachers "
        "(published: 0.005; 0: off)",
        minimum=0,
        later=True,
        sparse=True,
    )
    irg_vertices: float = option(
        0.0,
        "IRG: weight of the features themselves, student against teachers (0: off)",
        minimum=0,
        later=True,
        sparse=True,
    )
    ref_bugs: bool = option(
        False,
        "IRG: edges have half their derivative, as in the authors' code",
        later=True,
        sparse=True,
    )


@dataclass(frozen=True)
class StudentNet(Net):
    """The net of the students."""

    name: str = like(Net, "name", default="ResNet18BN", help="net of the students")


@dataclass(frozen=True)
class StudentEval(Eval):
    """Training of students; labels are made after the images, so there is no accuracy before."""

    batch: int = like(Eval, "batch", default=AUTO)
    lr: float = like(Eval, "lr", help="learning rate of the students at first")
    curve: int = like(Eval, "curve", default=0)


@dataclass(frozen=True)
class HardBaselines(Baselines):
    """Baselines that the set is compared with, hard labels among them."""

    random: int = like(Baselines, "random", default=3)
    hard: bool = option(
        True, "the same views with hard labels, of the set and of random images", resumable=True
    )


@dataclass(frozen=True)
class Decoupled(Common):
    """Keys of the methods that relabel: recovered images (SRe2L) and selected patches (RDED)."""

    nets: tuple[str, ...] = like(
        Common, "nets", default=AUTO, help="nets trained on the distilled set (auto: net.name): "
        "names, all, or a paper's own (dc, dm, mtt)",
    )  # fmt: skip
    # The schedule spans all steps: with more of them it would be another run.
    steps: int = like(Common, "steps", resumable=False)
    net: StudentNet = group(StudentNet)
    eval: StudentEval = group(StudentEval)
    baselines: HardBaselines = group(HardBaselines)
    quantise: str = option(
        AUTO,
        "images become 8-bit before they are labelled: round, truncate, jpeg, or none",
        choices=("none", "round", "truncate", "jpeg"),
    )
    squeeze: Squeeze = group(Squeeze)
    relabel: Relabel = group(Relabel)
    post: Post = group(Post)


@dataclass(frozen=True)
class Recover(Decoupled):
    """Keys of the methods that recover images from the teachers' statistics."""

    lr_img: float = option(AUTO, "learning rate of the images (Adam)", minimum=0)
    pix_init: str = option(
        "noise",
        "images start as N(0, 1), as real ones, or as real crops (patch) that the "
        "first teacher finds neither easy nor hard",
        choices=("noise", "real", "patch"),
    )
    r_bn: float = option(AUTO, "weight of the batch-norm statistics", minimum=0)
    first_bn: float = option(10.0, "weight of the first layer's among them", minimum=0)
    crop: str = option(
        AUTO,
        "crop of the images in a step: resized, padded, none",
        choices=("resized", "padded", "none"),
    )
    min_scale: float = option(AUTO, "smallest area of a resized crop", minimum=0.01, maximum=1)
    flip: float = option(
        AUTO, "probability that a step's images are mirrored", minimum=0, maximum=1
    )
    roll: int = option(AUTO, "largest circular shift in a step, in pixels", minimum=0)
    image_batch: int = option(100, "images recovered together, at most", minimum=1)
    class_images: int = option(AUTO, "of one class in such a batch, at most", minimum=1)
    batches_at_once: int = option(
        0,
        "such batches optimised at a time (0: as many as have image_batch images in all for "
        "each device, on a CPU one per core); fewer need less memory",
        resumable=True,
        minimum=0,
    )


@dataclass(frozen=True)
class Matched(Recover):
    """Keys of the methods that match statistics of convolutions too (G-VBSM, EDC)."""

    patch: int = option(
        AUTO,
        "side of the patches of convolutions' inputs, in pixels",
        minimum=1,
    )
    ema: float = option(
        AUTO, "weight of the old value in the moving averages", minimum=0, maximum=1
    )
    drop: float = option(
        AUTO,
        "probability that a step omits a convolution's statistics",
        minimum=0,
        maximum=1,
    )
