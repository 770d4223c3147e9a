"""``nets.priors.vae``, a decoder with a Gaussian of each class, in PyTorch and Flax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.interop.generator_code import decoder
from jdd.interop.generator_code.base import CODE_NESTED, Code, constants
from jdd.nets.autoencoder import autoencoder

_TORCH = '''
class Generator(torch.nn.Module):
    """x = decode(mean_y + z F_y), clipped to black and white."""

    def __init__(self):
        super().__init__()
        self.decoder = Decoder()
        self.mean = torch.nn.Parameter(torch.empty(CLASSES, LATENT))
        self.factors = torch.nn.Parameter(torch.empty(CLASSES, LATENT, LATENT))

    def forward(self, z, labels):
        placed = self.mean[labels] + torch.einsum("nl,nld->nd", z, self.factors[labels])
        h, w, c = SPACE
        images = self.decoder(placed.view(-1, h, w, c).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return images if not LOW else images.clamp(torch.tensor(LOW), torch.tensor(HIGH))


weights = renamed
'''
_FLAX = '''
class Generator(nn.Module):
    """x = decode(mean_y + z F_y), clipped to black and white."""

    @nn.compact
    def __call__(self, z, labels):
        zeros = nn.initializers.zeros
        mean = self.param("mean", zeros, (CLASSES, LATENT))
        factors = self.param("factors", zeros, (CLASSES, LATENT, LATENT))
        placed = mean[labels] + jnp.einsum("nl,nld->nd", z, factors[labels])
        images = Decoder(name="decoder")(placed.reshape(-1, *SPACE))
        return images if not LOW else jnp.clip(images, jnp.asarray(LOW), jnp.asarray(HIGH))


def weights(arrays):
    return {"params": nested(arrays)}
'''


def code(architecture: Mapping[str, Any]) -> Code:
    """Return the definitions of ``Generator`` and ``weights`` of an architecture."""
    head = constants(
        coder_values(architecture["shape"], architecture)
        | {"CLASSES": architecture["classes"], "LATENT": architecture["latent"]}
        | {name.upper(): list(architecture.get(name, ())) for name in ("low", "high")}
    )
    torch = head + decoder.TORCH_LAYERS + decoder.TORCH + _TORCH
    return Code(torch, head + CODE_NESTED + decoder.FLAX_LAYERS + decoder.FLAX + _FLAX)


def coder_values(shape: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constants of a decoder of images of ``shape``."""
    h, w, c = shape
    channels, width, levels = (int(options[name]) for name in ("channels", "width", "levels"))
    return {
        "SHAPE": (h, w, c),
        "SPACE": autoencoder((h, w, c), channels, width, levels).latent,
        "CODER_WIDTH": width,
        "CODER_LEVELS": levels,
    }
