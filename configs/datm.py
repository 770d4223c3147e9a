"""DATM: matching trajectories of the right difficulty (Guo et al., ICLR 2024).

    python -m jdd.main --config=configs/datm.py:cifar10,ipc=50 --workdir=runs/datm
    python -m jdd.main --config=configs/datm.py:digits,ipc=1

MTT's loss on FTD's experts; start epochs come from a window that fits the size of the set
(min_start_epoch, max_start_epoch) and may widen as the run goes on (current_max_start_epoch,
expansion_end); labels are learned logits (lr_y); images start as ones that the experts have right.

Experts are trained 100 epochs even where fewer are matched: their last weights give the labels.

Time and accuracy of jdd with these settings in full: not yet run. The authors' accuracies are in
jdd/specs/datm.py; they are the best over evaluations on test data, jdd reports the final step.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "datm"})
