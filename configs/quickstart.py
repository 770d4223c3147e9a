"""Quick start: MTT on scikit-learn's 8x8 digits, one image a class; nothing to download.

    python -m jdd.main --config=configs/quickstart.py

Time: 44 s on 2 CPU cores, with compilation and the baseline on the full data (10 s). Accuracy:
89.8 +- 0.7 % (n = 5), against 73.0 +- 2.7 % for random real images.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the quick start's config; ``quickstart.py:ipc=2`` changes keys as any config does.

    The settings are MTT's own for digits, ``STARTS`` in ``jdd/specs/mtt.py``.
    """
    return from_arg(
        arg, {"method": "mtt", "data.name": "digits", "eval": {"curve": 4, "curve_n": 2}}
    )
