"""LoRS: synthetic image-text pairs with a learned low-rank similarity (Xu et al., ICML 2024).

python -m jdd.main --config=configs/lors.py:digits_captions,pairs=20
python -m jdd.main --config=configs/lors.py:flickr8k,pairs=100 --config.data.path=flickr8k_64.zip
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "lors"})
