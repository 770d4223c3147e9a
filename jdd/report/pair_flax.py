"""The printed Flax program that trains two towers on a set of pairs."""

from __future__ import annotations

from jdd.product.pairs import PairSet
from jdd.report import pair_lines, torch_net
from jdd.report.evidence import Evidence, mapping
from jdd.training.recipe import Recipe

# Losses on the logits l and the similarities S of a batch.
_LOSSES = {
    "bce": [
        "    on, off = jax.nn.log_sigmoid(l), jax.nn.log_sigmoid(-l)",
        "    return -(S * on + (1 - S) * off).mean()",
    ],
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


def program(evidence: Evidence) -> str | None:
    """Return the Flax code that trains on the pairs; None if its recipe has more than it says."""
    pairs, r = evidence.product, pair_lines.recipe_of(evidence)
    if not isinstance(pairs, PairSet) or r is None:
        return None
    size = pair_lines.towers(pairs)["size"]
    lines = [
        "import json, jax, jax.numpy as jnp, numpy as np",
        "import flax.linen as nn, optax",
        *pair_lines.arrays(pairs, r),
        "init = nn.initializers.variance_scaling(",
        '    1 / 3, "fan_in", "uniform")',
        "bias = lambda n: lambda *a: jax.random.uniform(  # as PyTorch's",
        "    *a, -(n**-0.5), n**-0.5)",
        "dense = lambda x, width: nn.Dense(",
        "    width, kernel_init=init, bias_init=bias(x.shape[-1]))(x)",
        *_flax_image(pairs, size),
        "class Text(nn.Module):",
        "    @nn.compact",
        "    def __call__(self, e):",
        f"        p = dense(e, {size})",
        f"        o = dense(nn.gelu(p, approximate=False), {size})",
        "        return nn.LayerNorm(epsilon=1e-5)(o + p)",
        "text = Text()",
        "keys = jax.random.split(jax.random.key(0))",
        *_flax_start(pairs),
        "unit = lambda h: h / jnp.linalg.norm(h, axis=1)[:, None]",
        "def logits(params, x, e):",
        f'    u = unit(image.apply(params["image"], x){".logits" * pair_lines.shared(pairs)})',
        '    v = unit(text.apply(params["text"], e))',
        f"    return u @ v.T / {pair_lines.number(pair_lines.towers(pairs)['tau'])}",
        "@jax.jit",
        "@jax.value_and_grad",
        "def step(params, x, e, S):",
        "    l = logits(params, x, e)",
        *_LOSSES[r.loss],
        "def sgd(factor):  # plain SGD, a rate for each tower",
        "    rule = lambda r: optax.chain(",
        f"        optax.add_decayed_weights({pair_lines.number(r.weight_decay)}),",
        f"        optax.sgd(factor * r, momentum={pair_lines.number(r.momentum)}))",
        "    rules = {name: rule(r) for name, r in lr.items()}",
        "    return optax.multi_transform(rules, {k: k for k in lr})",
        "tx = sgd(1); state = tx.init(params)",
        "draw = np.random.default_rng(0)",
        f"for epoch in range({pair_lines.passes(r, pairs)}):",
        *(f"    {line}" for line in pair_lines.lowered(r, "tx = sgd({}); state = tx.init(params)")),
        *_flax_batches(r, pairs),
        "        loss, g = step(params, x[b], e[b], S[b][:, b])",
        "        moves, state = tx.update(g, state, params)",
        "        params = optax.apply_updates(params, moves)",
        *pair_lines.printed("float(loss)"),
        *pair_lines.recall_lines(
            evidence,
            "l = logits(params, test.images, test.text)",
            "l = np.asarray(l)",
        ),
    ]
    return "\n".join(lines)


def _flax_image(pairs: PairSet, size: int) -> list[str]:
    """Return the lines of the image tower: an MLP, a ConvNet, or a ConvNet in place of another.

    If its start is shared, it is jdd's own net, which has that start.
    """
    made, shape = mapping(pairs.recipe, "net"), pairs.images.shape[1:]
    name = str(made.get("name", ""))
    if pair_lines.shared(pairs):
        return pair_lines.own_net(pairs, "image")
    head = ["    @nn.compact", "    def __call__(self, x):"]
    if hidden := pair_lines.hidden_layers(pairs):
        return [
            f"class Image(nn.Module):  # {name}",
            *head,
            "        x = x.reshape(len(x), -1)",
            f"        for _ in range({hidden}):",
            f"            x = nn.relu(dense(x, {pair_lines.width_of(made)}))",
            f"        return dense(x, {size})",
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
        "                           kernel_init=init,",
        "                           bias_init=bias(9 * x.shape[-1]))",
        "            x = conv(x)",
    ]
    if groups:
        lines.append(f"            x = nn.GroupNorm({groups})(x)")
    lines.append(f"            x = nn.{act}(x)")
    if net.pool != "none":
        lines.append(f"            x = nn.{net.pool}_pool(x, (2, 2), (2, 2))")
    return [*lines, f"        return dense(x.reshape(len(x), -1), {size})"]


def _flax_start(pairs: PairSet) -> list[str]:
    """Return the lines that draw the first weights of both towers."""
    first = "image.init(keys[0], x[:1])"
    if pair_lines.shared(pairs):
        first = f"image.init(jax.random.key({pair_lines.SEED}))"
    lines = ["image = Image()"] * (not pair_lines.shared(pairs))
    return [
        *lines,
        f'params = {{"image": {first},',
        '          "text": text.init(keys[1], e[:1])}',
    ]


def _flax_batches(r: Recipe, pairs: PairSet) -> list[str]:
    if r.order == "drawn":
        return [
            f"    for _ in range({r.steps_per_epoch(pairs.size)}):  # drawn anew",
            f"        b = draw.permutation(len(x))[:{r.batch}]",
        ]
    return [
        "    order = draw.permutation(len(x))",
        f"    for b in np.split(order, range({r.batch}, len(x), {r.batch})):",
    ]
