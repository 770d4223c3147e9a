"""Free memory, refusals of what does not fit, and one-line errors if memory runs out.

A need that is known in advance is refused before it is allocated (``need``: bad input); memory that
runs out during a run becomes ``OutOfMemory`` (``guarded``). Counts are lower bounds of the need, so
that nothing that fits is refused.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from jdd.errors import BadInput, OutOfMemory
from jdd.storage import npz_files

UNKNOWN = sys.maxsize  # the machine states no bound
_UNITS = (("MiB", 20), ("GiB", 30), ("TiB", 40))


def size(count: int) -> str:
    """Format a number of bytes with its unit."""
    unit, shift = next((u for u in _UNITS if count < 10 << (u[1] + 10)), _UNITS[-1])
    return f"{count / 2**shift:.0f} {unit}"


def available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that this process may still allocate; ``UNKNOWN`` without any bound.

    The minimum of the machine's free memory and swap, the rest of its control groups' limits (a
    container's) and the rest of ``ulimit -v``.
    """
    return max(0, min(_machine(proc), _ulimit(proc), *_cgroups(proc, groups)))


def _machine(proc: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
        lines = (proc / "meminfo").read_text().splitlines()
        found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if ":" in line}
        return found["MemAvailable"] + found.get("SwapFree", 0)
    with contextlib.suppress(OSError, ValueError):  # macOS: all it has
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN


def _ulimit(proc: Path) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return UNKNOWN
    with contextlib.suppress(OSError, ValueError, IndexError):
        return soft - int((proc / "self/statm").read_text().split()[0]) * resource.getpagesize()
    return soft


# Version 2 and version 1: limit, usage, and the part of the usage that is droppable file cache.
_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))
_V1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def _cgroups(proc: Path, top: Path) -> Iterator[int]:
    """Yield the bytes that each control group of this process, and each above it, leaves free."""
    yield UNKNOWN
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = (proc / "self/cgroup").read_text().splitlines()
    for line in lines:
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        if kinds and "memory" not in kinds.split(","):
            continue
        root, names = (top / "memory", _V1) if kinds else (top, _V2)
        own = root / path.lstrip("/")  # in a container it may lie at the root instead
        for group in dict.fromkeys((own, *own.parents, root)):
            if group == root or root in group.parents:
                yield _left(group, *names)


def _left(group: Path, limit: str, usage: str, droppable: Sequence[str]) -> int:
    try:
        most, used = (int((group / name).read_text()) for name in (limit, usage))
    except (OSError, ValueError):  # not there, or 'max'
        return UNKNOWN
    with contextlib.suppress(OSError, ValueError):
        words = (group / "memory.stat").read_text().split()
        stat = dict(zip(words[::2], words[1::2], strict=False))
        used -= sum(int(stat.get(name, 0)) for name in droppable)
    return most - used


def room(devices: Sequence[Any]) -> int:
    """Return the bytes available to arrays on each of ``devices``; of a CPU the machine's."""
    limits = [int((device.memory_stats() or {}).get("bytes_limit", 0)) for device in devices]
    if any(device.platform == "cpu" for device in devices):
        limits.append(available())
    return min((limit for limit in limits if limit > 0), default=UNKNOWN)


def need(
    count: int, where: str, found: str, allowed: str, free: int | None = None, place: str = ""
) -> None:
    """Refuse ``count`` bytes if the machine (or ``place``) has fewer free.

    Raises:
      BadInput: ``found`` followed by both sizes; ``allowed`` names what to make smaller.
    """
    has = available() if free is None else free
    if count > has:
        text = f"{found} {size(count)}, and {place or 'this machine'} has {size(has)} free"
        raise BadInput(where, text, allowed)


def exhausted(error: BaseException) -> bool:
    """True if an exception of Python, NumPy or XLA reports that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    # By name: the command line must not import JAX for this test.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"JaxRuntimeError", "XlaRuntimeError"}) and any(
        words in str(error) for words in ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")
    )


def ran_out(error: BaseException, doing: str, smaller: str) -> OutOfMemory:
    """Return the one-line error for an exception that reports memory exhausted while ``doing``."""
    lines = str(error).strip().splitlines()
    detail = f" ({lines[0].strip()[:160].rstrip()})" if lines else ""
    return OutOfMemory(f"{doing}: out of memory{detail}; {smaller}")


@contextlib.contextmanager
def guarded(doing: str, smaller: Callable[[], str]) -> Iterator[None]:
    """Turn exhausted memory in the block into a one-line error with ``smaller()`` as the remedy.

    Raises:
      OutOfMemory: in place of MemoryError and XLA's RESOURCE_EXHAUSTED.
    """
    try:
        yield
    except Exception as error:
        if not exhausted(error):
            raise
        raise ran_out(error, doing, smaller()) from error


def validate_file_size(path: str | os.PathLike[str], allowed: str) -> None:
    """Refuse a file that is larger than memory and would be read as a whole.

    Raises:
      BadInput: with both sizes.
    """
    with contextlib.suppress(OSError):
        need(os.path.getsize(path), str(path), "a file of", allowed)


def validate_npz_size(
    path: str | os.PathLike[str],
    allowed: str,
    wanted: Collection[str] | None = None,
    streamed: Collection[str] = (),
) -> None:
    """Refuse an ``.npz`` whose arrays are larger than the file can hold, or than memory.

    Sizes are those of the headers; no array is read.

    Args:
      allowed: the remedy for a file that is larger than memory.
      wanted: the arrays that will be read; None for all.
      streamed: those of them that are read a piece at a time.

    Raises:
      BadInput: naming the array and both sizes; or the file is damaged.
    """
    found = npz_files.headers(path, allowed, wanted)
    sizes = [h.nbytes for name, h in found.items() if h and name not in streamed]
    need(sum(sizes), str(path), "its arrays take", allowed)
