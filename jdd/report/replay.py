"""Printed PyTorch programs that train on a set, assembled from the lines of its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import number
from jdd.report.recipe import augmentation, rate, spec, training
from jdd.training.printed import OPTIMIZERS, STORED
from jdd.training.recipe import Recipe
from jdd.training.schedules import Schedule

# How labels other than those of views are read, by mode.
_OTHERS = {
    "static": [
        'i = np.load("{store}/images.npz")  # of each image, for all its views:',
        'z_teacher = i["label/logits"]  # float16 [images, classes]',
    ],
    "map": [
        'i = np.load("{store}/images.npz")  # a map of each image:',
        'z = i["label/values"]  # float16 [images, k, h, w], the largest',
        'classes = i["label/indices"]  # theirs; the others have logit 0',
    ],
    "online": ["# no labels: the teachers in squeeze/ label each view shown"],
}


def numpy(evidence: Evidence) -> str:
    """Return the NumPy code that reads an epoch of the labels."""
    labels = mapping(evidence.recipe, "labels")
    wanted, mode = ['z_teacher = e["label/logits"]  # float16 [steps, b, classes]'], _mode(labels)
    if mode != "views":
        wanted = _OTHERS[mode]
    elif labels.get("form") != "logits":
        values = [] if labels.get("form") == "hard" else ['p = e["label/values"]  # [steps, b, k]']
        wanted = ['classes = e["label/indices"]  # [steps, b, k], likeliest first', *values]
    lines = [
        f"# {labels.get('store')} has to lie next to distilled.npz",
        "import numpy as np",
        f'e = np.load("{labels.get("store")}/e0000.npz")  # epoch 0',
        'rows = e["index"]  # [steps, b]: images of each step',
        'box = e["view/box"]  # top, left, height, width: crop,',
        "#   0 outside the image; resized to the image's size",
        'flip = e["view/flip"]  # then mirrored, left and right',
        *_strips(evidence),
        *_operations(evidence),
        'partner = e["view/partner"]  # place in the batch',
        'patch = e["view/patch"]  # rows lo, hi, columns lo, hi:',
        "#   the partner's view is seen there",
        'share = e["view/share"]  # share v + (1 - share) partner',
        *(line.format(store=labels.get("store")) for line in wanted),
    ]
    return "\n".join(lines)


def _mode(labels: Mapping[str, Any]) -> str:
    mode = str(labels.get("mode", "views"))
    return mode if mode in _OTHERS else "views"


def torch(evidence: Evidence, net: Sequence[str] = (), test: Sequence[str] = ()) -> str | None:
    """Return the PyTorch code that trains a net; None if only jdd can train by the recipe.

    ``net`` are lines that define the net, ``test`` lines that test it.
    """
    labels, r = mapping(evidence.recipe, "labels"), _recipe(evidence)
    if r is None or r.schedule is None or r.steps or r.drop or r.norm_updates > 1 or r.relates:
        return None
    if not OPTIMIZERS[r.optimizer]:
        return None
    if evidence.dataset is None or evidence.dataset.weights is not None:
        return None
    if spec(evidence).get("randaugment"):
        return None
    direct = labels.get("form") == "logits" and _mode(labels) == "views"
    if not (direct and r.order == "stored" and STORED[r.loss][1] and spec(evidence)):
        return None
    lines = [
        "import json, math, numpy as np, torch",
        "import torch.nn.functional as F",
        'z = np.load("distilled.npz")',
        'recipe = json.loads(str(z["recipe"]))',
        'x = torch.from_numpy(z["images"]).permute(0, 3, 1, 2)',
        'y = torch.from_numpy(z["labels"]).long()',
        'size, way = x.shape[2:], "bilinear"',
        *_view(evidence),
        *net,
        *r.code("make"),
        *_plan(r.schedule, r.epochs),
        f"for epoch in range({r.epochs}):",
        f'    e = np.load(f"{labels.get("store")}/e{{epoch:04d}}.npz")',
        "    e = {name: torch.from_numpy(e[name]) for name in e}",
        '    for k in range(len(e["index"])):',
        "        v = view(e, k)",
        '        z_teacher = e["label/logits"][k].float()',
        *(f"        {line}" for line in r.code("step")),
        "    plan.step()",
        *r.code("end"),
        *test,
    ]
    return "\n".join(lines)


def plain(evidence: Evidence, net: Sequence[str] = (), test: Sequence[str] = ()) -> str | None:
    """Return the PyTorch code that trains a net on a set with its own labels.

    ``net`` and ``test``: as for ``torch``.
    """
    dataset, r = evidence.dataset, _recipe(evidence)
    if dataset is None or r is None or not OPTIMIZERS[r.optimizer]:
        return None
    after = {"hard": ".long()", "logits": ".softmax(1)"}.get(dataset.label_kind, "")
    if dataset.weights is not None:  # cross entropy is linear in its targets
        r = r.replace(label_kind="probabilities")
        hard, classes = dataset.label_kind == "hard", dataset.classes
        after = f".long()\ny = torch.eye({classes})[y]" if hard else after
        after += '\ny = y * torch.from_numpy(z["weights"])[:, None]'
    turns = r.steps or r.total_passes
    n = len(dataset.images) * r.factor**2
    unit = r.steps_per_epoch(n) if r.steps else 1
    lines = [
        "import json, math, numpy as np, torch",
        'z = np.load("distilled.npz")',
        'recipe = json.loads(str(z["recipe"]))',
        'x = torch.from_numpy(z["images"]).permute(0, 3, 1, 2)',
        f'y = torch.from_numpy(z["labels"]){after}',
        *r.code("set"),
        *net,
        *r.code("make"),
        *(_plan(r.schedule, turns, unit) if r.schedule else ()),
        _loop(r),
        *(f"    {line}" for line in (*_batches(evidence, r, n), *r.code("step"))),
        *["    plan.step()"] * bool(r.schedule),
        *(f"    {line}" for line in r.code("turn")),
        *r.code("end"),
        *test,
    ]
    return "\n".join(lines)


def _loop(r: Recipe) -> str:
    """Return the line that begins the loop, with the number of epochs that the protocol names."""
    if r.steps:
        return f"for step in range({r.steps}):"
    if r.total_passes != r.epochs + 1 or not r.epochs:
        return f"for epoch in range({r.total_passes}):"
    return f"for epoch in range({r.epochs} + 1):  # epochs 0 to {r.epochs}"


def _recipe(evidence: Evidence) -> Recipe | None:
    """Return the set's recipe with its rate, its classes and the kind of its labels."""
    found, dataset = training(mapping(evidence.recipe, "train")), evidence.dataset
    if found is None or dataset is None:
        return None
    kind, classes = dataset.label_kind, dataset.classes
    return found.replace(lr=rate(evidence), label_kind=kind, classes=classes)


