"""PyTorch counterparts of what jdd computes, from the papers' equations: what to compare with.

Each is the plain eager idiom at its fastest setting found: all cores, ``group_norm`` with one
channel a group, images and kernels in channels_last, fused SGD, freed memory kept (``prepare``).
What every one of them costs beside its bare forward and backward passes is measured and printed
with the timings (``bare.py``): a slow peer proves nothing. At width 128 that is less than a tenth;
for the 8x8 digits a pass takes so little that the augmentation's dispatch is a seventh or more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

import torch

from jdd.parallel import threads

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # glibc's names for the two settings of mallopt


def prepare() -> str:
    """Set PyTorch (and the C library both sides allocate from) to its fastest; say how.

    By default glibc returns every large tensor to the kernel and gets it back page by page: at 100
    images a student step spends more time there than in its convolutions.
    """
    torch.set_num_threads(threads(os.cpu_count() or 1))
    torch.backends.cudnn.benchmark = True  # on a GPU the fastest of its convolutions, not the first
    kept = False
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            kept = bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, -1))
    where = "freed memory kept" if kept else "default malloc"
    return f"eager, channels_last, {torch.get_num_threads()} threads, {where}"


def device() -> torch.device:
    """Return the GPU if PyTorch has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Wait until the GPU has done what was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def steps_that_fit(images: int, width: int) -> int:
    """Return how many student steps' graphs of 32x32 images fit into most of the free memory.

    Plain back-propagation was measured to keep 3.5 MB an image and step at width 128 (depth 3).
    """
    if torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0]
    else:
        import psutil

        free = psutil.virtual_memory().available
    return max(1, int(0.6 * free / (4e6 * images * width / 128)))
