"""What one outer step makes of its process's memory; run in a process of its own.

    python -m benchmarks.resident jdd --steps=80
    python -m benchmarks.resident torch --steps=80
    python -m benchmarks.resident torch --method=dc --ipc=10

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

DEPTH, SHAPE, CLASSES = 3, (32, 32, 3), 10


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


def jdd(flags: argparse.Namespace) -> dict[str, int]:
    """Run one step of jdd."""
    import jax

    from benchmarks import matching_step, meta_step, recover_step

    if flags.method == "mtt":
        size = meta_step.Size("cifar10", flags.width, flags.ipc, flags.steps)
        gradient: Any
        gradient, args = meta_step.make(size, estimator=flags.estimator).gradient()
    else:
        if flags.method == "sre2l":
            step = recover_step.make(recover_step.Size(flags.net, flags.width, flags.batch))
        else:
            step = matching_step.make(
                flags.method, matching_step.Size("mnist", flags.width, flags.ipc, flags.real)
            )
        gradient, args = step.gradient, (step.carry, step.batch)
    jax.block_until_ready(args)
    idle = now()
    jax.block_until_ready(gradient(*args))
    device = jax.devices()[0]
    if device.platform == "gpu":
        stats = device.memory_stats() or {}
        held = sum(x.nbytes for x in jax.tree.leaves(args) if hasattr(x, "nbytes"))
        return {"idle": held, "most": int(stats.get("peak_bytes_in_use", 0))}
    return {"idle": idle, "most": most(), "temporaries": gradient.temporaries}


def torch(flags: argparse.Namespace) -> dict[str, int]:
    """Run one step of the PyTorch peer, with the C library's own malloc settings."""
    import torch

    from benchmarks import peers

    device = peers.device()
    make = {"mtt": _trajectories, "sre2l": _recovery}.get(flags.method, _classes)
    run = make(flags, device)
    on_gpu = device.type == "cuda"
    idle = torch.cuda.memory_allocated() if on_gpu else now()
    run()
    peers.wait()
    return {"idle": idle, "most": torch.cuda.max_memory_allocated() if on_gpu else most()}


def _trajectories(flags: argparse.Namespace, device: Any) -> Callable[[], Any]:
    """Return a step of MTT or TESLA, its inputs loaded."""
    import torch

    from benchmarks.peers import convnet, dsa, mtt, tesla

    n = CLASSES * flags.ipc
    ends = [convnet.initial(SHAPE, CLASSES, flags.width, DEPTH, device) for _ in range(2)]
    ends = [[w.detach() for w in end] for end in ends]
    images = torch.randn(n, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(CLASSES, device=device).repeat_interleave(flags.ipc)
    segment = mtt.Segment(ends[0], ends[1], images, labels, torch.tensor(0.001, device=device))
    strategy = "color_crop_cutout_flip_scale_rotate"
    method = tesla if flags.estimator == "tesla" else mtt
    return lambda: method.meta_gradient(
        segment, [dsa.draw(strategy, images) for _ in range(flags.steps)]
    )


def _classes(flags: argparse.Namespace, device: Any) -> Callable[[], Any]:
    """Return a step of DC, DSA or DM, its inputs loaded."""
    import torch

    from benchmarks.peers import convnet, distribution_matching, gradient_matching

    weights = convnet.initial((28, 28, 1), CLASSES, flags.width, DEPTH, device)
    classes = gradient_matching.Classes(
        [w.detach().contiguous() for w in weights],
        torch.randn(CLASSES * flags.ipc, 1, 28, 28, device=device),
        list(torch.randn(CLASSES, flags.real, 1, 28, 28, device=device)),
    )
    strategy = "" if flags.method == "dc" else "color_crop_cutout_scale_rotate"
    method = distribution_matching if flags.method == "dm" else gradient_matching
    draws = [gradient_matching.siamese(strategy, real) for real in classes.real]
    return lambda: method.match(classes, draws)


def _recovery(flags: argparse.Namespace, device: Any) -> Callable[[], Any]:
    """Return a step of SRe2L, its inputs loaded: batches one after another need what one does."""
    import torch

    from benchmarks.peers import frozen, recover

    net = frozen.fresh(flags.net, flags.width, 100, device)
    images = torch.randn(flags.batch, 3, 32, 32, device=device)
    view = recover.View((0, 0, 32, 32), False, (1, 2))
    labels = torch.arange(flags.batch, device=device) % 100
    batch = recover.Batch(images.contiguous(memory_format=torch.channels_last), labels, view)
    low, high = (torch.full((3,), end, device=device) for end in (-2.0, 2.0))
    recipe = recover.Recipe(0.25, 1000, 0.01, 10.0, low, high)
    return lambda: recover.match(net, batch, recipe)


def main() -> None:
    """Run the side named on the command line and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("jdd", "torch"))
    parser.add_argument("--method", choices=("mtt", "dc", "dsa", "dm", "sre2l"), default="mtt")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--real", type=int, default=256, help="real images of a class")
    parser.add_argument("--net", default="ConvNetBN", help="net that sre2l recovers from")
    parser.add_argument("--batch", type=int, default=100, help="images that sre2l recovers at once")
    parser.add_argument("--estimator", choices=("exact", "tesla"), default="exact")
    flags = parser.parse_args()
    print(json.dumps({"jdd": jdd, "torch": torch}[flags.side](flags)))


if __name__ == "__main__":
    main()
