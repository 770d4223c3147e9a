"""``nets.generators.gaussian`` in PyTorch and Flax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.interop.generator_code.base import Code

_TORCH = '''
class Generator(torch.nn.Module):
    """x = mean_y + z F_y, of {classes} classes."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.empty({classes}, {size}))
        self.factors = torch.nn.Parameter(torch.empty({classes}, {latent}, {size}))

    def forward(self, z, labels):
        moved = torch.einsum("nl,nld->nd", z, self.factors[labels])
        return (self.mean[labels] + moved).reshape(-1, {h}, {w}, {c})


def weights(arrays):
    return arrays
'''
_FLAX = '''
class Generator(nn.Module):
    """x = mean_y + z F_y, of {classes} classes."""

    @nn.compact
    def __call__(self, z, labels):
        zeros = nn.initializers.zeros
        mean = self.param("mean", zeros, ({classes}, {size}))
        factors = self.param("factors", zeros, ({classes}, {latent}, {size}))
        moved = jnp.einsum("nl,nld->nd", z, factors[labels])
        return (mean[labels] + moved).reshape(-1, {h}, {w}, {c})


def weights(arrays):
    return {{"params": arrays}}
'''


def code(architecture: Mapping[str, Any]) -> Code:
    """Return the definitions of ``Generator`` and ``weights`` of an architecture."""
    h, w, c = architecture["shape"]
    values = {"classes": architecture["classes"], "latent": architecture["latent"]}
    values |= {"h": h, "w": w, "c": c, "size": h * w * c}
    return Code(_TORCH.format(**values), _FLAX.format(**values))
