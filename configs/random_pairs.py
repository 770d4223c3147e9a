"""Random real pairs of an image and a caption: the first thing to beat in retrieval.

    python -m jdd.main --config=configs/random_pairs.py:digits_captions,pairs=20

The 8x8 digits with captions derived from their pixels, ``a thin digit three leaning left``; nothing
to download. Two towers are trained on the pairs; recall@1, 5 and 10 both ways is reported, next to
random draws of as many pairs and all pairs.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "random_pairs"})
