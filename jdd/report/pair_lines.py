"""Lines that the printed programs of pairs share (``pair_flax.py``, ``pair_torch.py``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jdd.product.pairs import PairSet
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.recipe import training
from jdd.training.printed import PAIRED
from jdd.training.recipe import Recipe

ORDERS = ("shuffled", "drawn")
SEED = 0  # of the image tower that all nets start with (``nets/towers.py``)


def recipe_of(evidence: Evidence) -> Recipe | None:
    """Return the training recipe; None if the programs lack one of its options."""
    r = training(mapping(evidence.recipe, "train"))
    if r is None or r.loss not in PAIRED or r.optimizer != "sgd" or r.order not in ORDERS:
        return None
    towers = mapping(evidence.recipe, "towers")
    few = mapping(evidence.recipe, "lora").get("rank") or towers.get("frozen")
    if towers.get("weights") or few:
        return None  # pretrained weights are in a file of their own; others are trained in part
    return None if r.ema or r.schedule or r.decay != "all" or isinstance(r.lr, tuple) else r


def shared(pairs: PairSet) -> bool:
    """Return whether all image towers start with the same weights, for which the pairs are made."""
    return towers(pairs).get("start") == "shared"


def hidden_layers(pairs: PairSet) -> int:
    """Return the hidden layers of an MLP; 0 of another net."""
    return {"MLP": 2, "MLP1": 1}.get(str(mapping(pairs.recipe, "net").get("name")), 0)


def number(value: float) -> str:
    """Return a number to six digits."""
    return f"{value:.6g}"


def towers(pairs: PairSet) -> dict[str, Any]:
    """Return the towers' entries of the recipe, size and tau among them."""
    return {"size": 64, "tau": 0.07, **mapping(pairs.recipe, "towers")}


def arrays(pairs: PairSet, r: Recipe) -> list[str]:
    """Return the lines that read the set: images x, text vectors e, similarities S, rates lr."""
    h, w, c = pairs.images.shape[1:]
    rate = r.lr if isinstance(r.lr, float | int) else 0.1
    rates = pairs.applied_rates or {"image": rate, "text": rate}
    learned = "  # learned" if pairs.applied_rates else ""
    if pairs.applied_rates and r.rates == "image":
        rates, learned = dict.fromkeys(rates, rates["image"]), "  # that of the image tower"
    lines = [
        'z = dict(np.load("distilled.npz"))',
        'recipe = json.loads(str(z["recipe"]))',
        f'x = z["images"]  # float32 ({pairs.size}, {h}, {w}, {c}), normalised',
        f'e = z["text_embeddings"]  # float32 ({pairs.size}, {pairs.text.shape[1]})',
    ]
    if pairs.similarity is None:
        lines.append("S = np.eye(len(x), dtype=np.float32)")
    else:
        lines.append('S = np.diag(z["similarity/w"])  # of image i and text j')
        if rank := pairs.similarity.left.shape[1]:
            lines += [
                'L, R = z["similarity/L"], z["similarity/R"]',
                f'S = S + z["similarity/alpha"] / {rank} * L @ R.T',
                "S = S.astype(np.float32)",
            ]
    listed = ", ".join(f'"{name}": {rate:.6g}' for name, rate in rates.items())
    return [*lines, f"lr = {{{listed}}}{learned}"]


def lowered(r: Recipe, line: str) -> list[str]:
    """Return the lines of an epoch's start that lower the rates; none without a drop."""
    if r.drop is None:
        return []
    return [
        f"if epoch == {r.drop.after_epoch + 1}:  # lower rates; momentum starts anew",
        f"    {line.format(number(r.drop.factor))}",
    ]


def passes(r: Recipe, pairs: PairSet) -> int:
    """Return the passes over the pairs: the recipe's, or those of its number of steps."""
    if not r.steps:
        return r.total_passes
    return math.ceil(r.steps / r.steps_per_epoch(pairs.size))


def printed(loss: str) -> list[str]:
    """Return the lines that print the loss of every 25th epoch."""
    line = f'        print(f"epoch {{epoch}}: loss {{{loss}:.4f}}")'
    return ["    if epoch % 25 == 0:", line]


def own_net(pairs: PairSet, name: str) -> list[str]:
    """Return the lines that make jdd's own image tower as ``name``."""
    made, (h, w, c) = mapping(pairs.recipe, "net"), pairs.images.shape[1:]
    options = "".join(f", {k}={v!r}" for k, v in mapping(made, "options").items())
    return [
        "from jdd import nets  # for the start that all image towers have",
        f'{name} = nets.make("{made.get("name")}", ({h}, {w}, {c}),',
        f"    {towers(pairs)['size']}{options})",
    ]


def width_of(made: Mapping[str, Any]) -> int:
    """Return the width of an MLP, by a recipe's entry ``net``."""
    return int(real(mapping(made, "options").get("width")) or 128)


def recall_lines(evidence: Evidence, *embed: str) -> list[str]:
    """Return the lines that print the recalls of the trained towers; ``embed`` make the logits."""
    path = str(mapping(evidence.recipe, "data").get("path") or "")
    relative = bool(path) and not path.startswith(("/", "~"))
    return [
        "# needs jdd; without it, your own images and text vectors",
        "from jdd.data import pairs",
        *["# (data.path is relative to where the run was started)"] * relative,
        "test = pairs.of_recipe(recipe).test",
        *embed,
        "of, texts = test.meaning, test.meaning[test.image_of]",
        "right = of[:, None] == texts  # which captions suit an image",
        "def report(way, l, right):",
        "    near = np.argsort(-l, axis=1)[:, :10]",
        "    hit = np.take_along_axis(right, near, axis=1)",
        "    for k in (1, 5, 10):",
        "        found = 100 * hit[:, :k].any(axis=1).mean()",
        '        print(f"{way} R@{k} {found:.1f} %")',
        'report("image to text", l, right)',
        'report("text to image", l.T, right.T)',
    ]
