"""LoRS: synthetic image-text pairs with a learned low-rank similarity (Xu et al., ICML 2024).

    python -m jdd.main --config=configs/lors.py:digits_captions,pairs=20
    python -m jdd.main --config=lors:flickr8k,pairs=100 --config.data.path=flickr8k_64.zip

The first: about a minute a seed on 2 busy cores, seeds 0 to 2: mean recall 50.1 ± 5.0 % over 15
nets (random pairs in the same towers, 5 draws: 33.8 ± 2.7 %). The second: 13 minutes on 2 busy
cores, mean recall 1.4 ± 0.1 % over 5 nets (random pairs 0.7 ± 0.2 %, all pairs 3.1 %).
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "lors"})
