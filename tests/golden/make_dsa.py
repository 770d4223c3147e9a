"""Writes dsa.npz: scale and rotate by PyTorch's affine_grid and grid_sample (float64).

    python tests/golden/make_dsa.py

Needs torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

SIZES = ((8, 8), (7, 7), (6, 11), (13, 5))


def sample(images, theta, align):
    """Resample NHWC images on torch's affine grid of ``theta`` [n, 2, 3], zero outside."""
    x = torch.tensor(images).permute(0, 3, 1, 2)
    grid = F.affine_grid(torch.tensor(theta), list(x.shape), align_corners=align)
    y = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=align)
    return y.permute(0, 2, 3, 1).numpy()


def main():
    out = {}
    for h, w in SIZES:
        rng = np.random.default_rng([h, w])
        tag, n = f"{h}x{w}", 4
        images = rng.normal(size=(n, h, w, 3))
        sx, sy = rng.uniform(1 / 1.2, 1.2, (2, n))
        angle = np.deg2rad(np.array([-15.0, 15.0, 4.0, 0.0]))
        zero, cos, sin = np.zeros(n), np.cos(angle), np.sin(angle)
        scale = np.stack([sx, zero, zero, zero, sy, zero], -1).reshape(n, 2, 3)
        rotate = np.stack([cos, -sin, zero, sin, cos, zero], -1).reshape(n, 2, 3)
        out |= {f"{tag}/images": images, f"{tag}/sx": sx, f"{tag}/sy": sy, f"{tag}/angle": angle}
        for align in (False, True):
            out[f"{tag}/scale/{align}"] = sample(images, scale, align)
            out[f"{tag}/rotate/{align}"] = sample(images, rotate, align)
    path = Path(__file__).with_name("dsa.npz")
    np.savez_compressed(path, **out)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
