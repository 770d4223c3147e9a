"""PyTorch lines of the report's programs: the net that is trained, and its test."""

from __future__ import annotations

from jdd.config.rules import auto_depth
from jdd.report.evidence import Evidence, mapping

_NORMS = {
    "instance": "nn.GroupNorm({o}, {o})",  # one group per channel: with scale and shift
    "batch": "nn.BatchNorm2d({o})",
    "group": "nn.GroupNorm(4, {o})",
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
    dataset, made = evidence.dataset, mapping(evidence.recipe, "net")
    assert dataset is not None
    shape, name = dataset.images.shape[1:], str(made.get("name", ""))
    own = name.startswith("ConvNet")
    options = {**_CONVNETS.get(name, {}), **mapping(made, "options")} if own else {}
    width, depth = (options.get(key) for key in ("width", "depth"))
    o = width if isinstance(width, int) else 128
    blocks = depth if isinstance(depth, int) else auto_depth(shape)
    norm = _NORMS.get(str(options.get("norm", "instance")), _NORMS["instance"]).format(o=o)
    act = _ACTS.get(str(options.get("act", "relu")), _ACTS["relu"])
    pool = _POOLS.get(str(options.get("pool", "avg")), _POOLS["avg"])
    first = 3 if shape[2] == 1 else 1
    return [
        "nn = torch.nn",
        f"# {name}" if own else f"# any net; here a ConvNet in place of {name or 'its own'}",
        "def block(i, pad):",
        f"    conv = nn.Conv2d(i, {o}, 3, padding=pad)",
        f"    norm = {norm}",
        f"    return [conv, norm, {act}, {pool}]",
        f"net = nn.Sequential(*block({shape[2]}, {first}),",
        f"    *sum([block({o}, 1) for _ in range({blocks - 1})], []),",
        f"    nn.Flatten(), nn.LazyLinear({dataset.classes}))",
        "net(x[:2])  # sets the size of the last layer",
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
