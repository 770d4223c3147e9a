"""Which part of a teacher's training to match where labels are wrong: MTT on the digits.

    python -m jdd.main --mode=study --config=docs/examples/study_noise_start.py

Nets learn the clean majority first and memorise wrong labels later. Matches start below expert
epoch ``max_start_epoch``: few are early, many reach the memorised part. ``compare.html`` shows the
accuracy on clean test images against it, with clean labels and with 40 % of them wrong.
"""

LABELS = (
    {"data.noise": "none", "data.noise_rate": 0.0},
    {"data.noise": "symmetric", "data.noise_rate": 0.4},
)


def get_study():
    """Return the study."""
    return {
        "base": {
            "config": "mtt:digits,ipc=10",
            "eval": {"n": 3, "curve": 0},
            "baselines": {"random": 0, "full": False},
            "experts.epochs": 41,
        },
        "cells": [
            {"max_start_epoch": start, **labels}
            for start in (1, 2, 5, 10, 20, 40)
            for labels in LABELS
        ],
        "rows": ["max_start_epoch"],
        "columns": ["data.noise"],
        "plot": "max_start_epoch",
    }
