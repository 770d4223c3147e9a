"""Code that trains on a set whose views and labels are stored, as the recipe of the set says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import number
from jdd.report.recipe import rate, spec, value

_KL = (
    "said = F.softmax(z_teacher{at} / {T}, 1)",
    "ours = F.log_softmax(net(v{at}) / {T}, 1)",
    'loss = F.kl_div(ours, said, reduction="batchmean"){squared}',
)
LOSSES = {
    "kl": _KL,
    "kl_squared": _KL,
    "mse_gt": (
        "s = net(v{at})",
        'own = y[e["index"][k]{at}.long()]',
        "loss = F.mse_loss(s, z_teacher{at})",
        "loss = loss + {weight} * F.cross_entropy(s, own)",
    ),
}
# How labels are read that are not those of views, by their mode.
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
OPTIMISERS = {"adamw": "AdamW", "sgd": "SGD"}


def numpy(evidence: Evidence) -> str:
    """Return how an epoch of the labels is read with NumPy."""
    said = mapping(evidence.recipe, "labels")
    wanted, mode = ['z_teacher = e["label/logits"]  # float16 [steps, b, classes]'], _mode(said)
    if mode != "views":
        wanted = _OTHERS[mode]
    elif said.get("form") != "logits":
        values = [] if said.get("form") == "hard" else ['p = e["label/values"]  # [steps, b, k]']
        wanted = ['classes = e["label/indices"]  # [steps, b, k], likeliest first', *values]
    lines = [
        f"# {said.get('store')} has to lie beside distilled.npz",
        "import numpy as np",
        f'e = np.load("{said.get("store")}/e0000.npz")  # epoch 0',
        'rows = e["index"]  # [steps, b]: images of each step',
        'box = e["view/box"]  # top, left, height, width: crop,',
        "#   0 outside the image; resized to the image's size",
        'flip = e["view/flip"]  # then mirrored, left and right',
        *_strips(evidence),
        'partner = e["view/partner"]  # place in the batch',
        'patch = e["view/patch"]  # rows lo, hi, columns lo, hi:',
        "#   the partner's view is seen there",
        'share = e["view/share"]  # share v + (1 - share) partner',
        *(line.format(store=said.get("store")) for line in wanted),
    ]
    return "\n".join(lines)


def _mode(said: Mapping[str, Any]) -> str:
    mode = str(said.get("mode", "views"))
    return mode if mode in _OTHERS else "views"


def torch(evidence: Evidence) -> str | None:
    """Return how a net is trained with PyTorch; None for what only jdd does."""
    train, said = mapping(evidence.recipe, "train"), mapping(evidence.recipe, "labels")
    name, planned = str(train.get("loss")), mapping(train, "schedule").get("kind") == "cosine"
    direct = said.get("form") == "logits" and _mode(said) == "views"
    simple = direct and name in LOSSES and spec(evidence)
    if not (simple and planned) or train.get("steps") or train.get("optimizer") not in OPTIMISERS:
        return None
    if (real(train.get("norm_updates")) or 1) > 1:
        return None
    parts = int(real(train.get("parts")) or 1)
    words = {
        "T": value(train, "temperature"),
        "weight": value(train, "ce_weight"),
        "squared": f" * {value(train, 'temperature')}**2" if name == "kl_squared" else "",
        "at": "[j]" if parts > 1 else "",
    }
    fall = [line.format(**words) for line in LOSSES[name]]
    lines = [
        "import math, numpy as np, torch",
        "import torch.nn.functional as F",
        'z = np.load("distilled.npz")',
        'x = torch.from_numpy(z["images"]).permute(0, 3, 1, 2)',
        'y = torch.from_numpy(z["labels"]).long()',
        'size, way = x.shape[2:], "bilinear"',
        *_view(evidence),
        *_optimiser(evidence),
        *_schedule(train),
        f"for epoch in range({value(train, 'epochs')}):",
        f'    e = np.load(f"{said.get("store")}/e{{epoch:04d}}.npz")',
        "    e = {name: torch.from_numpy(e[name]) for name in e}",
        '    for k in range(len(e["index"])):',
        "        v = view(e, k)",
        '        z_teacher = e["label/logits"][k].float()',
        *(f"        {line}" for line in _step(fall, parts)),
        "    plan.step()",
    ]
    return "\n".join(lines)


def _step(fall: list[str], parts: int) -> list[str]:
    """Return the lines of a step that make ``loss`` and go down it; a loop where it has parts."""
    if parts == 1:
        return [*fall, "opt.zero_grad(); loss.backward(); opt.step()"]
    return [
        "opt.zero_grad()",
        f"for j in torch.arange(len(v)).chunk({parts}):  # batch norm sees a part",
        *(f"    {line}" for line in fall),
        f"    (loss / {parts}).backward()",
        "opt.step()",
    ]


def _strips(evidence: Evidence) -> list[str]:
    if (real(spec(evidence).get("shuffle")) or 1) <= 1:
        return []
    return ['strips = e["view/rows"], e["view/cols"]  # before the', "#   crop: the strips' order"]


def _view(evidence: Evidence) -> list[str]:
    """Return the function that shows a step's images as its views say."""
    found = spec(evidence)
    strips, pad = real(found.get("shuffle")) or 1, real(found.get("pad")) or 0
    shuffle, border, at = [], [], ("t", "l")
    if strips > 1:
        shuffle = [
            '        r, c = (e["view/" + w][k, i].tolist() for w in ("rows", "cols"))',
            f"        one = torch.cat([one.chunk({number(strips)}, 1)[j] for j in r], 1)",
            f"        one = torch.cat([one.chunk({number(strips)}, 2)[j] for j in c], 2)",
        ]
    if found.get("crop") == "padded":  # what lies outside is 0
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


def _optimiser(evidence: Evidence) -> list[str]:
    train = mapping(evidence.recipe, "train")
    name, weights, lines = OPTIMISERS[str(train.get("optimizer"))], "net.parameters()", []
    if name == "AdamW" and train.get("decay") == "matrices":
        lines = [
            "flat, deep = ([p for p in net.parameters() if (p.ndim > 1) == d]",
            "              for d in (False, True))",
        ]
        weights = '[{"params": deep}, {"params": flat, "weight_decay": 0}]'
    options = f"lr={rate(evidence):.6g}, weight_decay={value(train, 'weight_decay')}"
    options += f", momentum={value(train, 'momentum')}" * (name == "SGD")
    return [*lines, f"opt = torch.optim.{name}({weights},", f"    {options})"]


def _schedule(train: Mapping[str, Any]) -> list[str]:
    """Return the lines that make ``plan``, a cosine that moves once an epoch."""
    schedule = mapping(train, "schedule")
    epochs, warm = real(train.get("epochs")) or 1.0, real(schedule.get("warmup")) or 0.0
    length = (real(schedule.get("stretch")) or 1.0) * max(epochs - warm, 1)
    since = f"(t - {number(warm)})" if warm else "t"
    fall = f"(1 + math.cos(math.pi * {since} / {number(length)})) / 2"
    lines = [f"rate = lambda t: {fall}"]
    if warm:
        lines = [f"rate = lambda t: 0.01 + 0.99 * t / {number(warm)} if t < {number(warm)} \\"]
        lines.append(f"    else {fall}")
    return [*lines, "plan = torch.optim.lr_scheduler.LambdaLR(opt, rate)"]
