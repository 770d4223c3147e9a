"""Printed programs that train two towers on a set of pairs: in Flax, and in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jdd.product.pairs import PairSet
from jdd.report import torch_net
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.recipe import training
from jdd.training.recipe import Recipe

# Losses on the logits l and the similarities S of a batch, by library.
_JAX = {
    "nce": [
        "    rows = S * jax.nn.log_softmax(l, axis=1)",
        "    columns = S * jax.nn.log_softmax(l, axis=0)",
        "    return -(rows + columns).sum() / (2 * len(x))",
    ],
    "wbce": [
        "    p, P = jax.nn.sigmoid(l), S > 0.5",
        "    b = -S * jnp.log(p + 1e-6)",
        "    b = b - (1 - S) * jnp.log(1 - p + 1e-6)",
        "    parts = [(m * b).sum() / (m.sum() + 1e-6)",
        "             for m in (P, ~P)]",
        "    return 0.5 * sum(parts)",
    ],
}
_TORCH = {
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


def flax(evidence: Evidence) -> str | None:
    """Return the Flax code that trains on the pairs; None if its recipe has more than it says."""
    pairs, r = evidence.product, _recipe(evidence)
    if not isinstance(pairs, PairSet) or r is None:
        return None
    size = _towers(pairs)["size"]
    lines = [
        "import json, jax, jax.numpy as jnp, numpy as np",
        "import flax.linen as nn, optax",
        *_arrays(pairs, r),
        "init = nn.initializers.variance_scaling(",
        '    1 / 3, "fan_in", "uniform")',
        "dense = lambda width: nn.Dense(width, kernel_init=init)",
        *_flax_image(pairs, size),
        "class Text(nn.Module):",
        "    @nn.compact",
        "    def __call__(self, e):",
        f"        p = dense({size})(e)",
        f"        o = dense({size})(nn.gelu(p, approximate=False))",
        "        return nn.LayerNorm(epsilon=1e-5)(o + p)",
        "image, text = Image(), Text()",
        "keys = jax.random.split(jax.random.key(0))",
        'params = {"image": image.init(keys[0], x[:1]),',
        '          "text": text.init(keys[1], e[:1])}',
        "unit = lambda h: h / jnp.linalg.norm(h, axis=1)[:, None]",
        "def logits(params, x, e):",
        '    u = unit(image.apply(params["image"], x))',
        '    v = unit(text.apply(params["text"], e))',
        f"    return u @ v.T / {_number(_towers(pairs)['tau'])}",
        "@jax.jit",
        "@jax.value_and_grad",
        "def step(params, x, e, S):",
        "    l = logits(params, x, e)",
        *_JAX[r.loss],
        "def sgd(factor):  # plain SGD, a rate for each tower",
        "    rule = lambda r: optax.chain(",
        f"        optax.add_decayed_weights({_number(r.weight_decay)}),",
        f"        optax.sgd(factor * r, momentum={_number(r.momentum)}))",
        "    rules = {name: rule(r) for name, r in lr.items()}",
        "    return optax.multi_transform(rules, {k: k for k in lr})",
        "tx = sgd(1); state = tx.init(params)",
        "draw = np.random.default_rng(0)",
        f"for epoch in range({_passes(r, pairs)}):",
        *(f"    {line}" for line in _lowered(r, "tx = sgd({}); state = tx.init(params)")),
        "    order = draw.permutation(len(x))",
        f"    for b in np.split(order, range({r.batch}, len(x), {r.batch})):",
        "        loss, g = step(params, x[b], e[b], S[b][:, b])",
        "        moves, state = tx.update(g, state, params)",
        "        params = optax.apply_updates(params, moves)",
        *_printed("float(loss)"),
        *_test(
            evidence,
            "l = logits(params, test.images, test.text)",
            "l = np.asarray(l)",
        ),
    ]
    return "\n".join(lines)


def torch(evidence: Evidence) -> str | None:
    """Return the PyTorch code that trains on the pairs; None as for ``flax``."""
    pairs, r = evidence.product, _recipe(evidence)
    if not isinstance(pairs, PairSet) or r is None:
        return None
    d, size = pairs.text.shape[1], _towers(pairs)["size"]
    lines = [
        "import json, numpy as np, torch",
        "nn, F = torch.nn, torch.nn.functional",
        *_arrays(pairs, r),
        "x = torch.from_numpy(x).permute(0, 3, 1, 2)",
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
        f"    return u @ v.T / {_number(_towers(pairs)['tau'])}",
        "def loss_of(l, S):",
        *_TORCH[r.loss],
        "def sgd(factor):  # plain SGD, a rate for each tower",
        '    towers = {"image": image, "text": text}',
        '    groups = [{"params": net.parameters(),',
        '               "lr": factor * lr[name]}',
        "              for name, net in towers.items()]",
        f"    return torch.optim.SGD(groups, momentum={_number(r.momentum)},",
        f"        weight_decay={_number(r.weight_decay)})",
        "opt = sgd(1)",
        f"for epoch in range({_passes(r, pairs)}):",
        *(f"    {line}" for line in _lowered(r, "opt = sgd({})")),
        f"    for b in torch.randperm(len(x)).split({r.batch}):",
        "        loss = loss_of(logits(x[b], e[b]), S[b][:, b])",
        "        opt.zero_grad(); loss.backward(); opt.step()",
        *_printed("loss.item()"),
        *_test(
            evidence,
            "seen = torch.tensor(test.images).permute(0, 3, 1, 2)",
            "with torch.no_grad():",
            "    l = logits(seen, torch.tensor(test.text)).numpy()",
        ),
    ]
    return "\n".join(lines)


def _recipe(evidence: Evidence) -> Recipe | None:
    """Return the training recipe; None if the programs above lack one of its options."""
    r = training(mapping(evidence.recipe, "train"))
    if r is None or r.loss not in _JAX or r.optimizer != "sgd" or r.order != "shuffled":
        return None
    return None if r.ema or r.schedule or r.decay != "all" or isinstance(r.lr, tuple) else r


def _number(value: float) -> str:
    return f"{value:.6g}"


def _towers(pairs: PairSet) -> dict[str, Any]:
    return {"size": 64, "tau": 0.07, **mapping(pairs.recipe, "towers")}


def _arrays(pairs: PairSet, r: Recipe) -> list[str]:
    """Return the lines that read the set: images x, text vectors e, similarities S, rates lr."""
    h, w, c = pairs.images.shape[1:]
    rate = r.lr if isinstance(r.lr, float | int) else 0.1
    rates = pairs.rates or {"image": rate, "text": rate}
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
    learned = "  # learned" if pairs.rates else ""
    listed = ", ".join(f'"{name}": {rate:.6g}' for name, rate in rates.items())
    return [*lines, f"lr = {{{listed}}}{learned}"]


def _lowered(r: Recipe, line: str) -> list[str]:
    """Return the lines of an epoch's start that lower the rates; none without a drop."""
    if r.drop is None:
        return []
    return [
        f"if epoch == {r.drop.after_epoch + 1}:  # lower rates; momentum starts anew",
        f"    {line.format(_number(r.drop.factor))}",
    ]


