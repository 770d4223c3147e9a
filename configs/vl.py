"""VL: synthetic image-text pairs by matching the trajectories of two towers (Wu et al., TMLR 2024).

    python -m jdd.main --config=configs/vl.py:digits_captions,pairs=20

The 8x8 digits with captions derived from their pixels, ``a thin digit three leaning left``; nothing
to download. Recall@1, 5 and 10 both ways is reported next to random pairs and all pairs.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "vl"})
