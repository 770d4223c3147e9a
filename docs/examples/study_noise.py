"""Noisy labels on the digits: what is distilled from them, next to all of them and to random ones.

    python -m jdd.main --mode=study --config=docs/examples/study_noise.py

Of 40 % of the training images the label is wrong: at random (symmetric), or as people mistook
CIFAR-10's images (matrix; the rows of ``worse_label`` of CIFAR-10N, Wei et al., ICLR 2022). The
table has the accuracy on clean test images, that of random images of the same size and of all
training images with the same labels, and how many labels of chosen images are wrong; the columns
``data.noise=none`` are distilled from clean labels.
"""

from pathlib import Path

WORSE = Path(__file__).with_name("cifar10n_worse.csv")
LABELS = (
    {"data.noise": "none", "data.noise_rate": 0.0, "data.noise_matrix": ""},
    {"data.noise": "symmetric", "data.noise_rate": 0.4, "data.noise_matrix": ""},
    {"data.noise": "matrix", "data.noise_rate": 0.0, "data.noise_matrix": str(WORSE)},
)
METHODS = (
    {"config": "random:digits"},
    {"config": "herding:digits"},
    {"config": "kcenter:digits"},
    {"config": "dm:digits"},
    {"config": "dc:digits"},
    {"config": "mtt:digits"},
    {"config": "dsa:digits"},
    {"config": "datm:digits"},
    {"config": "sre2l:digits"},
)


def get_study():
    """Return the study."""
    return {
        "base": {
            "net.width": 32,
            "eval": {"n": 5, "curve": 0},
            "baselines": {"random": 5, "full": True},
        },
        "cells": [
            {**method, "ipc": ipc, **labels}
            for method in METHODS
            for ipc in (1, 10)
            for labels in LABELS
        ],
        "rows": ["config", "ipc"],
        "columns": ["data.noise"],
        "metric": ["accuracy", "baselines.random", "baselines.full", "wrong_labels"],
    }
