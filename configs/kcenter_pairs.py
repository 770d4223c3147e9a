"""K-center of pairs: real pairs that cover all pairs, by greedy farthest points.

    python -m jdd.main --config=configs/kcenter_pairs.py:digits_captions,pairs=20

Embeddings are those of two towers trained on all pairs, expert 0 after experts.epochs epochs. The
pairs are evaluated as random ones are: configs/random_pairs.py.

About a minute on 2 cores, seed 0: mean recall 22.1 ± 4.0 % over 5 nets (random pairs, 5 draws: 20.8
± 2.3 %).
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "kcenter_pairs"})
