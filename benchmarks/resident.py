"""What one outer step makes of its process's memory; run in a process of its own.

    python -m benchmarks.resident jdd --steps=80
    python -m benchmarks.resident torch --steps=80

Prints one JSON object, in bytes: ``idle`` is resident when libraries and inputs are loaded,
``most`` the most of the process's life, with the first step and (jdd) its compilation. On a GPU
both are the framework's own account of device memory.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
from pathlib import Path

import psutil

WIDTH, DEPTH, SHAPE, CLASSES = 128, 3, (32, 32, 3), 10


def now() -> int:
    """Return the resident bytes of this process."""
    return psutil.Process().memory_info().rss


def most() -> int:
    """Return the most resident bytes of this process so far.

    On Linux its own mark: getrusage's also knows the process that it was started from.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def jdd(steps: int, ipc: int, estimator: str) -> dict[str, int]:
    """Run one step of jdd."""
    import jax

    from benchmarks import meta_step

    step = meta_step.make(meta_step.Size("cifar10", WIDTH, ipc, steps), estimator=estimator)
    gradient, args = step.gradient()
    jax.block_until_ready(args)
    idle = now()
    jax.block_until_ready(gradient(*args))
    device = jax.devices()[0]
    if device.platform == "gpu":
        stats = device.memory_stats() or {}
        held = sum(x.nbytes for x in jax.tree.leaves(args[:3]))
        return {"idle": held, "most": int(stats.get("peak_bytes_in_use", 0))}
    return {"idle": idle, "most": most(), "temporaries": gradient.temporaries}


def torch(steps: int, ipc: int, estimator: str) -> dict[str, int]:
    """Run one step of the PyTorch peer, with the C library's own malloc settings."""
    import torch

    from benchmarks import peers
    from benchmarks.peers import convnet, dsa, mtt, tesla

    device, n = peers.device(), CLASSES * ipc
    ends = [convnet.initial(SHAPE, CLASSES, WIDTH, DEPTH, device) for _ in range(2)]
    ends = [[w.detach() for w in end] for end in ends]
    images = torch.randn(n, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(CLASSES, device=device).repeat_interleave(ipc)
    segment = mtt.Segment(ends[0], ends[1], images, labels, torch.tensor(0.001, device=device))
    strategy = "color_crop_cutout_flip_scale_rotate"
    on_gpu = device.type == "cuda"
    idle = torch.cuda.memory_allocated() if on_gpu else now()
    method = tesla if estimator == "tesla" else mtt
    method.meta_gradient(segment, [dsa.draw(strategy, images) for _ in range(steps)])
    peers.wait()
    return {"idle": idle, "most": torch.cuda.max_memory_allocated() if on_gpu else most()}


def main() -> None:
    """Run the side named on the command line and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("jdd", "torch"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--estimator", choices=("exact", "tesla"), default="exact")
    flags = parser.parse_args()
    run = {"jdd": jdd, "torch": torch}[flags.side]
    print(json.dumps(run(flags.steps, flags.ipc, flags.estimator)))


if __name__ == "__main__":
    main()
