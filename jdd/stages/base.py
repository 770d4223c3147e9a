"""The interface of a stage, its cost estimate, and advice when it exceeds the memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax

from jdd import config as configs
from jdd import memory
from jdd.data import Dataset
from jdd.nets import Net, options_of
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.schema.common import Common
from jdd.stages.registry import SMALLER


class Estimate(NamedTuple):
    """Estimated cost: wall seconds, XLA's temporaries in bytes, what was timed, bytes on disk."""

    seconds: float
    temporaries: int
    note: str
    disk: int = 0


class Stage(NamedTuple):
    """One resumable stage of a run, which writes its output to disk; skipped if that is complete.

    name:        its name in ``--mode`` and metrics.
    fingerprint: ``(context) -> str``, a hash of every setting that changes its output.
    run:         ``(context, session) -> None``, resumable.
    estimate:    ``(context) -> Estimate``; writes nothing.
    done:        ``(context) -> bool``, whether its output is complete for the fingerprint.
    logged:      ``(context) -> names`` of its lines in the metrics; None: ``name``.
    on:          ``(context) -> bool``, whether the config asks for it.
    inputs:      names of the stages whose output it reads: the registry's, and a method's phases.
    """

    name: str
    fingerprint: Callable[[RunContext], str]
    run: Callable[[RunContext, Session], None]
    estimate: Callable[[RunContext], Estimate]
    done: Callable[[RunContext], bool]
    logged: Callable[[RunContext], list[str]] | None = None
    inputs: tuple[str, ...] = ()
    on: Callable[[RunContext], bool] = lambda context: True

    def lines(self, context: RunContext) -> list[str]:
        """Return the names of its lines in the metrics."""
        return [self.name] if self.logged is None else self.logged(context)


# Largest step timed in full, in pixels without channels: 64 images of 32 x 32 on a CPU.
_PIXELS = {"cpu": 1 << 16}
_MORE = 1 << 26
ENOUGH = 1.0  # seconds of a call that is not timed again


def timed_in_full(pixels: int, devices: Sequence[jax.Device]) -> bool:
    """Return whether a step over this many pixels takes at most seconds on this kind of device."""
    return pixels <= _PIXELS.get(devices[0].platform, _MORE)


