"""The printed PyTorch program that trains two towers on a set of pairs."""

from __future__ import annotations

import math

from jdd.product.pairs import PairSet
from jdd.report import pair_lines, torch_net
from jdd.report.evidence import Evidence, mapping
from jdd.training.recipe import Recipe

# Losses on the logits l and the similarities S of a batch.
_LOSSES = {
    "bce": ["    return F.binary_cross_entropy_with_logits(l, S)"],
    "nce": [
        "    rows, columns = S * l.log_softmax(1), S * l.log_softmax(0)",
        "    return -(rows + columns).sum() / (2 * len(l))",
    ],
    "wbce": [
        "    p, P = l.sigmoid(), S > 0.5",
        "    b = -S * torch.log(p + 1e-6)",
        "    b = b - (1 - S) * torch.log(1 - p + 1e-6)",
        "    parts = [(m * b).sum() / (m.sum() + 1e-6)",
        "             for m in (P, ~P)]",
        "    return 0.5 * sum(parts)",
    ],
}


def program(evidence: Evidence) -> str | None:
    """Return the PyTorch code that trains on the pairs; None as for ``pair_flax.program``."""
    pairs, r = evidence.product, pair_lines.recipe_of(evidence)
    if not isinstance(pairs, PairSet) or r is None:
        return None
    d, size = pairs.text.shape[1], pair_lines.towers(pairs)["size"]
    axes = "" if pair_lines.hidden_layers(pairs) else ".permute(0, 3, 1, 2)"
    lines = [
        "import json, numpy as np, torch",
        "nn, F = torch.nn, torch.nn.functional",
        *pair_lines.arrays(pairs, r),
        f"x = torch.from_numpy(x){axes}",
        "e, S = torch.from_numpy(e), torch.from_numpy(S)",
        *_torch_image(pairs, size),
        "class Text(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        f"        self.a = nn.Linear({d}, {size})",
        f"        self.b = nn.Linear({size}, {size})",
        f"        self.norm = nn.LayerNorm({size})",
        "    def forward(self, e):",
        "        p = self.a(e)",
        "        return self.norm(p + self.b(F.gelu(p)))",
        "text = Text()",
        "def logits(x, e):",
        "    u, v = F.normalize(image(x)), F.normalize(text(e))",
        f"    return u @ v.T / {pair_lines.number(pair_lines.towers(pairs)['tau'])}",
        "def loss_of(l, S):",
        *_LOSSES[r.loss],
        "def sgd(factor):  # plain SGD, a rate for each tower",
        '    towers = {"image": image, "text": text}',
        '    groups = [{"params": net.parameters(),',
        '               "lr": factor * lr[name]}',
        "              for name, net in towers.items()]",
        f"    return torch.optim.SGD(groups, momentum={pair_lines.number(r.momentum)},",
        f"        weight_decay={pair_lines.number(r.weight_decay)})",
        "opt = sgd(1)",
        f"for epoch in range({pair_lines.passes(r, pairs)}):",
        *(f"    {line}" for line in pair_lines.lowered(r, "opt = sgd({})")),
        *_torch_batches(r, pairs),
        "        loss = loss_of(logits(x[b], e[b]), S[b][:, b])",
        "        opt.zero_grad(); loss.backward(); opt.step()",
        *pair_lines.printed("loss.item()"),
        *pair_lines.recall_lines(
            evidence,
            f"seen = torch.tensor(test.images){axes}",
            "with torch.no_grad():",
            "    l = logits(seen, torch.tensor(test.text)).numpy()",
        ),
    ]
    return "\n".join(lines)


def _torch_image(pairs: PairSet, size: int) -> list[str]:
    made, shape = mapping(pairs.recipe, "net"), pairs.images.shape[1:]
    hidden, width = pair_lines.hidden_layers(pairs), pair_lines.width_of(made)
    if not hidden:
        note = "# the pairs are made for one start of jdd's net: others recall less"
        lines = torch_net.layers(made, shape, "image", size, usual="none")
        return [*[note] * pair_lines.shared(pairs), *lines]
    sizes = (math.prod(shape), *[width] * hidden)
    lines = [
        f"    nn.Linear({before}, {after}), nn.ReLU(),"
        for before, after in zip(sizes, sizes[1:], strict=False)
    ]
    lines = [
        f"image = nn.Sequential(nn.Flatten(),  # {made.get('name')}",
        *lines,
        f"    nn.Linear({width}, {size}))",
    ]
    if not pair_lines.shared(pairs):
        return lines
    return [
        *lines,
        "import jax",
        *pair_lines.own_net(pairs, "own"),
        f"start = own.init(jax.random.key({pair_lines.SEED}))",
        'for layer, name in zip(image[1::2], sorted(start["params"])):',
        '    one = start["params"][name]',
        '    layer.weight.data = torch.tensor(np.array(one["kernel"]).T)',
        '    layer.bias.data = torch.tensor(np.array(one["bias"]))',
    ]


def _torch_batches(r: Recipe, pairs: PairSet) -> list[str]:
    if r.order == "drawn":
        return [
            f"    for _ in range({r.steps_per_epoch(pairs.size)}):  # drawn anew",
            f"        b = torch.randperm(len(x))[:{r.batch}]",
        ]
    return [f"    for b in torch.randperm(len(x)).split({r.batch}):"]
