"""Keys of the methods that squeeze a dataset into nets, recover images from these and relabel them.

Facts behind the defaults: each method's page under docs/methods.
"""

from __future__ import annotations

from jdd.config.keys import COMMON
from jdd.config.schema import AUTO, Key, Strings

# Squeeze: nets that are trained on the whole dataset, the teachers.
SQUEEZE: dict[str, Key] = {
    "squeeze.nets": Key(
        Strings, ("ResNet18BN",), "teachers: nets trained on the real images, NET or NET:WIDTH"
    ),
    "squeeze.width": Key(
        int, 0, "channels of the teachers' first block (0: each net's own)", minimum=0
    ),
    "squeeze.epochs": Key(int, AUTO, "epochs on the real images", auto=True, minimum=1),
    "squeeze.optimizer": Key(str, "sgd", "optimiser", choices=("sgd", "adam"), later=True),
    "squeeze.lr": Key(float, AUTO, "learning rate at first", auto=True, above=0),
    "squeeze.momentum": Key(float, 0.9, "momentum of SGD", minimum=0, maximum=1),
    "squeeze.weight_decay": Key(float, AUTO, "weight decay", auto=True, minimum=0),
    "squeeze.batch": Key(int, AUTO, "real images a step", auto=True, minimum=1),
    "squeeze.accumulate": Key(
        int, 1, "parts that a step's images are cut into; batch norm sees one at a time", minimum=1,
        later=True,
    ),
    "squeeze.schedule": Key(
        str, AUTO, "the rate falls to 0 by a cosine, or is constant", auto=True,
        choices=("cosine", "constant"),
    ),
    "squeeze.warmup": Key(int, AUTO, "epochs in which the rate rises", auto=True, minimum=0),
    "squeeze.augment": Key(
        str, AUTO, "of the real images: pad (shifted crop), rrc (resized crop), flip, by '_'; none",
        auto=True,
    ),
    "squeeze.dir": Key(str, "", "where the teachers lie ('': squeeze/ in the workdir)"),
    "squeeze.seed": Key(int, 0, "seed of the teachers, apart from the run's", minimum=0),
}  # fmt: skip

# Relabel: what the teachers say of every view that a student will see.
RELABEL: dict[str, Key] = {
    "relabel.mode": Key(
        str, "views", "labels of each view, stored (views) or given while students learn (online); "
        "of each image: one (static), or one a place (map)",
        choices=("views", "static", "map", "online"),
    ),
    "relabel.crop": Key(
        str, AUTO, "crop of a view: resized (RandomResizedCrop), padded, none", auto=True,
        choices=("resized", "padded", "none"),
    ),
    "relabel.min_scale": Key(
        float, AUTO, "smallest area of a resized crop", auto=True, minimum=0.01, maximum=1
    ),
    "relabel.flip": Key(float, AUTO, "chance of a mirrored view", auto=True, minimum=0, maximum=1),
    "relabel.shuffle": Key(
        int, 1, "cells a side that are shuffled before the crop (RDED; 1: none)", minimum=1
    ),
    "relabel.mix": Key(
        str, AUTO, "two views in one", choices=("none", "cutmix", "mixup"), auto=True
    ),
    "relabel.alpha": Key(
        float, AUTO, "alpha of the mix's Beta(alpha, alpha)", auto=True, minimum=0.01
    ),
    "relabel.bn": Key(
        str, AUTO, "statistics of the teachers' batch norm: as trained, or the batch's own",
        choices=("eval", "batch"), auto=True,
    ),
    "relabel.combine": Key(
        str, "mean", "of several teachers' logits; equal_norm: scaled to one length first",
        choices=("mean", "equal_norm"),
    ),
    "relabel.form": Key(
        str, "logits", "how labels are stored (docs/labels.md)",
        choices=("logits", "topk_marginal", "topk_renormalised", "smoothing", "hard"),
    ),
    "relabel.k": Key(
        int, 5, "classes kept of a label, for the topk forms; at each place of a map", minimum=1
    ),
}  # fmt: skip

