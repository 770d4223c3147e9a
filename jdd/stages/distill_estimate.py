"""What distilling will take: one outer step, or one batch of a selection, is timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jdd import config as configs
from jdd import methods
from jdd.config.files import stage_names
from jdd.data.pairs import PairDataset
from jdd.evaluation.accuracy import BATCH
from jdd.evaluation.predict import embed, outputs
from jdd.pretrained import patch_selection
from jdd.run.context import RunContext
from jdd.schema.common import Common
from jdd.schema.decoupled import Recover
from jdd.specs import rded
from jdd.stages import phases, samples
from jdd.stages.base import Estimate, pace, scaled, share, timed, timed_in_full


def estimate(context: RunContext, seeds: Sequence[int]) -> Estimate:
    """Time one outer step on freshly initialised weights, without experts.

    Args:
      seeds: synthesis seeds whose sets are not finished.
    """
    problem = phases.blank(context)
    if own := methods.cost(context.config, problem):
        return _stated(context, own, len(seeds))
    parts, batch, few = methods.parts(context.config, problem), 1, 1
    config, timing = context.config, parts
    if parts:
        batch = parts[0][0].size
        few = share(batch, context.data.shape, context.devices)
    if few < batch:  # smaller batches, the same number at a time
        config = configs.replace(config, {"image_batch": few, "class_images": 1})
        problem = problem._replace(config=config)
        timing = methods.parts(config, problem)
    made = shortened(context, config)
    method = methods.make(made.config, problem._replace(config=made.config), *timing[:1])
    if method.objective is None:
        return _choice(context, seeds)
    seconds, temporaries, of = phases.step_cost(context, method, problem)
    step = seconds * batch / few * made.factor
    rounds = max(1, len(parts))
    left = rounds * context.config.steps * len(seeds)
    note = f"{left} steps of {pace(step)}" + scaled(few, batch) + of + made.note
    if left and context.config.eval.curve:
        note += ", without the accuracy curve (see evaluate)"
    images = config.ipc * context.data.classes * len(context.seeds)
    disk = 4 * images * math.prod(context.data.shape)
    planned, begun = temporaries * batch // few * made.images + made.stored, 0.0
    if context.maker == "recover" and cast(Recover, config).pix_init == "patch":
        found = _crops(
            context, seeds, patch_selection.MEDIUM.candidates, patch_selection.MEDIUM.crops
        )
        begun, note = found.seconds, f"{note}; at first {found.note}"
    seed, steps = context.seeds[0], context.config.steps
    seen = samples.estimate(context, context.stage(seed), method, seed, steps, len(seeds))
    planned = max(planned, seen.temporaries)
    return Estimate(begun + step * left + seen.seconds, planned, note + seen.note, disk)


def _stated(
    context: RunContext, own: tuple[Callable[[], Any] | None, int, str], sets: int
) -> Estimate:
    """Time a call that the method names, and count its calls for all sets."""
    call, count, words = own
    images = context.config.ipc * context.data.classes * sets
    disk = 4 * images * math.prod(context.data.shape)
    if call is None:
        return Estimate(0.0, 0, f"{words}; no steps", disk)
    seconds = timed(call)
    return Estimate(
        sets * count * seconds, 0, f"{sets * count} times {words}, {pace(seconds)}", disk
    )


class _Shortened(NamedTuple):
    """A config with a shorter outer step, to be timed in place of the run's.

    factor: how many times longer the step is; images: how many times more images a student's
    step has; stored: bytes of the weights stored for the student's steps that were left out.
    """

    config: Common
    factor: float = 1.0
    images: int = 1
    stored: int = 0
    note: str = ""


# Keys that count the student's steps in an outer step, by their number's key.
_STUDENT = {"syn_steps": ("syn_steps", "window"), "unroll_steps": ("unroll_steps", "window")}


def shortened(context: RunContext, config: Common) -> _Shortened:
    """Return a config with fewer student steps and images, if a full outer step takes too long.

    Time is proportional to both. A step's temporaries grow with its images, and with its weights
    for every student step (with ``unroll=reverse``, all of them grow).
    """
    flat, classes = configs.flat(config), context.data.classes
    counted = next((key for key in _STUDENT if key in flat), None)
    if counted is None:
        return _Shortened(config)
    steps, pixels = int(flat[counted]), math.prod(context.data.shape[:2])
    images = config.ipc * classes
    batch = min(int(flat.get("batch_syn", 0)) or images, images)
    per_class, some = int(flat.get("per_class", 0)), int(flat.get("classes_per_step", 0))
    if counted == "unroll_steps":
        batch = min(per_class or config.ipc, config.ipc) * (some or classes)
    if timed_in_full(steps * batch * pixels, context.devices):
        return _Shortened(config)
    few, fewer = min(steps, 2), batch
    new = {key: -(-int(flat[key]) * few // steps) for key in _STUDENT[counted] if flat[key]}
    # Time and memory of fewer images are less accurate: they are cut only where even this is long.
    if counted == "syn_steps" and not timed_in_full(few * batch * pixels // 4, context.devices):
        fewer = min(batch, 2 * share(few * batch, context.data.shape, context.devices) // few)
        ipc = max(1, fewer // classes)
        fewer = min(batch, ipc * classes)
        new |= {"ipc": ipc} | ({"batch_syn": 0} if "batch_syn" in flat else {})
    ratio = -(-batch // fewer)
    weights = sum(
        math.prod(leaf.shape)
        for leaf in jax.tree.leaves(jax.eval_shape(context.net.init, jax.random.key(0))["params"])
    )
    note = f" (from {few} of {steps} student steps" + f", {fewer} of {batch} images" * (
        fewer < batch
    )
    whole = steps if flat.get("unroll") == "reverse" else few
    return _Shortened(
        configs.replace(config, new),
        steps * batch / (few * fewer),
        ratio * whole // few,
        4 * weights * (steps - few),
        note + ")",
    )


def _choice(context: RunContext, seeds: Sequence[int]) -> Estimate:
    """Time a batch of real images through the net whose features select them."""
    if context.maker == "recover":
        config = cast(rded.Config, context.config)
        found = _crops(context, seeds, config.candidates, config.crops)
        return found._replace(note=f"{found.note}; no steps")
    if "experts" not in stage_names(context.config):
        return Estimate(0.0, 0, "images are drawn")
    images, net, untrained = context.data.train.images, context.net, context.blank.experts
    assert untrained is not None
    variables = untrained.read(0, 0)
    few = share(BATCH, context.data.shape, context.devices)
    if isinstance(context.data, PairDataset):  # texts take a fraction of the time of images
        seconds = timed(lambda: embed(net, variables, "image", images[:few]))
    else:
        seconds = timed(lambda: outputs(net, variables, images[:few], batch=few).features)
    seconds *= BATCH / few
    note = f"features of {len(images)} images, {pace(seconds)} for {BATCH}; no steps"
    note += scaled(few, BATCH)
    return Estimate(bool(seeds) * seconds * -(-len(images) // BATCH), 0, note)


def _crops(context: RunContext, seeds: Sequence[int], candidates: int, each: int) -> Estimate:
    """Time a batch of real crops through the teacher that selects among them."""
    teacher, train = context.blank.teachers[0], context.data.train
    few = share(BATCH, context.data.shape, context.devices)
    variables, images = teacher.variables(), train.images[np.arange(min(few, len(train.labels)))]
    seconds = timed(lambda: outputs(teacher.frozen, variables, images, batch=few).logits)
    seconds *= BATCH / few
    crops = each * min(candidates, len(train.labels) // context.data.classes) * context.data.classes
    note = f"{crops} crops, {pace(seconds)} for {BATCH}" + scaled(few, BATCH)
    return Estimate(len(seeds) * seconds * -(-crops // BATCH), 0, note)
