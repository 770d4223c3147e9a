"""How to use the set and how to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import Html, number, tag


def snippets(evidence: Evidence) -> Html | None:
    """Show how to load the set and train on it, with this set's own numbers."""
    dataset = evidence.dataset
    if dataset is None:
        return None
    blocks = [
        ("NumPy: the arrays, and test images in their space", _numpy(evidence)),
        ("jdd: evaluate it again", _jdd(evidence)),
        (
            "PyTorch: train any net on it"
            if mapping(evidence.recipe, "objective").get("kind", "distill") == "distill"
            else "PyTorch: the steps, on one of the pretrained nets",
            _torch(evidence),
        ),
    ]
    parts = [
        tag("figure", tag("figcaption", title), tag("pre", tag("code", code)))
        for title, code in blocks
    ]
    return tag("section", tag("h2", "Use it"), tag("div", *parts, cls="code"))


def recipe(evidence: Evidence) -> Html | None:
    """Tabulate how nets are to be trained on the set."""
    found = evidence.recipe
    if not found:
        return None
    train, augment, net = (mapping(found, k) for k in ("train", "augment", "net"))
    rows = [
        ("Net", named(net)),
        ("Optimiser", optimiser(train)),
        (
            "Learning rate",
            f"one for each of {len(train['lr'])} steps"
            if isinstance(train.get("lr"), list)
            else f"{number(_rate(evidence))}{' (learned)' if learned(evidence) else ''}",
        ),
        ("Schedule", schedule(train)),
        ("Loss", str(train.get("loss", "")).replace("_", " ")),
        ("Labels", evidence.dataset.label_kind if evidence.dataset else ""),
        ("Augmentation", augmentation(augment)),
        ("Input", _input(found)),
        ("Selection", f"{found.get('selection')} iterate" if found.get("selection") else ""),
        ("Distilling steps", _n(found, "steps") if found.get("steps") else ""),
        ("Images", "real ones, chosen: 0 distillation steps" if evidence.chosen else ""),
        ("Rows", "recipe['selected'], in the training split" if evidence.chosen else ""),
        ("Dataset fingerprint", str(found.get("fingerprint", ""))),
    ]
    body = [tag("tr", tag("th", name), tag("td", value)) for name, value in rows if value]
    return tag(
        "section",
        tag("h2", "Recipe"),
        tag("p", "How nets have to be trained on this set to reach its accuracy.", cls="note"),
        tag("table", tag("tbody", *body), cls="facts"),
    )


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


def learned(evidence: Evidence) -> bool:
    """Tell whether nets are trained at the rate that the set has learned."""
    return evidence.dataset is not None and evidence.dataset.lr == _rate(evidence)


def optimiser(train: Mapping[str, Any]) -> str:
    """Name the optimiser and its settings."""
    name = str(train.get("optimizer", ""))
    momentum = f", momentum {_n(train, 'momentum')}" if name == "sgd" else ""
    return f"{name}{momentum}, weight decay {_n(train, 'weight_decay')}"


def schedule(train: Mapping[str, Any]) -> str:
    """Say how long nets are trained, in which batches, and what becomes of the rate."""
    drop = mapping(train, "drop")
    after = drop.get("after_epoch")
    if after is None:
        return _length(train) + _ramped(train)
    anew = " and momentum starts anew" if drop.get("reset_momentum") else ""
    lower = f"; after epoch {after} the rate is multiplied by {_n(drop, 'factor')}"
    return f"{_length(train)}{_ramped(train)}{lower}{anew}"


def _numpy(evidence: Evidence) -> str:
    dataset = evidence.dataset
    assert dataset is not None
    labels = "int32" if dataset.label_kind == "hard" else f"float32, {dataset.label_kind}"
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
    augment = augmentation(mapping(evidence.recipe, "augment"))
    batch, rate = real(train.get("batch")), _rate(evidence)
    passes = real(train.get("passes")) or (real(train.get("epochs")) or 1000) + 1
    steps, rates = real(train.get("steps")), isinstance(train.get("lr"), list)
    plan = _torch_schedule(train, steps or passes)
    options = f"lr={rate:.6g}, weight_decay={_n(train, 'weight_decay')}"
    if train.get("optimizer") == "adam":
        make = f"torch.optim.Adam(net.parameters(), {options})"
    else:
        make = f"torch.optim.SGD(net.parameters(), {options}, momentum={_n(train, 'momentum')})"
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
        lines.append(f"    # the next {_n(train, 'batch')} images as they are stored")
    elif train.get("order") == "classwise":
        some = real(train.get("classes_per_step"))
        which = f"{some:.0f} random classes" if some else "every class"
        lines.append(f"    # {_n(train, 'per_class')} random image(s) of {which}")
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
            f"    if epoch == {_n(drop, 'after_epoch')}:",
            f"        opt = {make.replace(options, f'lr={rate:.6g}, ' + options.split(', ')[1])}",
        ]
    return "\n".join(lines)


