"""How to use the set and how to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jdd.report import recipe, replay
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import Html, number, tag
from jdd.report.recipe import augmentation, value


def snippets(evidence: Evidence) -> Html | None:
    """Show how to load the set and train on it, with this set's own numbers."""
    dataset = evidence.dataset
    if dataset is None:
        return None
    blocks: list[tuple[str, str | None]] = [
        ("NumPy: the arrays, and test images in their space", _numpy(evidence)),
        ("jdd: evaluate it again", _jdd(evidence)),
    ]
    if evidence.stored:
        blocks.append(("NumPy: what nets see and learn in an epoch", replay.numpy(evidence)))
        blocks.append(("PyTorch: train any net on it", replay.torch(evidence)))
    elif mapping(evidence.recipe, "objective").get("kind", "distill") == "distill":
        blocks.append(("PyTorch: train any net on it", _torch(evidence)))
    else:
        title = "PyTorch: the steps, on one of the pretrained nets"
        blocks.append((title, _torch(evidence)))
    parts = [
        tag("figure", tag("figcaption", title), tag("pre", tag("code", code)))
        for title, code in blocks
        if code
    ]
    return tag("section", tag("h2", "Use it"), tag("div", *parts, cls="code"))


def command(evidence: Evidence) -> Html | None:
    """Show the command that makes the run again, and every setting of it."""
    parts = []
    line = evidence.known("command")
    if line:
        parts.append(tag("pre", tag("code", line), cls="wrap"))
    if evidence.config:
        text = json.dumps(evidence.config, indent=2, default=str)
        parts.append(
            tag(
                "details",
                tag("summary", "Every setting (config.json)"),
                tag("pre", tag("code", text)),
            )
        )
    return tag("section", tag("h2", "Make it again"), *parts) if parts else None


def footer(evidence: Evidence) -> Html:
    """Name the maker."""
    version = mapping(evidence.result, "versions").get("jdd") or evidence.recipe.get("jdd_version")
    return made_by(str(version or ""))


def made_by(version: str) -> Html:
    """Return the foot of a page."""
    return tag(
        "footer",
        f"Made by jdd {version}".strip(),
        " · one file, nothing loaded from elsewhere",
    )


def _numpy(evidence: Evidence) -> str:
    dataset = evidence.dataset
    assert dataset is not None
    labels = "int32" if dataset.label_kind == "hard" else f"float32, {dataset.label_kind}"
    labels = "int32: the classes" if evidence.stored else labels
    shape = tuple(dataset.images.shape)
    if dataset.transform.whitens:
        own = [
            "flat = pixels.reshape(len(pixels), -1)",
            "flat = flat - flat.mean(1, keepdims=True)",
            "flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)",
        ]
        mean = ['flat = pixels.reshape(len(pixels), -1) - z["zca_mean"]']
        if dataset.transform.kind == "frepo":
            mean = ['pixels = (pixels - z["mean"]) / z["std"]', *mean]
        move = [
            "# pixels: your images, (n, h, w, c) in [0, 1]",
            *(own if dataset.transform.kind == "kip" else mean),
            'x_test = (flat @ z["zca_matrix"]).reshape(pixels.shape)',
        ]
    else:
        move = [
            "# pixels: your images, (n, h, w, c) in [0, 1]",
            'x_test = (pixels - z["mean"]) / z["std"]',
        ]
    lines = [
        "import json",
        "import numpy as np",
        'z = np.load("distilled.npz")  # no pickle in it',
        f'x = z["images"]  # float32 {shape}',
        f'y = z["labels"]  # {labels}',
        'recipe = json.loads(str(z["recipe"]))',
        *move,
    ]
    return "\n".join(lines)


def _torch(evidence: Evidence) -> str:
    dataset, train = evidence.dataset, mapping(evidence.recipe, "train")
    assert dataset is not None
    drop, kind = mapping(train, "drop"), dataset.label_kind
    after = {"hard": ".long()", "logits": ".softmax(1)"}.get(kind, "")
    loss = "torch.nn.functional.cross_entropy(net(x), y)"
    if train.get("loss") == "squared_error" or kind == "centred":
        wanted = f"torch.eye({dataset.classes})[y]" if kind == "hard" else "y"
        loss = f"0.5 * (net(x) - {wanted}).square().sum(1).mean()"
    augment = augmentation(evidence)
    batch, rate = real(train.get("batch")), recipe.rate(evidence)
    passes = real(train.get("passes")) or (real(train.get("epochs")) or 1000) + 1
    steps, rates = real(train.get("steps")), isinstance(train.get("lr"), list)
    plan = _torch_schedule(train, steps or passes)
    options = f"lr={rate:.6g}, weight_decay={value(train, 'weight_decay')}"
    if train.get("optimizer") == "adam":
        make = f"torch.optim.Adam(net.parameters(), {options})"
    else:
        make = f"torch.optim.SGD(net.parameters(), {options}, momentum={value(train, 'momentum')})"
    lines = [
        "import numpy as np, torch",
        'z = np.load("distilled.npz")',
        'x = torch.from_numpy(z["images"]).permute(0, 3, 1, 2)',
        f'y = torch.from_numpy(z["labels"]){after}',
        f"opt = {make}",
        *plan,
        f"for step in range({steps:.0f}):" if steps else f"for epoch in range({passes:.0f}):",
    ]
    if rates:
        lines.append('    opt.param_groups[0]["lr"] = recipe["train"]["lr"][step]')
    if train.get("order") == "sequential":
        lines.append(f"    # the next {value(train, 'batch')} images as they are stored")
    elif train.get("order") == "classwise":
        some = real(train.get("classes_per_step"))
        which = f"{some:.0f} random classes" if some else "every class"
        lines.append(f"    # {value(train, 'per_class')} random image(s) of {which}")
    elif batch is not None and batch < len(dataset.images):
        lines.append(f"    # in shuffled batches of {number(batch)}")
    if augment != "none":
        lines.append("    # augment x as the recipe says")
    lines += [
        f"    loss = {loss}",
        "    opt.zero_grad(); loss.backward(); opt.step()" + "; plan.step()" * bool(plan),
    ]
    if drop.get("after_epoch") is not None:
        rate *= real(drop.get("factor")) or 0.1
        lines += [
            f"    if epoch == {value(drop, 'after_epoch')}:",
            f"        opt = {make.replace(options, f'lr={rate:.6g}, ' + options.split(', ')[1])}",
        ]
    return "\n".join(lines)


def _torch_schedule(train: Mapping[str, Any], steps: float) -> list[str]:
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


def _kept(evidence: Evidence) -> str:
    online = mapping(evidence.recipe, "labels").get("mode") == "online"
    return "the folders labels/ and squeeze/ have" if online else "the folder labels/ has"


def _jdd(evidence: Evidence) -> str:
    kind = mapping(evidence.recipe, "objective").get("kind", "distill")
    others = " --config.nets=ConvNet,VGG11" if kind == "distill" else ""
    lines = [
        "python -m jdd.main --mode=evaluate \\",
        f"    --set=distilled.npz{others}",
        *([f"# {_kept(evidence)} to stay beside the set"] * evidence.stored),
        "",
        "# or from Python",
        "import jdd",
        's = jdd.load("distilled.npz")',
        "s.images, s.labels, s.recipe",
        *(['jdd.evaluate("distilled.npz")  # the path, for its labels'] * evidence.stored),
    ]
    return "\n".join(lines)
