"""Herding of pairs: real pairs whose mean embedding is that of all pairs (Welling 2009).

    python -m jdd.main --config=configs/herding_pairs.py:digits_captions,pairs=20

Embeddings are those of two towers trained on all pairs, expert 0 after experts.epochs epochs. The
pairs are evaluated as random ones are: configs/random_pairs.py.

About a minute on 2 cores, seed 0: mean recall 21.1 ± 1.1 % over 5 nets (random pairs, 5 draws: 20.8
± 2.3 %).
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "herding_pairs"})
