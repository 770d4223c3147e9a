"""Sets of the digits by every method, one image a class, measured by one protocol.

    python -m jdd.main --mode=study --config=docs/examples/study_protocol.py

Each set's own accuracy stands next to that by ``eval.protocol=common-small``: the same teacher,
views, students and number of epochs for all. The study's ``compare.html`` ranks them.
"""

METHODS = (
    "random", "herding", "kcenter", "el2n", "dd", "dc", "dsa", "dm", "mtt", "tesla", "ftd", "datm",
    "frepo", "ratbptt", "sre2l", "rded", "gvbsm", "cda", "edc", "d4m", "ncfm",
)  # fmt: skip


def get_study():
    """Return the study."""
    return {
        "base": {
            "ipc": 1,
            "eval": {"n": 3, "curve": 0, "protocol": "common-small"},
            "baselines": {"random": 3, "full": False},
        },
        "cells": [{"config": f"{name}:digits"} for name in METHODS],
        "rows": ["config"],
        "metric": ["accuracy", "baselines.random", "protocol.soft", "protocol.hard"],
    }
