"""``nets.generators.acgan``, the generator of a conditional GAN, in PyTorch and Flax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.interop.generator_code.base import CODE_NESTED, Code, constants
from jdd.nets.gan import plan

_TORCH = '''
class Generator(torch.nn.Module):
    """z and class -> dense -> transposed and plain convolutions -> tanh -> normalised pixels."""

    def __init__(self):
        super().__init__()
        h, w = FIRST
        self.dense = torch.nn.Linear(LATENT, h * w * WIDTH)
        self.norm0 = torch.nn.BatchNorm1d(h * w * WIDTH)
        self.layers = []
        for i, (size, convs) in enumerate(STAGES, 1):
            self._add(f"up{i}", torch.nn.ConvTranspose2d(WIDTH, WIDTH, size, 2, 1))
            for j in range(1, convs + 1):
                self._add(f"conv{i}_{j}", torch.nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        self.last = torch.nn.Conv2d(WIDTH, SHAPE[2], 3, padding=1)

    def _add(self, name, layer):
        self.add_module(name, layer)
        self.add_module(f"{name}_norm", torch.nn.BatchNorm2d(WIDTH))
        self.layers.append(name)

    def forward(self, z, labels):
        one_hot = torch.nn.functional.one_hot(labels, CLASSES).to(z)
        x = self.norm0(self.dense(torch.cat([one_hot, z[:, CLASSES:]], 1))).relu()
        x = x.view(-1, *FIRST, WIDTH).permute(0, 3, 1, 2)
        for name in self.layers:
            x = self.get_submodule(f"{name}_norm")(self.get_submodule(name)(x)).relu()
        images = self.last(x).tanh().permute(0, 2, 3, 1)
        return ((images + 1) / 2 - torch.tensor(MEAN)) / torch.tensor(STD)


def weights(arrays):
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    found = {}
    for path, array in arrays.items():
        _, layer, leaf = path.split("/")
        if leaf == "kernel" and array.ndim == 2:
            array = array.T
        elif leaf == "kernel":
            array = array.permute((2, 3, 0, 1) if layer.startswith("up") else (3, 2, 0, 1))
        found[f"{layer}.{names.get(leaf, leaf)}"] = array.contiguous()
    return found
'''
_FLAX = '''
class Up(nn.Module):
    """Transposed convolution of stride 2 and padding 1."""

    size: int

    @nn.compact
    def __call__(self, x):
        zeros = nn.initializers.zeros
        kernel = self.param("kernel", zeros, (self.size, self.size, WIDTH, WIDTH))
        bias = self.param("bias", zeros, (WIDTH,))
        pad = (self.size - 2, self.size - 2)
        return bias + jax.lax.conv_general_dilated(
            x, kernel[::-1, ::-1], (1, 1), (pad, pad), lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Generator(nn.Module):
    """z and class -> dense -> transposed and plain convolutions -> tanh -> normalised pixels."""

    @nn.compact
    def __call__(self, z, labels):
        def norm(name):
            return nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=name)

        h, w = FIRST
        z = jnp.concatenate([jax.nn.one_hot(labels, CLASSES), z[:, CLASSES:]], 1)
        x = nn.relu(norm("norm0")(nn.Dense(h * w * WIDTH, name="dense")(z)))
        x = x.reshape(-1, h, w, WIDTH)
        for i, (size, convs) in enumerate(STAGES, 1):
            x = nn.relu(norm(f"up{i}_norm")(Up(size, name=f"up{i}")(x)))
            for j in range(1, convs + 1):
                x = nn.Conv(WIDTH, (3, 3), name=f"conv{i}_{j}")(x)
                x = nn.relu(norm(f"conv{i}_{j}_norm")(x))
        images = jnp.tanh(nn.Conv(SHAPE[2], (3, 3), name="last")(x))
        return ((images + 1) / 2 - jnp.asarray(MEAN)) / jnp.asarray(STD)


def weights(arrays):
    found = nested(arrays)
    return {"params": found["weights"], "batch_stats": found["stats"]}
'''


def code(architecture: Mapping[str, Any]) -> Code:
    """Return the definitions of ``Generator`` and ``weights`` of an architecture."""
    h, w, c = architecture["shape"]
    layers = plan((h, w, c))
    values = {
        "SHAPE": (h, w, c),
        "CLASSES": architecture["classes"],
        "LATENT": architecture["latent"],
        "WIDTH": architecture["width"],
        "FIRST": layers.first,
        "STAGES": list(layers.stages),
        "MEAN": list(architecture["mean"]),
        "STD": list(architecture["std"]),
    }
    head = constants(values)
    return Code(head + _TORCH, head + CODE_NESTED + _FLAX)
