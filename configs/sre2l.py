"""SRe2L: squeeze, recover, relabel (Yin, Xing & Shen, NeurIPS 2023).

    python -m jdd.main --config=configs/sre2l.py:cifar100,ipc=50 --workdir=runs/sre2l
    python -m jdd.main --config=configs/sre2l.py:digits,ipc=10
    python -m jdd.main --mode=estimate --config=configs/sre2l.py:imagenet,ipc=10

Teachers (squeeze.nets) are trained on the real images; images are recovered from the first one's
weights and batch-norm statistics, in batches of image_batch; every view that a student will be
shown is labelled (relabel.*) and students learn from these labels (post.*, eval.*). Images are
8-bit before they are labelled. steps are those of one batch of images.

Measured runs, one of the CIFAR-100 script's settings on CIFAR-10's JPEG copy among them:
docs/results.md.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "sre2l"})
