"""RaT-BPTT: meta-gradients through a random window of training (Feng et al., ICLR 2024).

    python -m jdd.main --config=configs/ratbptt.py:cifar10,ipc=10 --workdir=runs/rat
    python -m jdd.main --config=configs/ratbptt.py:digits,ipc=1

The loss is that of a real batch after s + window steps on the set from a fresh net, s uniform in
0 .. unroll_steps - window; the gradient passes the last ``window`` steps. ``window`` equal to
``unroll_steps`` is back-propagation through the whole of training. No experts are needed.

The authors list 60,000 passes over the real images and report the best over evaluations on test
data; ``steps`` here is 12,000, where one who ran CIFAR-10 at IPC 10 saw it converge. Time and
accuracy of jdd with these settings in full: not yet run.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "ratbptt"})
