"""PyTorch lines of the report's programs: the net that is trained, and its test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jdd.config.rules import auto_depth
from jdd.report.evidence import Evidence, mapping

_NORMS = {
    "instance": "nn.GroupNorm({o}, {o})",  # one group per channel: with scale and shift
    "batch": "nn.BatchNorm2d({o})",
    "group": "nn.GroupNorm(4, {o})",
    "layer": "nn.GroupNorm(1, {o})  # layer; its scale and shift by channel, not by pixel",
    "none": "nn.Identity()",
}
_ACTS = {
    "relu": "nn.ReLU()",
    "sigmoid": "nn.Sigmoid()",
    "leaky": "nn.LeakyReLU(0.01)",
    "swish": "nn.SiLU()",
}
_POOLS = {"avg": "nn.AvgPool2d(2)", "max": "nn.MaxPool2d(2)", "none": "nn.Identity()"}
_CONVNETS = {"ConvNetBN": {"norm": "batch"}, "ConvNetASwishBN": {"norm": "batch", "act": "swish"}}


def net(evidence: Evidence) -> list[str]:
    """Return the lines that define ``net``: the run's ConvNet, or one in place of another net.

    They read the images ``x`` ``[n, c, h, w]``.
    """
    dataset = evidence.dataset
    assert dataset is not None
    made, shape = mapping(evidence.recipe, "net"), dataset.images.shape[1:]
    return ["nn = torch.nn", *layers(made, shape, "net", dataset.classes)]


class ConvNet(NamedTuple):
    """A ConvNet's own options with the defaults filled in; norm, act and pool by their names."""

    width: int
    depth: int
    norm: str
    act: str
    pool: str


def convnet(made: Mapping[str, Any], shape: Sequence[int], usual: str = "instance") -> ConvNet:
    """Return the ConvNet of a recipe's entry ``net``; the usual one for another net.

    Args:
      shape: (h, w, c) of an image.
      usual: the normalisation where the entry has none.
    """
    name = str(made.get("name", ""))
    own = name.startswith("ConvNet")
    options = {**_CONVNETS.get(name, {}), **mapping(made, "options")} if own else {}
    width, depth = (options.get(key) for key in ("width", "depth"))
    known = {"norm": (_NORMS, usual), "act": (_ACTS, "relu"), "pool": (_POOLS, "avg")}
    found = {
        key: str(options[key]) if options.get(key) in table else default
        for key, (table, default) in known.items()
    }
    blocks = depth if isinstance(depth, int) else auto_depth((shape[0], shape[1], shape[2]))
    return ConvNet(width if isinstance(width, int) else 128, blocks, **found)


def layers(
    made: Mapping[str, Any],
    shape: Sequence[int],
    name: str,
    outputs: int,
    usual: str = "instance",
) -> list[str]:
    """Return the lines that define a net of ``outputs`` outputs as ``name``.

    It is the ConvNet of a recipe's entry ``net``, or one in place of another net; ``shape`` and
    ``usual`` as for ``convnet``.
    """
    own, net = str(made.get("name", "")), convnet(made, shape, usual)
    o = net.width
    described = own if own.startswith("ConvNet") else f"any net; here a ConvNet in place of {own}"
    return [
        f"# {described}" if own else "# any net; here a ConvNet in place of its own",
        "def block(i, pad):",
        f"    conv = nn.Conv2d(i, {o}, 3, padding=pad)",
        f"    norm = {_NORMS[net.norm].format(o=o)}",
        f"    return [conv, norm, {_ACTS[net.act]}, {_POOLS[net.pool]}]",
        f"{name} = nn.Sequential(*block({shape[2]}, {3 if shape[2] == 1 else 1}),",
        f"    *sum([block({o}, 1) for _ in range({net.depth - 1})], []),",
        f"    nn.Flatten(), nn.LazyLinear({outputs}))",
        f"{name}(x[:2])  # sets the size of the last layer",
    ]


def test(evidence: Evidence) -> list[str]:
    """Return the lines that print the test accuracy of ``net``."""
    path = str(mapping(evidence.recipe, "data").get("path") or "")
    relative = bool(path) and not path.startswith(("/", "~"))
    return [
        "# test images in the set's space; without jdd:",
        "# x_test of the first box, and your labels",
        "from jdd import data",
        *["# (data.path is relative to where the run was started)"] * relative,
        'test = data.load(recipe["data"]).test',
        "x_test = torch.from_numpy(np.array(test.images))",
        "x_test = x_test.permute(0, 3, 1, 2)",
        "net.eval()",
        "with torch.no_grad():",
        "    out = [net(b) for b in x_test.split(500)]",
        "found = torch.cat(out).argmax(1)",
        "right = found.numpy() == np.array(test.labels)",
        'print(f"test accuracy {100 * right.mean():.1f} %")',
    ]
