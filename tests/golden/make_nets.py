"""Writes nets.npz: what PyTorch's operations make of the cases in net_cases.py (float64).

    PYTHONPATH=. python tests/golden/make_nets.py

Needs torch. The nets are written a second time here, from their definition, with torch's own
convolution, pooling and normalisations; jdd gives only the shapes of the variables.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import torch
import torch.nn.functional as F

from jdd import nets

sys.path.insert(0, str(Path(__file__).parent))
import net_cases  # noqa: E402


class Forward:
    """A forward pass over flat variables; batch statistics are updated in place when training."""

    def __init__(self, variables, train):
        self.train, self.params, self.stats = train, {}, {}
        for path, value in flat(variables).items():
            kind, name = path.split("/", 1)
            tensor = torch.tensor(value)
            if kind == "params":
                self.params[name] = tensor.requires_grad_()
            else:
                self.stats[name] = tensor

    def conv(self, name, x, stride=1, padding=1):
        kernel = self.params[f"{name}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.params.get(f"{name}/bias"), stride, padding)

    def dense(self, name, x):
        return F.linear(x, self.params[f"{name}/kernel"].T, self.params[f"{name}/bias"])

    def norm(self, kind, name, x):
        if kind == "none":
            return x
        scale, bias = self.params[f"{name}/scale"], self.params[f"{name}/bias"]
        if kind == "layer":
            scale, bias = scale.permute(2, 0, 1), bias.permute(2, 0, 1)
            return F.layer_norm(x, x.shape[1:], scale, bias)
        if kind == "batch":
            mean, var = self.stats[f"{name}/mean"], self.stats[f"{name}/var"]
            return F.batch_norm(x, mean, var, scale, bias, self.train)
        return F.group_norm(x, x.shape[1] if kind == "instance" else 4, scale, bias)


def flat(tree, path=""):
    """Nested dictionary -> {"a/b": leaf}."""
    out = {}
    for name, value in tree.items():
        out |= flat(value, f"{path}{name}/") if isinstance(value, dict) else {path + name: value}
    return out


def flatten(x):
    """torch [n, c, h, w] -> [n, h*w*c], the order of jdd."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)


ACTS = {"relu": F.relu, "sigmoid": torch.sigmoid, "leaky": F.leaky_relu, "swish": F.silu}
POOLS = {
    "avg": lambda x: F.avg_pool2d(x, 2, 2),
    "max": lambda x: F.max_pool2d(x, 2, 2),
    "none": lambda x: x,
}


def convnet(f, x, norm="instance", act="relu", pool="avg", depth=3, **_):
    for i in range(1, depth + 1):
        x = f.conv(f"conv{i}", x, padding=3 if x.shape[1] == 1 and i == 1 else 1)
        x = POOLS[pool](ACTS[act](f.norm(norm, f"norm{i}", x)))
    return flatten(x)


def mlp(f, x, **_):
    x = F.relu(f.dense("dense1", flatten(x)))
    return F.relu(f.dense("dense2", x))


def lenet(f, x, **_):
    x = F.max_pool2d(F.relu(f.conv("conv1", x, padding=2 if x.shape[1] == 1 else 0)), 2)
    x = flatten(F.max_pool2d(F.relu(f.conv("conv2", x, padding=0)), 2))
    return F.relu(f.dense("dense4", F.relu(f.dense("dense3", x))))


def alexnet(f, x, norm="none", **_):
    pads = [4 if x.shape[1] == 1 else 2, 2, 1, 1, 1]
    for i, padding in enumerate(pads, 1):
        x = F.relu(f.norm(norm, f"norm{i}", f.conv(f"conv{i}", x, padding=padding)))
        x = F.max_pool2d(x, 2) if i in (1, 2, 5) else x
    return flatten(x)


def vgg11(f, x, norm="instance", **_):
    for i in range(1, 9):
        x = f.conv(f"conv{i}", x, padding=3 if x.shape[1] == 1 and i == 1 else 1)
        x = F.relu(f.norm(norm, f"norm{i}", x))
        x = F.max_pool2d(x, 2) if i in (1, 2, 4, 6, 8) else x
    return flatten(x)


def resnet18(f, x, norm="instance", pooled=False, **_):
    x = F.relu(f.norm(norm, "norm0", f.conv("conv0", x)))
    for stage in range(1, 5):
        for i in (1, 2):
            at, stride = f"stage{stage}_{i}", 2 if stage > 1 and i == 1 else 1
            step = 1 if pooled else stride
            y = F.relu(f.norm(norm, f"{at}/norm1", f.conv(f"{at}/conv1", x, step)))
            y = F.avg_pool2d(y, 2, 2) if pooled and stride == 2 else y
            y = f.norm(norm, f"{at}/norm2", f.conv(f"{at}/conv2", y))
            if stride == 2:
                x = f.conv(f"{at}/shortcut", x, step, 0)
                x = F.avg_pool2d(x, 2, 2) if pooled else x
                x = f.norm(norm, f"{at}/norm3", x)
            x = F.relu(x + y)
    return flatten(x) if pooled else x.mean((2, 3))


FORWARDS = {
    "ConvNet": convnet,
    "MLP": mlp,
    "LeNet": lenet,
    "AlexNet": alexnet,
    "VGG11": vgg11,
    "ResNet18": resnet18,
}


def main():
    out = {}
    for case, (name, shape, options) in net_cases.NET_CASES.items():
        net = nets.make(name, shape, net_cases.CLASSES, **options)
        shapes = jax.eval_shape(net.init, jax.random.key(0))
        choice = dict(options)
        if "BN" in name:
            choice["norm"] = "batch"
        if name.endswith("_AP"):
            choice["pooled"] = True
        forward = FORWARDS[name.replace("_AP", "").replace("BN", "")]
        for train in net_cases.modes(case):
            f = Forward(net_cases.variables(shapes), train)
            x = torch.tensor(net_cases.images(case, shape)).permute(0, 3, 1, 2).requires_grad_()
            features = forward(f, x, **choice)
            logits = f.dense("head", features)
            tag = f"{case}/train" if train else case
            out[f"{tag}/logits"] = logits.detach().numpy()
            if train:
                last = list(f.stats)[-2:]
                out |= {f"{tag}/stats/{k}": f.stats[k].numpy() for k in (*list(f.stats)[:2], *last)}
            if tag not in net_cases.WITH_GRADIENTS:
                continue
            # The loss's gradient in the image and in the first kernel.
            loss = F.cross_entropy(logits, torch.arange(len(x)))
            first = next(k for k in f.params if k.endswith("kernel"))
            dx, dk = torch.autograd.grad(loss, (x, f.params[first]))
            out[f"{tag}/grad_image"] = dx[0].permute(1, 2, 0).numpy()[:8, :8]
            out[f"{tag}/grad_kernel/{first}"] = dk.numpy().reshape(-1, dk.shape[-1])[:25, :8]
    path = Path(__file__).with_name("nets.npz")
    np.savez_compressed(path, **{k: v.astype(np.float32) for k, v in out.items()})
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
