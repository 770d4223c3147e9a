"""Quick start: MTT on scikit-learn's 8x8 digits, one image a class; nothing to download.

    python -m jdd.main --config=configs/quickstart.py

Time: 86 s on 2 CPU cores, compilation included, but for the baseline on the full data. Accuracy:
90.4 +- 1.0 % (n = 5), against 73.4 +- 2.3 % for random real images.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the quick start's config; ``quickstart.py:ipc=2`` changes keys as any config does."""
    return from_arg(
        arg,
        {
            "method": "mtt",
            "ipc": 1,
            "steps": 250,
            "syn_steps": 15,
            "expert_epochs": 2,
            "max_start_epoch": 5,
            "lr_img": 20.0,
            "lr_lr": 1e-6,
            "lr_student": 0.02,
            "data": {"name": "digits"},
            "net": {"width": 32},
            "experts": {"count": 10, "group": 10, "lr": 0.1},
            "eval": {"curve": 1, "curve_n": 5},
        },
    )
