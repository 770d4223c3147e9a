"""D4M: prototypes of latents, denoised by a diffusion prior (Su et al., CVPR 2024).

    python -m jdd.main --config=configs/d4m.py:digits,ipc=10
    python -m jdd.main --config=configs/d4m.py:cifar10,ipc=10 --workdir=runs/d4m

The prior is trained here on the real images. Stable Diffusion instead (needs jdd[diffusion]):

    python -m jdd.main --config=configs/d4m.py:imagenet,ipc=10 --config.data.path=imagenet \\
        --config.prior=stable_diffusion --config.sd.weights=stable-diffusion-v1-5

Measured on digits, four seeds: 80.6 ± 3.1 % at IPC 1, random images 72.1; 96.7 ± 0.8 % at IPC 10,
random images 95.5 (docs/methods/d4m.md). The other datasets: one short run of MNIST there.
"""

from jdd.config import from_arg


def get_config(arg=None):
    """Return the config of ``dataset,key=value,...``."""
    return from_arg(arg, {"method": "d4m"})
