"""CIFAR-10N on CIFAR-10's own images: what is distilled from labels that people got wrong.

    python -m jdd.main --mode=study --config=docs/examples/study_cifar10n.py

Needs ``cifar10.npz`` (the dataset) and ``cifar10n_labels.npz`` (Wei et al., ICLR 2022) in the
current folder. Shortened to fit a laptop: all 50,000 images at 16 x 16 pixels, a ConvNet of width
32, hundreds of steps. The figures compare labels with one another, not with published cells.
"""

LABELS = ("", "aggre_label", "random_label1", "worse_label")
MTT = {
    "config": "mtt:cifar10",
    "steps": 300,
    "syn_steps": 20,
    "expert_epochs": 2,
    "max_start_epoch": 2,
    "lr_img": 300.0,
    "experts.count": 2,
    "experts.epochs": 4,
    "data.zca": "none",
}
DATM = {
    **MTT,
    "config": "datm:cifar10",
    "experts.sam_rho": 0.0,
    "experts.sam_alpha": 0.0,
    "current_max_start_epoch": 1,
    "expansion_end": 200,
    "batch_syn": 0,
    "lr_y": 2.0,
}
METHODS = {
    "random": {"config": "random:cifar10", "baselines.full": True, "baselines.full_epochs": 5},
    "herding": {"config": "herding:cifar10", "experts.epochs": 5},
    "dm": {"config": "dm:cifar10", "steps": 500, "batch_real": 64},
    "dc": {"config": "dc:cifar10", "steps": 200, "batch_real": 64, "pix_init": "real"},
    "dsa": {"config": "dsa:cifar10", "steps": 200, "batch_real": 64},
    "mtt": MTT,
    "mtt_zca": {**MTT, "data.zca": "kornia"},
    "datm": DATM,
    "sre2l": {
        "config": "sre2l:cifar10",
        "net.name": "ConvNetBN",
        "nets": "ConvNetBN",
        "squeeze.nets": "ConvNetBN",
        "squeeze.width": 32,
        "squeeze.epochs": 5,
        "steps": 200,
    },
}


EVERY = ("random", "herding", "dm", "dc", "mtt")  # with every kind of label
LARGER = ("random", "dm", "mtt")  # with ten images a class too


def cells():
    """Yield one image a class by all methods, ten by some; with clean and the worst labels."""
    for name, method in METHODS.items():
        for label in LABELS if name in EVERY else (LABELS[0], LABELS[-1]):
            yield _cell(method, 1, label)
    for name in LARGER:
        for label in (LABELS[0], LABELS[-1]):
            yield _cell(METHODS[name], 10, label)


def _cell(method, ipc, label):
    noisy = f"cifar10n_labels.npz:{label}" if label else ""
    return {**method, "ipc": ipc, "data.labels": noisy}


def get_study():
    """Return the study."""
    return {
        "base": {
            "data.path": "cifar10.npz",
            "data.size": 16,
            "net.width": 32,
            "eval": {"n": 5, "epochs": 300, "curve": 0},
            "baselines": {"random": 0, "full": False},
        },
        "cells": list(cells()),
        "rows": ["ipc", "config", "data.zca"],
        "columns": ["data.labels"],
        "metric": ["accuracy", "wrong_labels"],
    }
