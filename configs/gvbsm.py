"""G-VBSM: generalised various backbone and statistical matching (Shao et al., CVPR 2024).

    python -m jdd.main --config=configs/gvbsm.py:cifar100,ipc=10 --workdir=runs/gvbsm
    python -m jdd.main --config=configs/gvbsm.py:digits,ipc=10

Several teachers (squeeze.nets) take turns, step by step; images match what their convolutions and
batch norms read of real images, as moving averages (ema), and images of one class are kept apart
(density). Labels are the mean of all teachers' logits. Other keys are SRe2L's.

Measured: digits at IPC 10 in 5 min 27 s on 2 CPU cores that other work shared, 95.3 ± 2.1 % (one
set, five nets; random real images with these labels 95.9 ± 0.4 %). With the published settings: not
yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "gvbsm"})
