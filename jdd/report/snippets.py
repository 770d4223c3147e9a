"""Code and commands of the report: load the set, train on it, make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from jdd.product.distilled_set import DistilledSet
from jdd.report import recipe, replay
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import number
from jdd.report.recipe import augmentation, value


class Snippet(NamedTuple):
    """Code that runs next to the set, and what it does."""

    title: str
    code: str


def snippets(evidence: Evidence) -> list[Snippet]:
    """Return how to load the set and train on it, with this set's own numbers."""
    if evidence.dataset is None:
        return []
    blocks: list[tuple[str, str | None]] = [
        ("NumPy: the arrays, and test images in their space", numpy(evidence)),
        ("jdd: evaluate it again", _jdd(evidence)),
    ]
    if evidence.stored:
        blocks.append(("NumPy: what nets see and learn in an epoch", replay.numpy(evidence)))
        blocks.append(("PyTorch: train any net on it", replay.torch(evidence)))
    elif mapping(evidence.recipe, "objective").get("kind", "distill") == "distill":
        blocks.append(("PyTorch: train any net on it", torch(evidence)))
    else:
        title = "PyTorch: the steps, on one of the pretrained nets"
        blocks.append((title, torch(evidence)))
    return [Snippet(title, code) for title, code in blocks if code]


def settings(evidence: Evidence) -> str:
    """Return every setting of the run as JSON, '' where config.json is missing."""
    return json.dumps(evidence.config, indent=2, default=str) if evidence.config else ""


def version(evidence: Evidence) -> str:
    """Return the version of jdd that made the run, '' if unknown."""
    found = mapping(evidence.result, "versions").get("jdd") or evidence.recipe.get("jdd_version")
    return str(found or "")


def numpy(evidence: Evidence) -> str:
    """Return NumPy code that loads the arrays and moves test images into their space."""
    dataset = evidence.dataset
    assert dataset is not None
    labels = "int32" if dataset.label_kind == "hard" else f"float32, {dataset.label_kind}"
    labels = "int32: the classes" if evidence.stored else labels
    lines = [
        "import json",
        "import numpy as np",
        'z = np.load("distilled.npz")  # no pickle in it',
        f'x = z["images"]  # float32 {tuple(dataset.images.shape)}',
        f'y = z["labels"]  # {labels}',
        'recipe = json.loads(str(z["recipe"]))',
        "# pixels: your images, (n, h, w, c) in [0, 1]",
        *_transform(dataset),
    ]
    return "\n".join(lines)


def _transform(dataset: DistilledSet) -> list[str]:
    """Return the lines that normalise, or whiten, pixels."""
    if not dataset.transform.whitens:
        return ['x_test = (pixels - z["mean"]) / z["std"]']
    whiten = 'x_test = (flat @ z["zca_matrix"]).reshape(pixels.shape)'
    if dataset.transform.kind == "kip":
        return [
            "flat = pixels.reshape(len(pixels), -1)",
            "flat = flat - flat.mean(1, keepdims=True)",
            "flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)",
            whiten,
        ]
    mean = 'flat = pixels.reshape(len(pixels), -1) - z["zca_mean"]'
    first = ['pixels = (pixels - z["mean"]) / z["std"]'] * (dataset.transform.kind == "frepo")
    return [*first, mean, whiten]


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


def _jdd(evidence: Evidence) -> str:
    kind = mapping(evidence.recipe, "objective").get("kind", "distill")
    others = " --config.nets=ConvNet,VGG11" if kind == "distill" else ""
    lines = [
        "python -m jdd.main --mode=evaluate \\",
        f"    --set=distilled.npz{others}",
        *([f"# {_folders(evidence)} to stay next to the set"] * evidence.stored),
        "",
        "# or from Python",
        "import jdd",
        's = jdd.load("distilled.npz")',
        "s.images, s.labels, s.recipe",
        *(['jdd.evaluate("distilled.npz")  # the path, for its labels'] * evidence.stored),
    ]
    return "\n".join(lines)


def _folders(evidence: Evidence) -> str:
    online = mapping(evidence.recipe, "labels").get("mode") == "online"
    return "the folders labels/ and squeeze/ have" if online else "the folder labels/ has"
