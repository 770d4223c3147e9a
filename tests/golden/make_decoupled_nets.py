"""Writes decoupled_nets.npz: what PyTorch makes of the cases DECOUPLED in net_cases.py (float64).

    PYTHONPATH=. python tests/golden/make_decoupled_nets.py

Needs torch. As in make_nets.py, the nets are written a second time, from their papers' tables.
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
from make_nets import Forward  # noqa: E402


def bn(f, name, x):
    return f.norm("batch", name, x)


def thin(f, at, i, x, stride=1):
    """1x1 convolution and norm."""
    return bn(f, f"{at}norm{i}", f.conv(f"{at}conv{i}", x, stride, 0))


def deep(f, at, i, x, stride):
    """Depthwise 3x3 convolution and norm."""
    kernel = f.params[f"{at}conv{i}/kernel"].permute(3, 2, 0, 1)
    return bn(f, f"{at}norm{i}", F.conv2d(x, kernel, None, stride, 1, groups=x.shape[1]))


def resnet(f, x, blocks, bottleneck=False, large=False):
    x = f.conv("conv0", x, 2, 3) if large else f.conv("conv0", x)
    x = F.relu(bn(f, "norm0", x))
    x = F.max_pool2d(x, 3, 2, 1) if large else x
    for stage, count in enumerate(blocks, 1):
        for i in range(1, count + 1):
            at, stride, short = f"stage{stage}_{i}/", 2 if stage > 1 and i == 1 else 1, x
            if bottleneck:
                y = F.relu(thin(f, at, 1, x))
                y = F.relu(bn(f, f"{at}norm2", f.conv(f"{at}conv2", y, stride)))
                y = thin(f, at, 3, y)
            else:
                y = F.relu(bn(f, f"{at}norm1", f.conv(f"{at}conv1", x, stride)))
                y = bn(f, f"{at}norm2", f.conv(f"{at}conv2", y))
            if f"{at}shortcut/kernel" in f.params:
                last = "norm4" if bottleneck else "norm3"
                short = bn(f, at + last, f.conv(f"{at}shortcut", x, stride, 0))
            x = F.relu(short + y)
    return x.mean((2, 3))


def mobilenet(f, x, small):
    x = F.relu6(bn(f, "norm0", f.conv("conv0", x, 1 if small else 2)))
    strides = (1, 1 if small else 2, 2, 2, 1, 2, 1)
    for stage, (first, count) in enumerate(zip(strides, (1, 2, 3, 4, 3, 3, 1), strict=True), 1):
        for i in range(1, count + 1):
            at, stride = f"stage{stage}_{i}/", first if i == 1 else 1
            y = x if stage == 1 else F.relu6(thin(f, at, 1, x))
            y = F.relu6(deep(f, at, 2, y, stride))
            y = thin(f, at, 3, y)
            x = x + y if stride == 1 and x.shape == y.shape else y
    return F.relu6(thin(f, "", 8, x)).mean((2, 3))


def shufflenet(f, x, small):
    x = F.relu(bn(f, "norm1", f.conv("conv1", x, 1 if small else 2)))
    x = x if small else F.max_pool2d(x, 3, 2, 1)
    for stage, count in ((2, 4), (3, 8), (4, 4)):
        for i in range(1, count + 1):
            at = f"stage{stage}_{i}/"
            if i == 1:
                left, right, stride = F.relu(thin(f, at, 5, deep(f, at, 4, x, 2))), x, 2
            else:
                (left, right), stride = x.chunk(2, 1), 1
            right = deep(f, at, 2, F.relu(thin(f, at, 1, right)), stride)
            x = torch.cat([left, F.relu(thin(f, at, 3, right))], 1)
            x = F.channel_shuffle(x, 2)
    return F.relu(thin(f, "", 5, x)).mean((2, 3))


def wrn(f, x):
    x = f.conv("conv0", x)
    for stage in (1, 2, 3):
        for i in (1, 2):
            at, stride = f"stage{stage}_{i}/", 2 if stage > 1 and i == 1 else 1
            y = F.relu(bn(f, f"{at}norm1", x))
            short = f.conv(f"{at}shortcut", y, stride, 0) if i == 1 else x
            y = F.relu(bn(f, f"{at}norm2", f.conv(f"{at}conv1", y, stride)))
            x = short + f.conv(f"{at}conv2", y)
    return F.relu(bn(f, "norm4", x)).mean((2, 3))


FORWARDS = {
    "ResNet18BN_IN": lambda f, x: resnet(f, x, (2, 2, 2, 2), large=True),
    "ResNet50BN": lambda f, x: resnet(f, x, (3, 4, 6, 3), bottleneck=True),
    "MobileNetV2": lambda f, x: mobilenet(f, x, min(x.shape[2:]) < 64),
    "ShuffleNetV2": lambda f, x: shufflenet(f, x, min(x.shape[2:]) < 64),
    "WRN16_2": wrn,
}


def main():
    out = {}
    for case, (name, shape, options) in net_cases.DECOUPLED.items():
        net = nets.make(name, shape, net_cases.CLASSES, **options)
        shapes = jax.eval_shape(net.init, jax.random.key(0))
        for train in (False, True):
            f = Forward(net_cases.variables(shapes), train)
            x = torch.tensor(net_cases.images(case, shape)).permute(0, 3, 1, 2)
            tag = f"{case}/train" if train else case
            with torch.no_grad():
                out[f"{tag}/logits"] = f.dense("head", FORWARDS[name](f, x)).numpy()
            if train:
                last = list(f.stats)[-2:]
                out |= {f"{tag}/stats/{k}": f.stats[k].numpy() for k in last}
    path = Path(__file__).with_name("decoupled_nets.npz")
    np.savez_compressed(path, **{k: v.astype(np.float32) for k, v in out.items()})
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
