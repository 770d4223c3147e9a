"""CDA: curriculum data augmentation (Yin & Shen, TMLR 2024).

    python -m jdd.main --config=configs/cda.py:tiny_imagenet,ipc=50 --workdir=runs/cda
    python -m jdd.main --config=configs/cda.py:digits,ipc=10

SRe2L whose smallest crop falls from the whole image to min_scale in the first part (milestone) of
the steps. All keys but these two are SRe2L's.

Measured runs: docs/results.md.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "cda"})