# Post-training: how a student learns from them. Epochs, batch, rate and nets are eval's.
POST: dict[str, Key] = {
    "post.optimizer": Key(str, AUTO, "optimiser", choices=("adamw", "sgd"), auto=True),
    "post.momentum": Key(float, 0.9, "momentum of SGD", minimum=0, maximum=1),
    "post.weight_decay": Key(float, AUTO, "weight decay", auto=True, minimum=0),
    "post.decay": Key(
        str, AUTO, "what decays: all weights, or matrices (no biases, no norms)",
        choices=("all", "matrices"), auto=True,
    ),
    "post.stretch": Key(
        float, AUTO, "the cosine's length over the training's: 1 ends at 0, 2 at half", auto=True,
        minimum=1,
    ),
    "post.warmup": Key(int, AUTO, "epochs in which the rate rises", auto=True, minimum=0),
    "post.loss": Key(
        str, AUTO, "kl, kl_squared (times T^2), mse_gt (with the image's own class), hard",
        choices=("kl", "kl_squared", "mse_gt", "hard"), auto=True,
    ),
    "post.temperature": Key(float, AUTO, "T of the loss", auto=True, minimum=0.01),
    "post.ce_weight": Key(float, AUTO, "weight of the own class in mse_gt", auto=True, minimum=0),
    "post.accumulate": Key(
        int, AUTO, "parts that a student's step is cut into; batch norm sees one at a time",
        auto=True, minimum=1,
    ),
}  # fmt: skip

# Recover: images that the teachers' statistics make.
RECOVER: dict[str, Key] = {
    "lr_img": Key(float, AUTO, "learning rate of the images (Adam)", auto=True, minimum=0),
    "pix_init": Key(
        str, "noise", "images start as N(0, 1), as real ones, or as real crops (patch) that the "
        "first teacher finds neither easy nor hard", choices=("noise", "real", "patch"),
    ),
    "r_bn": Key(float, AUTO, "weight of the batch-norm statistics", auto=True, minimum=0),
    "first_bn": Key(float, 10.0, "weight of the first layer's among them", minimum=0),
    "crop": Key(
        str, AUTO, "crop of the images in a step: resized, padded, none", auto=True,
        choices=("resized", "padded", "none"),
    ),
    "min_scale": Key(
        float, AUTO, "smallest area of a resized crop", auto=True, minimum=0.01, maximum=1
    ),
    "flip": Key(float, AUTO, "chance that a step's images are mirrored", auto=True, minimum=0,
                maximum=1),
    "roll": Key(int, AUTO, "largest circular shift in a step, in pixels", auto=True, minimum=0),
    "image_batch": Key(int, 100, "images recovered together, at most", minimum=1),
    "class_images": Key(
        int, AUTO, "of one class in such a batch, at most", auto=True, minimum=1
    ),
    "batches_at_once": Key(
        int, 0, "such batches in work at a time (0: as many as have image_batch images in all for "
        "each device, on a CPU one a core); fewer need less memory",
        resumable=True, minimum=0,
    ),
}  # fmt: skip

# What both kinds of them share: images that are recovered, and patches that are chosen.
_OWN = {
    "net.name": COMMON["net.name"]._replace(default="ResNet18BN", help="net of the students"),
    "nets": COMMON["nets"]._replace(default=("ResNet18BN",)),
    "eval.lr": COMMON["eval.lr"]._replace(help="learning rate of the students at first"),
    "eval.batch": COMMON["eval.batch"]._replace(default=AUTO, auto=True),
    # A schedule over all steps: more of them would be another run.
    "steps": COMMON["steps"]._replace(resumable=False),
    # Labels of views come after the images: there is no accuracy on the way.
    "eval.curve": COMMON["eval.curve"]._replace(default=0),
    "baselines.random": COMMON["baselines.random"]._replace(default=3),
    "baselines.hard": Key(
        bool, True, "the same views with hard labels, of the set and of random images",
        resumable=True,
    ),
    "quantise": Key(
        str, AUTO, "images become 8-bit before they are labelled: round, truncate, jpeg, or none",
        choices=("none", "round", "truncate", "jpeg"), auto=True,
    ),
}  # fmt: skip
DECOUPLED = _OWN | SQUEEZE | RELABEL | POST
