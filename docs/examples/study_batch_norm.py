"""Batch norm: statistics as a term of MTT's loss, and four ways of testing such nets.

    python -m jdd.main --mode=study --config=docs/examples/study_batch_norm.py

On the digits: sets distilled with ConvNetBN by trajectories alone, by both terms and by statistics
alone, at two weights; three nets trained on each, two of which have batch norm and are tested by
running statistics, by those of the set, of real training images, and of test batches.
``study_cifar10_batch_norm.py`` has four of these rows on CIFAR-10.
"""

# bn.param 0 leaves trajectories out, bn.weight 0 statistics; whose statistics: bn.source.
TERMS = (
    {"bn.weight": 0.0, "bn.param": 1.0, "bn.source": "checkpoint"},
    {"bn.weight": 0.1, "bn.param": 1.0, "bn.source": "checkpoint"},
    {"bn.weight": 1.0, "bn.param": 1.0, "bn.source": "checkpoint"},
    {"bn.weight": 0.1, "bn.param": 0.0, "bn.source": "checkpoint"},
    {"bn.weight": 1.0, "bn.param": 0.0, "bn.source": "checkpoint"},
    {"bn.weight": 0.1, "bn.param": 1.0, "bn.source": "target"},
    {"bn.weight": 1.0, "bn.param": 1.0, "bn.source": "target"},
    {"bn.weight": 0.1, "bn.param": 0.0, "bn.source": "target"},
    {"bn.weight": 1.0, "bn.param": 0.0, "bn.source": "target"},
)
WAYS = ("running", "set", "real", "batch")


def get_study():
    """Return the study."""
    by_way = [f"bn_{way}.{net}" for net in ("ConvNetBN", "ResNet18BN") for way in WAYS]
    return {
        "base": {
            "config": "mtt:digits",
            "ipc": 10,
            "net.name": "ConvNetBN",
            "net.width": 32,
            "nets": "ConvNetBN,ConvNet,ResNet18BN",
            "steps": 150,
            "eval": {"n": 2, "curve": 0, "steps": 150, "batch": 32, "test_norm": ",".join(WAYS)},
            "baselines": {"random": 2, "full": False},
        },
        "cells": list(TERMS),
        "rows": ["bn.source", "bn.weight", "bn.param"],
        "metric": ["accuracy.ConvNet", *by_way],
    }
