"""Window policies of RaT-BPTT on the digits, with steps that take about equal time.

    python -m jdd.main --mode=study --config=docs/examples/study_windows.py

A step differentiates through 20 of 60 inner steps (uniform), through 10 to 30 chosen by a plain
training once a pass (at), or through all 60 (whole).
"""

# Steps of about the same time in all: docs/methods/ratbptt.md.
STEPS = {"uniform": 200, "at": 150, "whole": 150}


def get_study():
    """Return the study."""
    return {
        "base": {
            "config": "ratbptt:digits",
            "eval": {"n": 5, "curve": 0},
            "baselines": {"random": 0, "full": False},
        },
        "cells": [{"window_policy": name, "steps": steps} for name, steps in STEPS.items()],
        "seeds": [0, 1, 2],
        "rows": ["window_policy", "steps"],
        "metric": ["accuracy", "seconds"],
    }
