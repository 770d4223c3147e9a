"""DD: dataset distillation (Wang et al. 2018): a few gradient steps, their images and their rates.

    python -m jdd.main --config=configs/dd.py:mnist,ipc=10 --workdir=runs/dd
    python -m jdd.main --config=configs/dd.py:cifar10,ipc=10,init=fixed
    python -m jdd.main --config=configs/dd.py:digits,ipc=1
    python -m jdd.main --config=configs/dd.py:digits,ipc=1,objective=attack \\
        --config.attack_class=9 --config.target_class=3
    python -m jdd.main --config=configs/dd.py:digits,ipc=1,objective=adapt \\
        --config.source.name=mnist --config.source.path=mnist_png.zip \\
        --config.experts.count=10 --config.experts.epochs=2 --config.held_out=5

The set is ``distill_steps`` batches, used in order ``distill_epochs`` times; each step has a
learned rate of its own. What is measured is exactly those steps on nets never seen before.

    init = random | fixed | pretrained: what the steps start from, docs/methods/dd.md
    objective = distill | adapt | attack: what they are for, docs/methods/dd.md

Digits, IPC 1: 85.1 +- 1.0 % (n = 5, seed 0) in a minute on 2 CPU cores. The published settings in
full: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "dd"})
