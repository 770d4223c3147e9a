"""NCFM next to DM on CIFAR-10 in about equal time: factor 1 and 2, sampling net on and off.

    python -m jdd.main --mode=study --config=docs/examples/study_cifar10_ncfm.py

Needs ``cifar10.npz``. Shortened to fit a laptop: 16 x 16 pixels, a ConvNet of width 32, three nets
of ten epochs in NCFM's pool, 400 epochs of each method's own evaluation. The column ``seconds`` has
the time of each cell, experts included where the cell trained them.
"""

NCFM = {
    "config": "ncfm:cifar10",
    "experts.count": 3,
    "experts.epochs": 10,
    "batch_real": 256,
    "num_freqs": 1024,
    "steps": 2000,
}
CELLS = (
    {"config": "dm:cifar10", "steps": 1000, "batch_real": 64},
    {**NCFM, "factor": 1, "sampling_net": False},
    {**NCFM, "factor": 2, "sampling_net": False},
    {**NCFM, "factor": 2, "sampling_net": True},
)


def get_study():
    """Return the study."""
    return {
        "base": {
            "data.path": "cifar10.npz",
            "data.size": 16,
            "net.width": 32,
            "eval": {"n": 3, "epochs": 400, "curve": 2},
            "baselines": {"random": 1, "full": False},
        },
        "cells": [{**cell, "ipc": ipc} for ipc in (1, 10) for cell in CELLS],
        "rows": ["ipc", "config", "factor", "sampling_net"],
        "columns": [],
        "metric": ["accuracy", "baselines.random", "seconds"],
    }