def _batches(evidence: Evidence, r: Recipe, n: int) -> list[str]:
    """Return the lines that select the images of one iteration."""
    lines = []
    if isinstance(mapping(evidence.recipe, "train").get("lr"), list):
        lines.append('opt.param_groups[0]["lr"] = recipe["train"]["lr"][step]')
    if r.order == "sequential":
        lines.append(f"# the next {r.batch} images as they are stored")
    elif r.order == "classwise":
        which = f"{r.classes_per_step} random classes" if r.classes_per_step else "every class"
        lines.append(f"# {r.per_class} random image{'s' * (r.per_class != 1)} of {which}")
    elif r.batch < n:
        lines.append(f"# in shuffled batches of {r.batch}")
    if augmentation(evidence) != "none":
        lines.append("# augment x as the recipe says")
    if r.cutmix:
        lines.append(f"# with chance {r.cutmix:g}: CutMix of x, labels mixed by area")
    return lines


def _plan(schedule: Schedule, turns: int, unit: int = 1) -> list[str]:
    """Return the lines that define ``plan``, which is stepped once per iteration."""
    plan = "plan = torch.optim.lr_scheduler.LambdaLR(opt, rate)"
    return [*schedule.factor_code(turns, unit), plan]


def _strips(evidence: Evidence) -> list[str]:
    if (real(spec(evidence).get("shuffle")) or 1) <= 1:
        return []
    return ['strips = e["view/rows"], e["view/cols"]  # before the', "#   crop: the strips' order"]


def _operations(evidence: Evidence) -> list[str]:
    if not spec(evidence).get("randaugment"):
        return []
    return [
        'ops, strength = e["view/ops"], e["view/strength"]',
        "#   RandAugment, first of all: jdd/augment/randaugment.py",
    ]


def _view(evidence: Evidence) -> list[str]:
    """Return the function that applies a step's views to its images."""
    found = spec(evidence)
    strips, pad = real(found.get("shuffle")) or 1, real(found.get("pad")) or 0
    shuffle, border, at = [], [], ("t", "l")
    if strips > 1:
        shuffle = [
            '        r, c = (e["view/" + w][k, i].tolist() for w in ("rows", "cols"))',
            f"        one = torch.cat([one.chunk({number(strips)}, 1)[j] for j in r], 1)",
            f"        one = torch.cat([one.chunk({number(strips)}, 2)[j] for j in c], 2)",
        ]
    if found.get("crop") == "padded":  # pixels outside are 0
        border = [f"        one = F.pad(one, ({number(pad)},) * 4)"]
        at = (f"t+{number(pad)}", f"l+{number(pad)}")
    return [
        "def view(e, k):",
        "    out = []",
        '    for i, n in enumerate(e["index"][k].tolist()):',
        "        one = x[n]",
        *shuffle,
        *border,
        '        t, l, h, w = e["view/box"][k, i].tolist()',
        f"        one = one[None, :, {at[0]}:{at[0]}+h, {at[1]}:{at[1]}+w]",
        "        out.append(F.interpolate(one, size, mode=way))",
        "    v = torch.cat(out)",
        '    flip = e["view/flip"][k][:, None, None, None]',
        "    v = torch.where(flip, v.flip(3), v)",
        '    other = v[e["view/partner"][k].long()]',
        '    share = e["view/share"][k][:, None, None, None]',
        "    v = share * v + (1 - share) * other",
        '    patch = e["view/patch"][k].tolist()',
        "    for one, its, (a, b, c, d) in zip(v, other, patch):",
        "        one[:, a:b, c:d] = its[:, a:b, c:d]",
        "    return v",
    ]
