"""Three selections of real images at two sizes, and DM at one: 21 runs on the digits, no download.

python -m jdd.main --mode=study --config=docs/examples/study_digits.py
"""


def get_study():
    """Return the grid: methods in the rows, images per class in the columns."""
    return {
        "base": {
            "data.name": "digits",
            "net.width": 32,
            "eval": {"n": 3, "epochs": 100, "curve": 0},
            "baselines": {"random": 0, "full": False},
        },
        "grid": {"method": ["random", "herding", "kcenter"], "ipc": [1, 10]},
        # DM alone has these keys; it is made at one size only.
        "cells": [{"method": "dm", "ipc": 1, "steps": 100, "batch_real": 64}],
        "seeds": [0, 1, 2],
        "rows": ["method"],
        "columns": ["ipc"],
    }
