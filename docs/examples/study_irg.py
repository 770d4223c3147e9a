"""Relation graphs in the students' loss, and EDC, next to the methods without them.

    python -m jdd.main --mode=study --config=docs/examples/study_irg.py

On the digits, IPC 10, over three seeds of the synthesis. Each method's set is measured by the
squared distance to the teachers' logits, alone and with the graphs' edges and transformations.
The random baseline has the same teachers, labels and training.
"""

ALONE = {"post.loss": "kl_squared", "post.irg_edges": 0.0, "post.irg_transformations": 0.0}
GRAPHS = {**ALONE, "post.irg_edges": 0.005, "post.irg_transformations": 0.005}


def get_study():
    """Return the study."""
    return {
        "base": {
            "ipc": 10,
            "eval": {"n": 3, "curve": 0},
            "baselines": {"random": 1, "full": False},
        },
        "cells": [
            *({"config": f"{name}:digits", **loss}
              for name in ("rded", "sre2l", "gvbsm") for loss in (ALONE, GRAPHS)),
            {"config": "edc:digits"},
        ],
        "seeds": [0, 1, 2],
        "rows": ["config", "post.irg_edges"],
        "metric": ["accuracy", "baselines.random"],
    }  # fmt: skip
