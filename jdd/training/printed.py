"""What a training recipe is in words and in PyTorch: the report's sentences and its program.

``NAME_words`` returns a part of a sentence, ``NAME_code`` lines of the program, '' or none where
the recipe has nothing to say. ``training/recipe.py`` names them at its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdd.training import option
from jdd.training.option import figure

if TYPE_CHECKING:
    from jdd.training.recipe import Recipe

# Names in PyTorch; '' for none: its Muon is of weights with two axes alone.
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "muon": ""}
PAIRED = {  # for pairs, on the similarities of two towers
    "nce": "InfoNCE, image to text and text to image",
    "bce": "binary cross entropy of all pairs",
    "wbce": "binary cross entropy of all pairs, positive and negative ones weighing the same",
}
NORMS = {  # statistics of batch norm in tests, and the words of a sentence
    "running": "by its running statistics",
    "batch": "by the statistics of every 200 test images",
    "set": "recalibrated on the set's images",
    "real": "recalibrated on unlabelled real training images",
}
_KL = (
    "said = F.softmax(z_teacher{at} / {T}, 1)",
    "ours = F.log_softmax(net(v{at}) / {T}, 1)",
    'loss = F.kl_div(ours, said, reduction="batchmean"){squared}',
)
# Losses on stored labels: words and code. 'hard' needs no labels and has no code yet.
STORED: dict[str, tuple[str, tuple[str, ...]]] = {
    "kl": ("KL divergence from the teachers' labels, both at temperature {T}", _KL),
    "kl_squared": (
        "KL divergence from the teachers' labels, both at temperature T = {T}, times T²",
        _KL,
    ),
    "mse_gt": (
        "mean squared error against the teachers' logits + {weight} × cross entropy with the "
        "image's own class",
        (
            "s = net(v{at})",
            'own = y[e["index"][k]{at}.long()]',
            "loss = F.mse_loss(s, z_teacher{at})",
            "loss = loss + {weight} * F.cross_entropy(s, own)",
        ),
    ),
    "hard": ("cross entropy with the classes of what a view shows, by their shares", ()),
}


def loss_words(r: Recipe) -> str:
    if r.order != "stored":
        return PAIRED.get(r.loss, r.loss.replace("_", " "))
    return STORED[r.loss][0].format(T=figure(r.temperature), weight=figure(r.ce_weight))


def loss_code(r: Recipe) -> list[str]:
    if r.order == "stored":
        words = {
            "T": figure(r.temperature),
            "weight": figure(r.ce_weight),
            "squared": f" * {figure(r.temperature)}**2" if r.loss == "kl_squared" else "",
            "at": "[j]" if r.parts > 1 else "",
        }
        return [line.format(**words) for line in STORED[r.loss][1]]
    at = "[j]" if r.parts > 1 else ""
    if r.loss == "squared_error" or r.label_kind == "centred":
        wanted = f"torch.eye({r.classes})[y{at}]" if r.label_kind == "hard" else f"y{at}"
        return [f"loss = 0.5 * (net(x{at}) - {wanted}).square().sum(1).mean()"]
    return [f"loss = torch.nn.functional.cross_entropy(net(x{at}), y{at})"]


def optimiser_words(r: Recipe) -> str:
    return "muon (nadamw where a weight is no matrix)" if r.optimizer == "muon" else r.optimizer


def optimiser_code(r: Recipe) -> list[str]:
    weights, lines = "net.parameters()", []
    if r.decay == "matrices" and r.optimizer != "adam":
        lines = [
            "flat, deep = ([p for p in net.parameters() if (p.ndim > 1) == d]",
            "              for d in (False, True))",
        ]
        weights = '[{"params": deep}, {"params": flat, "weight_decay": 0}]'
    made = f"opt = torch.optim.{OPTIMIZERS[r.optimizer]}({weights},"
    return [*lines, made, f"    {', '.join(r.code('argument'))})"]


def drop_code(r: Recipe) -> list[str]:
    if r.drop is None or not isinstance(r.lr, float):
        return []
    after = r.replace(lr=r.lr * r.drop.factor)
    return [
        f"if epoch == {r.drop.after_epoch}:",
        *(f"    {line}" for line in optimiser_code(after)),
    ]


def drop_words(r: Recipe) -> str:
    if r.drop is None:
        return ""
    lower = f"; after epoch {r.drop.after_epoch} the rate is multiplied by {figure(r.drop.factor)}"
    return f"{lower} and momentum starts anew"


def parts_code(r: Recipe) -> list[str]:
    """A step: one gradient, or the mean over parts; batch norm sees a part at a time."""
    if r.parts == 1:
        return [*loss_code(r), "opt.zero_grad(); loss.backward(); opt.step()"]
    shown = "v" if r.order == "stored" else "x"
    return [
        "opt.zero_grad()",
        f"for j in torch.arange(len({shown})).chunk({r.parts}):  # batch norm sees a part",
        *(f"    {line}" for line in loss_code(r)),
        f"    (loss / {r.parts}).backward()",
        "opt.step()",
    ]


def decay_words(r: Recipe) -> str:
    if r.decay == "matrices" and r.optimizer != "adam":
        return " of matrices alone (no biases, no norms)"
    return " of all weights" if r.optimizer in ("adamw", "muon") else ""


def batch_words(r: Recipe) -> str:
    if r.order == "classwise":
        return f"{r.per_class} image{'s' * (r.per_class != 1)} of a class a step"
    return f"batches of {r.batch}"


ORDER_WORDS = {
    "sequential": ", in order",
    "stored": ", as they are stored",
    "drawn": ", each drawn anew",
}


def parts_words(r: Recipe) -> str:
    return f", in {r.parts} parts of which batch norm sees one at a time" if r.parts > 1 else ""


def factor_words(r: Recipe) -> str:
    if r.factor == 1:
        return ""
    return (
        f"; an image stands for {r.factor**2}: its {r.factor} × {r.factor} tiles, each enlarged to "
        "the whole size"
    )


def factor_code(r: Recipe) -> list[str]:
    if r.factor == 1:
        return []
    return [
        f"tiles = [t for rows in x.chunk({r.factor}, 2) for t in rows.chunk({r.factor}, 3)]",
        'larger = dict(size=x.shape[2:], mode="bilinear")',
        "x = torch.cat([torch.nn.functional.interpolate(t, **larger) for t in tiles])",
        f"y = torch.cat([y] * {r.factor**2})",
    ]


def relation_words(r: Recipe) -> str:
    """Name the terms of relation graphs (``matching/relations.py``)."""
    named = {"edges": r.irg_edges, "transformations": r.irg_transformations,
             "vertices": r.irg_vertices}  # fmt: skip
    terms = [f"{figure(weight)} × {name}" for name, weight in named.items() if weight]
    if not terms:
        return ""
    bugs = ", half the edges' derivative" if r.irg_half else ""
    return f" + the distance of the batch's graph from the teachers' ({', '.join(terms)}{bugs})"


def updates_words(r: Recipe) -> str:
    more = f"; running statistics move {r.norm_updates} times a step"
    return more if r.norm_updates > 1 else ""


def norm_words(r: Recipe) -> str:
    first, *more = r.test_norm.split(",")
    if more:
        ways = option.listed(NORMS[way] for way in (first, *more))
        return f"; batch norm is tested {ways}, and the first counts"
    if first == "batch":
        return f"; tested {NORMS[first]}"
    return "" if first == "running" else f"; tested with batch norm {NORMS[first]}"


def norm_code(r: Recipe) -> list[str]:
    way = r.test_norm.split(",")[0]
    if way == "running":
        return []
    if way == "batch":
        return ["# batch norm: tested in train mode, by every 200 test images"]
    if way == "real":
        return ["# batch norm: tested here by running statistics, by jdd by those of real images"]
    return [
        "for m in net.modules():  # batch norm: the statistics of the set",
        "    if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):",
        "        m.reset_running_stats(); m.momentum = None",
        "with torch.no_grad():",
        "    for part in x.tensor_split(-(-len(x) // 200)): net(part)",
    ]