def share(images: int, shape: Sequence[int], devices: Sequence[jax.Device]) -> int:
    """Return how many of the ``images`` of a step are timed.

    All, up to a number of pixels that takes seconds on this kind of device; else as many as have
    half that number of pixels, but at least four. Time and temporaries are scaled with the number
    of images. Parts that do not grow with it are overcounted, so both are upper bounds.
    """
    most, pixels = _PIXELS.get(devices[0].platform, _MORE), shape[0] * shape[1]
    if timed_in_full(images * pixels, devices):
        return images
    return min(images, max(4, most // 2 // pixels))


def scaled(few: int, images: int, what: str = "images") -> str:
    """Return in words how many images a step's cost was timed on; '' if all."""
    return f" (from {few} of {images} {what})" if few < images else ""


def pace(seconds: float) -> str:
    """Return a step's seconds as text: '47 ms', or '61 s' from ten seconds on."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def timed(call: Callable[[], Any], repeats: int = 2) -> float:
    """Return the fastest wall seconds of ``call``, after one call to warm up.

    It is called up to ``repeats`` times, but not again after a call of a second or more.
    """
    jax.block_until_ready(call())
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        best = min(best, time.perf_counter() - begun)
        if best >= ENOUGH:
            break
    return best


_LARGE = 1 << 30  # bytes of images above which streaming from a file pays off


def smaller(stage: str, config: Common, data: Dataset | None = None) -> str:
    """Return in words the keys that reduce the memory of a stage ('data': reading the data).

    Resumable keys come first; the others need a new run. ``data`` is the dataset, if loaded.
    """
    flat, schema = configs.flat(config), config.spec.keys
    now, anew = list[str](), list[str]()
    for name in _keys(stage, config):
        if name == "data.stream" and data is not None and 4 * data.train.images.size < _LARGE:
            continue
        words = _less(name, flat) if name in flat else ""
        if words:
            (now if schema[name].resumable or stage == "data" else anew).append(words)
    if stage == "data":
        return ", ".join(now) or "a machine with more memory"
    parts = ["what is done stays, and the same command goes on from there"]
    parts[0] += f", with {' or '.join(now)}" if now else ""
    if anew:
        parts.append(f"with a new --workdir: {', '.join(anew)}")
    return "; ".join(parts)


def _keys(stage: str, config: Common) -> tuple[str, ...]:
    own = {phase.name: phase.smaller for phase in configs.phases(config)}
    return own.get(stage, SMALLER.get(stage, ()))


def _less(name: str, flat: dict[str, Any]) -> str:
    """Return in words a smaller value of a key; '' if it is already the smallest."""
    value = flat[name]
    if name == "data.stream":
        alone = flat["data.source"] == "digits" or flat["data.name"] == "digits"
        return "" if value or alone else "--config.data.stream=true"
    if name == "data.zca":
        return "" if value in ("none", configs.AUTO) else "--config.data.zca=none"
    if name in ("squeeze.accumulate", "real_parts"):  # number of parts of a batch
        return f"--config.{name} above {value}"
    if name in ("data.size", "net.width", "squeeze.width") and value in (0, configs.AUTO):
        return f"a smaller --config.{name}"
    if name == "classes_at_once" and jax.default_backend() == "cpu" and not value:
        return ""  # 0 means 1 on a CPU
    if value == 0 and name.endswith("_at_once"):
        return f"--config.{name}=1"
    if value == 0 and name == "batch_syn":
        return "a small --config.batch_syn (0 is all)"
    return f"--config.{name} below {value}" if isinstance(value, int) and value > 1 else ""


def guarded(
    stage: str, config: Common, data: Dataset | None = None
) -> AbstractContextManager[None]:
    """Turn an out-of-memory error in a stage ('data': reading the data) into one line.

    Raises:
      OutOfMemory: naming the stage and the keys to lower.
    """
    doing = "reading the data" if stage == "data" else f"stage {stage}"
    return memory.guarded(doing, lambda: smaller(stage, config, data))


def validate_memory(context: RunContext) -> None:
    """Refuse nets and a set that cannot fit into memory. Uses shapes only; allocates nothing.

    The count includes the weights, gradients and momentum of the nets trained at once, and twice
    the set's images.

    Raises:
      BadInput: naming the key to lower.
    """
    config, free = context.config, memory.room(context.devices)
    once = min(config.eval.at_once or config.eval.n, config.eval.n)
    if context.devices[0].platform != "cpu":
        once = -(-once // len(context.devices))
    trainings = [(name, once, "eval.at_once") for name in config.nets]
    if "experts" in configs.stage_names(config):
        trainings.append((config.net.name, config.experts.group, "experts.group"))
    for name, many, key in trainings:
        own = "net.width" if name == config.net.name and "width" in options_of(name) else ""
        where = f"config.{own}={config.net.width}" if own else f"config.nets={name}"
        _validate_nets_memory(where, context.make_net(name), own, config.net.width, many, key, free)
    for teacher in context.teachers:
        name, colon, _ = teacher.word.partition(":")
        own = "" if colon or "width" not in options_of(name) else "squeeze.width"
        where, wide = f"config.squeeze.nets={teacher.word}", context.decoupled.squeeze.width
        _validate_nets_memory(where, teacher.net, own, wide, 1, "", free)
    memory.need(
        8 * config.ipc * context.data.classes * math.prod(context.data.shape),
        "config.ipc",
        f"{config.ipc} images for each of {context.data.classes} classes take",
        "a smaller --config.ipc, or a smaller --config.data.size",
    )


def _validate_nets_memory(
    where: str, net: Net, width: str, wide: int | str, many: int, key: str, free: int
) -> None:
    """Refuse ``many`` nets at once if they exceed the memory. ``width`` is the key of their width
    (``wide``), ``key`` the key of their number.

    Raises:
      BadInput: they need more than ``free`` bytes.
    """
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    one = 12 * weights  # float32: weights, gradient, momentum
    allowed = [f"--config.{key}=1"] if many > 1 and one <= free else []
    if width:
        # Most weights grow with the square of the width; half is reserved for the rest of a step.
        part = math.sqrt(0.5 * free / (many * one))
        less = int(wide * part) // 4 * 4 if isinstance(wide, int) else 0
        words = f"--config.{width}={less} or less" if less else f"a smaller --config.{width}"
        allowed.append(words)
    nets = "--config.squeeze.nets" if not key else "--config.net.name or --config.nets"
    memory.need(
        many * one,
        where,
        f"{many} net{'s' if many > 1 else ''} of {weights:,} weights at once, with gradients and "
        "momentum, need",
        ", or ".join(allowed) or f"a smaller net ({nets})",
        free,
    )