def _passes(r: Recipe, pairs: PairSet) -> int:
    """Return the passes over the pairs: the recipe's, or those of its number of steps."""
    if not r.steps:
        return r.total_passes
    return math.ceil(r.steps / r.steps_per_epoch(pairs.size))


def _printed(loss: str) -> list[str]:
    line = f'        print(f"epoch {{epoch}}: loss {{{loss}:.4f}}")'
    return ["    if epoch % 25 == 0:", line]


def _flax_image(pairs: PairSet, size: int) -> list[str]:
    """Return the lines of the image tower: an MLP, a ConvNet, or a ConvNet in place of another."""
    made, shape = mapping(pairs.recipe, "net"), pairs.images.shape[1:]
    name = str(made.get("name", ""))
    head = ["    @nn.compact", "    def __call__(self, x):"]
    if name == "MLP":
        return [
            "class Image(nn.Module):  # MLP",
            *head,
            "        x = x.reshape(len(x), -1)",
            "        for _ in range(2):",
            f"            x = nn.relu(dense({_width(made)})(x))",
            f"        return dense({size})(x)",
        ]
    net = torch_net.convnet(made, shape, usual="none")
    groups = {"instance": net.width, "group": 4}.get(net.norm)
    act = {"leaky": "leaky_relu"}.get(net.act, net.act)
    what = f"any net; here a ConvNet in place of {name or 'its own'}"
    what = name if name.startswith("ConvNet") else what
    lines = [
        f"class Image(nn.Module):  # {what}",
        *head,
        f"        for i in range({net.depth}):",
        f"            pad = {'3 if i == 0 else 1' if shape[2] == 1 else '1'}",
        f"            conv = nn.Conv({net.width}, (3, 3), padding=pad,",
        "                           kernel_init=init)",
        "            x = conv(x)",
    ]
    if groups:
        lines.append(f"            x = nn.GroupNorm({groups})(x)")
    lines.append(f"            x = nn.{act}(x)")
    if net.pool != "none":
        lines.append(f"            x = nn.{net.pool}_pool(x, (2, 2), (2, 2))")
    return [*lines, f"        return dense({size})(x.reshape(len(x), -1))"]


def _torch_image(pairs: PairSet, size: int) -> list[str]:
    made, shape = mapping(pairs.recipe, "net"), pairs.images.shape[1:]
    if made.get("name") != "MLP":
        return torch_net.layers(made, shape, "image", size, usual="none")
    width, pixels = _width(made), math.prod(shape)
    return [
        "image = nn.Sequential(nn.Flatten(),  # MLP",
        f"    nn.Linear({pixels}, {width}), nn.ReLU(),",
        f"    nn.Linear({width}, {width}), nn.ReLU(), nn.Linear({width}, {size}))",
    ]


def _width(made: Mapping[str, Any]) -> int:
    return int(real(mapping(made, "options").get("width")) or 128)


def _test(evidence: Evidence, *embed: str) -> list[str]:
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
