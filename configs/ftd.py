"""FTD: trajectory matching on flat expert trajectories (Du et al., CVPR 2023).

    python -m jdd.main --config=configs/ftd.py:cifar10,ipc=10 --workdir=runs/ftd
    python -m jdd.main --config=configs/ftd.py:digits,ipc=1

MTT's loss and keys; the experts are trained with adaptive GSAM (experts.sam_rho, experts.sam_alpha:
two gradients a step), and the set is an average of the images over the steps (ema).

Time and accuracy of jdd with these settings in full: not yet run. The authors' accuracies are in
jdd/specs/ftd.py; they are the best over evaluations on test data, jdd reports the final step.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "ftd"})
