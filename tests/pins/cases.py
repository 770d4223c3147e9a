"""The pinned runs: one of each method, on a toy dataset, by the command line alone.

A command line and the files that it leaves are what a restructuring may not change, so nothing here
imports jdd. Every run has a folder of its own and names its files relative to it: the command is in
the recipe of a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WORKDIR = "run"  # of every run, in the folder of the run

Keys = dict[str, Any]


class Case(NamedTuple):
    """A run: its stages, one command each, and the keys of all its commands.

    ``rounding`` is how far the set may be, in parts of its largest entry, where bits differ.
    """

    modes: tuple[str, ...]
    keys: Keys
    rounding: float = 1e-4


def toy(path: Path) -> None:
    """Write 60 training and 30 test images, 8x8x3, of three classes bright in different places.

    Whole numbers alone: the same bytes on every machine.
    """
    arrays = {}
    for part, n, seed in (("train", 60, 0), ("test", 30, 1)):
        labels = np.arange(n) % 3
        images = np.random.default_rng(seed).integers(50, 131, (n, 8, 8, 3))
        for c in range(3):
            images[labels == c, c * 2 : c * 2 + 3, c : c + 4, c] += 90
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
    np.savez(path, **arrays)


BASE: Keys = {
    "data.path": "toy.npz",
    "net.width": 4,
    "net.depth": 2,
    "data.dsa": "none",
    "steps": 4,
    "eval.epochs": 2,
    "eval.n": 1,
    "eval.curve": 0,
    "baselines.random": 1,
    "baselines.full_epochs": 1,
    "checkpoint_every": 2,
    "log_every": 1,
    "devices": 1,
    "progress": False,
}

# Nets trained on the real images, with weight decay and two of them in a group.
EXPERTS: Keys = {
    "experts.count": 2,
    "experts.group": 2,
    "experts.epochs": 2,
    "experts.batch": 16,
    "experts.lr": 0.1,
    "experts.weight_decay": 5e-4,
}

TRAJECTORY: Keys = EXPERTS | {
    "syn_steps": 3,
    "expert_epochs": 1,
    "max_start_epoch": 2,
    "batch_syn": 2,
    "lr_img": 10.0,
    "lr_lr": 1e-4,
    "lr_student": 0.05,
    "segments": 2,
    "data.dsa": "crop_rotate",
}

CHOSEN: Keys = EXPERTS | {
    "steps": "auto",
    "ipc": 2,
    "experts.epochs": 1,
    "net.name": "MLP",
    "nets": "MLP",
}

# Keys without effect on a method that trains no experts, which refuses them.
UNUSED = ("experts.count", "experts.group", "experts.epochs")

CLASSWISE: Keys = {"ipc": 2, "batch_real": 6, "lr_img": 0.2}

# Three parts, one of each image of all classes; teachers just good enough to be taken.
RECOVERED: Keys = {
    "ipc": 3,
    "net.name": "ConvNetBN",
    "nets": "ConvNetBN",
    "squeeze.nets": "ConvNetBN",
    "squeeze.width": 4,
    "squeeze.epochs": 8,
    "squeeze.batch": 10,
    "squeeze.lr": 0.1,
    "image_batch": 3,
    "class_images": 1,
    "batches_at_once": 1,
    "roll": 1,
    "lr_img": 0.1,
    "quantise": "round",
    "relabel.mix": "cutmix",
    "relabel.bn": "eval",
    "eval.batch": 4,
    "baselines.full": False,
}

DISTIL = ("distill",)
MATCH = ("experts", "distill")
RECOVER = ("squeeze", "recover", "relabel")

LEVEL = 1e-2  # of a picture of 8 bits: rounding before it decides which

CASES: dict[str, Case] = {
    # With every later stage, so that what names their outputs is pinned too.
    "random": Case(("all",), {n: v for n, v in CHOSEN.items() if n not in UNUSED} | {"runs": 2}),
    "herding": Case(MATCH, CHOSEN),
    "kcenter": Case(MATCH, CHOSEN),
    "dd": Case(
        DISTIL,
        {
            "inits": 2,
            "distill_epochs": 3,
            "lr_img": 0.05,
            "lr_lr": 0.05,
            "batch_real": 16,
        },
    ),
    # Three updates of the images on a net: stopped after two, its weights are in the checkpoint.
    "dc": Case(DISTIL, CLASSWISE | {"outer_loop": 3, "inner_epochs": 1}),
    "dsa": Case(
        DISTIL,
        CLASSWISE
        | {
            "outer_loop": 2,
            "inner_epochs": 1,
            "classes_at_once": 2,
            "data.dsa": "color_crop_cutout_scale_rotate",
        },
    ),
    "dm": Case(DISTIL, CLASSWISE | {"lr_img": 1.0, "runs": 2}),
    "mtt": Case(MATCH, TRAJECTORY | {"pix_init": "noise"}),
    "ftd": Case(MATCH, TRAJECTORY | {"ema": 0.5}),
    "tesla": Case(MATCH, TRAJECTORY | {"teacher_label": True}),
    "datm": Case(
        MATCH,
        TRAJECTORY | {"current_max_start_epoch": 1, "expansion_end": 3, "threshold": 0.0},
    ),
    "frepo": Case(
        DISTIL,
        {
            "batch_real": 60,
            "real_parts": 2,
            "flip": True,
            "lr_img": 0.03,
            "pool_size": 2,
            "pool_steps": 2,
            "lr_pool": 0.01,
            "data.zca": "frepo",
        },
    ),
    "ratbptt": Case(
        DISTIL,
        {
            "inits": 2,
            "unroll_steps": 6,
            "window": 3,
            "window_draw": "step",
            "batch_real": 30,
            "lr_img": 0.005,
            "lr_student": 0.05,
            "learn_labels": True,
            "data.zca": "kip",
        },
    ),
    "sre2l": Case(RECOVER, RECOVERED | {"crop": "none"}, LEVEL),
    "cda": Case(RECOVER, RECOVERED | {"ipc": 1, "crop": "resized", "min_scale": 0.5}, LEVEL),
    "gvbsm": Case(
        RECOVER,
        RECOVERED
        | {
            "ipc": 2,
            "image_batch": 6,
            "class_images": 2,
            "patch": 2,
            "squeeze.nets": "ConvNetBN,ConvNet",
            "post.loss": "kl",
            "relabel.form": "topk_marginal",
            "relabel.k": 2,
        },
        0.1,  # the first steps of Adam move every pixel by lr_img, whatever is left of its slope
    ),
    "rded": Case(
        RECOVER,
        {name: RECOVERED[name] for name in RECOVERED if name.startswith(("squeeze", "eval", "net"))}
        | {
            "ipc": 2,
            "steps": 0,
            "factor": 2,
            "candidates": 6,
            "crops": 3,
            "quantise": "round",
            "baselines.full": False,
        },
        LEVEL,
    ),
}


def commands(name: str) -> Sequence[list[str]]:
    """Return the arguments of a run's commands, in order."""
    case = CASES[name]
    keys = [f"--config.{key}={value}" for key, value in (BASE | case.keys).items()]
    return [
        [f"--config={name}:toy", f"--workdir={WORKDIR}", f"--mode={mode}", *keys]
        for mode in case.modes
    ]
