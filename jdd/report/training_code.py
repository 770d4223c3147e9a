"""PyTorch code that trains a net on a set of images and labels as its recipe prescribes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.product.distilled_set import DistilledSet
from jdd.report import recipe
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import number
from jdd.report.recipe import augmentation, value


def torch(evidence: Evidence) -> str:
    """Return PyTorch code that trains ``net`` on the set as its recipe prescribes."""
    dataset, train = evidence.dataset, mapping(evidence.recipe, "train")
    assert dataset is not None
    rate, options = recipe.rate(evidence), _options(train, recipe.rate(evidence))
    passes = real(train.get("passes")) or (real(train.get("epochs")) or 1000) + 1
    steps = real(train.get("steps"))
    plan = _schedule(train, steps or passes)
    after = {"hard": ".long()", "logits": ".softmax(1)"}.get(dataset.label_kind, "")
    lines = [
        "import numpy as np, torch",
        'z = np.load("distilled.npz")',
        'x = torch.from_numpy(z["images"]).permute(0, 3, 1, 2)',
        f'y = torch.from_numpy(z["labels"]){after}',
        f"opt = {_optimiser(train, options)}",
        *plan,
        f"for step in range({steps:.0f}):" if steps else f"for epoch in range({passes:.0f}):",
        *_batches(evidence, train, dataset),
        f"    loss = {_loss(train, dataset)}",
        "    opt.zero_grad(); loss.backward(); opt.step()" + "; plan.step()" * bool(plan),
    ]
    drop = mapping(train, "drop")
    if drop.get("after_epoch") is not None:
        lower = _options(train, rate * (real(drop.get("factor")) or 0.1))
        lines += [
            f"    if epoch == {value(drop, 'after_epoch')}:",
            f"        opt = {_optimiser(train, lower)}",
        ]
    return "\n".join(lines)


def _options(train: Mapping[str, Any], rate: float) -> str:
    return f"lr={rate:.6g}, weight_decay={value(train, 'weight_decay')}"


def _optimiser(train: Mapping[str, Any], options: str) -> str:
    if train.get("optimizer") == "adam":
        return f"torch.optim.Adam(net.parameters(), {options})"
    return f"torch.optim.SGD(net.parameters(), {options}, momentum={value(train, 'momentum')})"


def _loss(train: Mapping[str, Any], dataset: DistilledSet) -> str:
    if train.get("loss") != "squared_error" and dataset.label_kind != "centred":
        return "torch.nn.functional.cross_entropy(net(x), y)"
    wanted = f"torch.eye({dataset.classes})[y]" if dataset.label_kind == "hard" else "y"
    return f"0.5 * (net(x) - {wanted}).square().sum(1).mean()"


def _batches(evidence: Evidence, train: Mapping[str, Any], dataset: DistilledSet) -> list[str]:
    """Return the lines on a step's learning rate, its images and their augmentation."""
    batch, lines = real(train.get("batch")), []
    if isinstance(train.get("lr"), list):
        lines.append('    opt.param_groups[0]["lr"] = recipe["train"]["lr"][step]')
    if train.get("order") == "sequential":
        lines.append(f"    # the next {value(train, 'batch')} images as they are stored")
    elif train.get("order") == "classwise":
        some = real(train.get("classes_per_step"))
        which = f"{some:.0f} random classes" if some else "every class"
        lines.append(f"    # {value(train, 'per_class')} random image(s) of {which}")
    elif batch is not None and batch < len(dataset.images):
        lines.append(f"    # in shuffled batches of {number(batch)}")
    if augmentation(evidence) != "none":
        lines.append("    # augment x as the recipe says")
    return lines


def _schedule(train: Mapping[str, Any], steps: float) -> list[str]:
    """Return the lines that make ``plan``, the rate's schedule, where there is one."""
    schedule = mapping(train, "schedule")
    if not schedule:
        return []
    ramp, final = recipe.ramp(train), real(schedule.get("final")) or 0.0
    fall = f"(1 + math.cos(math.pi * (t - {ramp:.0f}) / {max(steps - ramp, 1):.0f})) / 2"
    rise = f"t / {max(ramp, 1):.0f} if t < {ramp:.0f}"
    return [
        "import math",
        f"rate = lambda t: {rise} else {final:.6g} + {1 - final:.6g} * {fall}",
        "plan = torch.optim.lr_scheduler.LambdaLR(opt, rate)",
    ]
