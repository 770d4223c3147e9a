"""Batch norm on CIFAR-10, narrow: four rows of ``study_batch_norm.py``.

    python -m jdd.main --mode=study --config=docs/examples/study_cifar10_batch_norm.py

Needs ``cifar10.npz``. Shortened to fit a laptop: all 50,000 images at 16 x 16 pixels, three experts
of five epochs, 150 steps. Trajectories alone, with stored statistics at two weights, and with those
measured for the target snapshot.
"""

import runpy
from pathlib import Path

DIGITS = runpy.run_path(str(Path(__file__).with_name("study_batch_norm.py")))
ROWS = (0, 1, 2, 5)


def get_study():
    """Return the study."""
    study = DIGITS["get_study"]()
    ways = [f"bn_{way}.ConvNetBN" for way in DIGITS["WAYS"]]
    return {
        **study,
        "base": {
            **study["base"],
            "config": "mtt:cifar10",
            "data.path": "cifar10.npz",
            "data.size": 16,
            "data.zca": "none",
            "syn_steps": 20,
            "expert_epochs": 2,
            "max_start_epoch": 3,
            "lr_img": 300.0,
            "experts.count": 3,
            "experts.epochs": 5,
            "nets": "ConvNetBN,ConvNet",
        },
        "cells": [DIGITS["TERMS"][row] for row in ROWS],
        "metric": ["accuracy.ConvNet", *ways],
    }
