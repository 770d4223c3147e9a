"""The clean sets of ``study_cifar10n.py`` by one protocol, ranked on one page.

    python -m jdd.main --mode=study --config=docs/examples/study_cifar10_protocol.py \\
        --workdir=runs/study_cifar10n

In the working directory of that study its sets are read again; elsewhere they are made.
"""

import runpy
from pathlib import Path

CIFAR10N = runpy.run_path(str(Path(__file__).with_name("study_cifar10n.py")))


def get_study():
    """Return the study."""
    base = CIFAR10N["get_study"]()["base"]
    return {
        "base": {**base, "eval": {**base["eval"], "n": 2, "protocol": "common-small"},
                 "baselines": {"random": 2, "full": False}},
        "cells": [
            cell for cell in CIFAR10N["cells"]() if cell["ipc"] == 1 and not cell["data.labels"]
        ],
        "rows": ["config", "data.zca"],
        "metric": ["accuracy", "protocol.soft", "protocol.hard"],
    }  # fmt: skip
