"""MTT: matching training trajectories (Cazenavette et al., CVPR 2022).

    python -m jdd.main --config=configs/mtt.py:cifar10,ipc=10 --workdir=runs/c10
    python -m jdd.main --config=configs/mtt.py:mnist,ipc=1 --config.data.path=mnist_png.zip

The argument names a dataset and any keys: ``mtt.py:cifar100,ipc=50,seed=1``. Keys left at 'auto'
take the published row of (dataset, IPC) in jdd/specs/mtt.py, or its DEFAULTS.

The loss: with theta_0 = theta*_t of an expert and N = syn_steps student steps at rate beta,
|theta_N - theta*_{t+M}|^2 / |theta*_t - theta*_{t+M}|^2, with M = expert_epochs and t drawn from
0 .. max_start_epoch-1. The set's images move by SGD(img_momentum) at lr_img, beta at lr_lr.

Time and accuracy of jdd with these settings in full: not yet run; smaller runs are in
docs/results.md. The authors' accuracies are in jdd/specs/mtt.py; they are the best over evaluations
on test data, jdd reports the final step.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "mtt"})
