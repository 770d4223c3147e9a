"""CIFAR-10N at full length: the published settings of every method, clean and noisy labels.

    python -m jdd.main --mode=study --config=docs/examples/study_cifar10n_published.py

Needs ``cifar10.npz`` (the dataset), ``cifar10n_labels.npz`` (Wei et al., ICLR 2022) in the current
folder, and days of a GPU: not yet run. ``study_cifar10n.py`` is the same in hours of a CPU.

DATM has the settings published for CIFAR-N: those of its rows for CIFAR-10, experts of alpha 0.3,
and at IPC 10 with the worst labels students of rate 0.001. The average of images over steps that
these settings have is no key of jdd's DATM.
"""

LABELS = ("", "aggre_label", "random_label1", "worse_label")
METHODS = (
    {"config": "mtt:cifar10", "data.zca": "none"},
    {"config": "mtt:cifar10", "data.zca": "kornia"},
    {"config": "dc:cifar10"},
    {"config": "dsa:cifar10"},
    {"config": "dm:cifar10"},
    {"config": "datm:cifar10", "experts.sam_alpha": 0.3},
    {"config": "sre2l:cifar10"},
    {"config": "random:cifar10"},
    {"config": "herding:cifar10"},
)


def _cell(method, ipc, label):
    noisy = f"cifar10n_labels.npz:{label}" if label else ""
    slow = method["config"].startswith("datm") and ipc == 10 and label == "worse_label"
    return {**method, "ipc": ipc, "data.labels": noisy, **({"lr_student": 0.001} if slow else {})}


def get_study():
    """Return the study."""
    return {
        "base": {
            "data.path": "cifar10.npz",
            "eval": {"n": 5, "curve": 0},
            "baselines": {"random": 5, "full": True},
        },
        "cells": [
            _cell(method, ipc, label) for method in METHODS for ipc in (1, 10, 50)
            for label in LABELS
        ],
        "rows": ["ipc", "config", "data.zca"],
        "columns": ["data.labels"],
        "metric": ["accuracy", "baselines.random", "baselines.full", "wrong_labels"],
    }  # fmt: skip
