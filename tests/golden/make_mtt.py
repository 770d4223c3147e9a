"""Writes mtt.npz: MTT's loss and gradients by PyTorch's plain back-propagation (float64).

    PYTHONPATH=. python tests/golden/make_mtt.py

Needs torch. Student, operations and distance are written a second time here, from their definition;
jdd gives only what goes in: fresh weights, and the augmentations that a key draws. The key is the
first whose N steps draw all six operations.
"""

from __future__ import annotations

import math
from pathlib import Path

import jax
import numpy as np
import torch
import torch.nn.functional as F

from jdd import nets
from jdd.augment import dsa

STEPS, WIDTH, DEPTH, SHAPE, CLASSES, IPC, RATE = 6, 8, 3, (16, 16, 3), 5, 2, 0.05
STRATEGY = "color_crop_cutout_flip_scale_rotate"


def drawn(seed):
    """Return each step's operation [N] and uniform draws [N, 3, n], as jdd makes them of a key."""
    names, uniforms = [], []
    for key in jax.random.split(jax.random.key(seed), STEPS):
        op_key, own = jax.random.split(key)
        names.append(int(dsa.draw_op(op_key, STRATEGY)))
        uniforms.append(np.asarray(jax.random.uniform(own, (3, CLASSES * IPC), np.float32)))
    return np.array(names), np.stack(uniforms)


def parameters(op, u):
    """Return the three parameters [3, n] (0 where an operation has fewer) of uniform draws."""
    h, w, _ = SHAPE
    u64, out = u.astype(np.float64), np.zeros_like(u, np.float64)
    name = dsa.OPS[op]
    if name == "color":
        out[:] = u64[0] - 0.5, 2 * u64[1], u64[2] + 0.5
    elif name == "crop":  # at 16 pixels up to 2 either way
        out[:2] = np.floor(u[:2] * np.float32(5)) - 2
    elif name == "cutout":  # a hole of 8 pixels, its centre anywhere from 0 to 16
        out[:2] = np.floor(u[:2] * np.float32(h + 1))
    elif name == "flip":
        out[0] = u[0] < 0.5
    elif name == "scale":
        out[:2] = u64[:2] * (1.2 - 1 / 1.2) + 1 / 1.2
    else:
        out[0] = (u64[0] - 0.5) * 30 * math.pi / 180
    return out


def augmented(op, p, x):
    """Apply an operation to [n, c, h, w], image after image."""
    name = dsa.OPS[op]
    return torch.cat([one(name, *p[:, i].tolist(), x[i : i + 1]) for i in range(len(x))])


def one(name, a, b, c, x):
    """Apply an operation with parameters a, b, c to one image [1, c, h, w]."""
    size = x.shape[-1]
    if name == "color":
        x = x + a
        grey = x.mean(1, keepdim=True)
        x = grey + b * (x - grey)
        return x.mean() + c * (x - x.mean())
    if name == "crop":
        top, left = 2 + int(a), 2 + int(b)
        return F.pad(x, (2, 2, 2, 2))[:, :, top : top + size, left : left + size]
    if name == "cutout":
        mask = torch.ones_like(x)
        rows, cols = ((max(0, int(v) - 4), max(0, int(v) + 4)) for v in (a, b))
        mask[:, :, slice(*rows), slice(*cols)] = 0
        return x * mask
    if name == "flip":
        return x.flip(3) if a else x
    if name == "scale":
        theta = [[a, 0, 0], [0, b, 0]]
    else:
        theta = [[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]]
    grid = F.affine_grid(torch.tensor([theta], dtype=x.dtype), list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, align_corners=True)


def logits(p, x):
    """Return the ConvNet's logits of [n, c, h, w] for jdd's parameters by path."""
    for i in range(1, DEPTH + 1):
        x = F.conv2d(x, p[f"conv{i}/kernel"].permute(3, 2, 0, 1), p[f"conv{i}/bias"], padding=1)
        x = F.group_norm(x, WIDTH, p[f"norm{i}/scale"], p[f"norm{i}/bias"])
        x = F.avg_pool2d(F.relu(x), 2)
    flat = x.permute(0, 2, 3, 1).flatten(1)
    return flat @ p["head/kernel"] + p["head/bias"]


def gradients(start, target, images, labels, rate, ops, params):
    """Return MTT's loss and its gradients in the images [n, h, w, c] and the student's rate."""
    theta = {k: v.clone().requires_grad_() for k, v in start.items()}
    for op, p in zip(ops, params, strict=True):
        x = augmented(op, p, images.permute(0, 3, 1, 2))
        inner = F.cross_entropy(logits(theta, x), labels)
        g = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
        theta = {k: v - rate * d for (k, v), d in zip(theta.items(), g, strict=True)}
    far = sum(((theta[k] - target[k]) ** 2).sum() for k in start)
    apart = sum(((start[k] - target[k]) ** 2).sum() for k in start)
    return far / apart, *torch.autograd.grad(far / apart, (images, rate))


def main():
    seed = next(s for s in range(10**4) if len(set(drawn(s)[0])) == len(dsa.OPS))
    ops, uniforms = drawn(seed)
    params = np.stack([parameters(op, u) for op, u in zip(ops, uniforms, strict=True)])
    net = nets.make("ConvNet", SHAPE, CLASSES, width=WIDTH, depth=DEPTH)
    rng = np.random.default_rng(0)
    start, target = {}, {}
    for layer, leaves in net.init(jax.random.key(0))["params"].items():
        for leaf, value in leaves.items():
            # Norms off their identity, so that they count; a target a few steps away.
            noise = rng.normal(size=(2, *value.shape))
            start[f"{layer}/{leaf}"] = np.float32(value + 0.05 * noise[0])
            target[f"{layer}/{leaf}"] = np.float32(value + 0.05 * noise[0] + 0.02 * noise[1])
    images = np.float32(rng.normal(size=(CLASSES * IPC, *SHAPE)))
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), IPC)

    def double(array):
        return torch.tensor(np.asarray(array, np.float64))

    x, rate = double(images).requires_grad_(), double(np.float32(RATE)).requires_grad_()
    loss, d_images, d_rate = gradients(
        {k: double(v) for k, v in start.items()},
        {k: double(v) for k, v in target.items()},
        x,
        torch.tensor(labels).long(),
        rate,
        ops,
        params,
    )
    out = {
        "seed": np.int32(seed),
        "ops": ops.astype(np.int32),
        "parameters": params.astype(np.float32),
        "images": images,
        "labels": labels,
        "rate": np.float32(RATE),
        "loss": loss.item(),
        "grad_images": d_images.numpy().astype(np.float32),
        "grad_rate": d_rate.item(),
        **{f"start/{k}": v for k, v in start.items()},
        **{f"target/{k}": v for k, v in target.items()},
    }
    path = Path(__file__).with_name("mtt.npz")
    np.savez_compressed(path, **out)
    print(path, path.stat().st_size, "bytes; seed", seed, "operations", ops, "loss", loss.item())


if __name__ == "__main__":
    main()
