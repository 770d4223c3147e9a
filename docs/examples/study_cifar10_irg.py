"""Relation graphs and EDC on CIFAR-10, narrow: SRe2L and RDED without and with graphs, and EDC.

    python -m jdd.main --mode=study --config=docs/examples/study_cifar10_irg.py

Needs ``cifar10.npz``. Shortened to fit a laptop: 16 x 16 pixels, teacher and student ConvNetBN of
width 32, five epochs of the teacher, 200 steps of recovery, 100 epochs of the students, three
seeds.
"""

ALONE = {"post.loss": "kl_squared", "post.irg_edges": 0.0, "post.irg_transformations": 0.0}
GRAPHS = {**ALONE, "post.irg_edges": 0.005, "post.irg_transformations": 0.005}


def get_study():
    """Return the study."""
    return {
        "base": {
            "data.path": "cifar10.npz",
            "data.size": 16,
            "ipc": 10,
            "net.name": "ConvNetBN",
            "net.width": 32,
            "nets": "ConvNetBN",
            "squeeze": {"nets": "ConvNetBN", "width": 32, "epochs": 5},
            "eval": {"n": 3, "epochs": 100, "curve": 0},
            "baselines": {"random": 1, "full": False},
        },
        "cells": [
            *({"config": "rded:cifar10", **loss} for loss in (ALONE, GRAPHS)),
            *({"config": "sre2l:cifar10", "steps": 200, **loss} for loss in (ALONE, GRAPHS)),
            {"config": "edc:cifar10"},
        ],
        "seeds": [0, 1, 2],
        "rows": ["config", "post.irg_edges"],
        "metric": ["accuracy", "baselines.random"],
    }