def _ramp(train: Mapping[str, Any]) -> float:
    """Return the steps of a schedule's warm-up: half of all at the most."""
    steps, said = real(train.get("steps")), real(mapping(train, "schedule").get("warmup")) or 0.0
    return min(said, steps // 2) if steps else said


def _ramped(train: Mapping[str, Any]) -> str:
    schedule = mapping(train, "schedule")
    if not schedule:
        return ""
    end = f"a cosine to {_n(schedule, 'final')} of the rate"
    return f"; {number(_ramp(train))} steps of linear warm-up, then {end}"


def _torch_schedule(train: Mapping[str, Any], steps: float) -> list[str]:
    """Return the lines that make ``plan``, the rate's schedule, where there is one."""
    schedule = mapping(train, "schedule")
    if not schedule:
        return []
    ramp, final = _ramp(train), real(schedule.get("final")) or 0.0
    fall = f"(1 + math.cos(math.pi * (t - {ramp:.0f}) / {max(steps - ramp, 1):.0f})) / 2"
    rise = f"t / {max(ramp, 1):.0f} if t < {ramp:.0f}"
    return [
        "import math",
        f"rate = lambda t: {rise} else {final:.6g} + {1 - final:.6g} * {fall}",
        "plan = torch.optim.lr_scheduler.LambdaLR(opt, rate)",
    ]


def _jdd(evidence: Evidence) -> str:
    kind = mapping(evidence.recipe, "objective").get("kind", "distill")
    others = " --config.nets=ConvNet,VGG11" if kind == "distill" else ""
    lines = [
        "python -m jdd.main --mode=evaluate \\",
        f"    --set=distilled.npz{others}",
        "",
        "# or from Python",
        "import jdd",
        's = jdd.load("distilled.npz")',
        "s.images, s.labels, s.recipe",
    ]
    return "\n".join(lines)


def _length(train: Mapping[str, Any]) -> str:
    order = train.get("order")
    if order == "classwise":
        what = f"{_n(train, 'per_class')} image(s) of a class a step"
    else:
        what = f"batches of {_n(train, 'batch')}" + (", in order" if order == "sequential" else "")
    if real(train.get("steps")):
        return f"{_n(train, 'steps')} steps, {what}"
    return f"{_n(train, 'epochs')} epochs in {what}"


def named(net: Mapping[str, Any]) -> str:
    """Name a net with the options it was made with."""
    options = ", ".join(f"{k} {v}" for k, v in mapping(net, "options").items())
    return f"{net.get('name', '')}{f' ({options})' if options else ''}"


def augmentation(augment: Mapping[str, Any]) -> str:
    """Name the augmentation that nets are trained with."""
    if augment.get("name") in (None, "", "none"):
        return "none"
    strategy = str(augment.get("strategy", "")).replace("_", ", ")
    return f"{str(augment.get('name')).upper()} ({strategy})"


def _input(found: Mapping[str, Any]) -> str:
    whitening = str(found.get("whitening", "none"))
    if whitening != "none":
        return f"whitened by {whitening.replace('_', ' ')}; mean and matrix are in the file"
    stats = mapping(found, "normalisation")
    mean, std = (
        ", ".join(number(v) for v in map(real, stats.get(k) or []) if v is not None)
        for k in ("mean", "std")
    )
    return f"(pixels − {mean}) / {std}, pixels in [0, 1]" if mean and std else ""


def _rate(evidence: Evidence) -> float:
    """Return the learning rate to train with: the recipe's, else the learned one."""
    said = real(mapping(evidence.recipe, "train").get("lr"))
    learned = evidence.dataset.lr if evidence.dataset else None
    return next((rate for rate in (said, learned) if rate is not None), 0.01)


def _n(found: Mapping[str, Any], name: str) -> str:
    value = real(found.get(name))
    return number(value) if value is not None else str(found.get(name, ""))
