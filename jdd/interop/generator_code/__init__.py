"""Programs without jdd that rebuild a saved generator, in PyTorch and in Flax.

An architecture of ``nets/generators.py`` has a file here with ``code(architecture) -> Code``. Both
programs define ``Generator`` with ``(z, labels) -> images [n, h, w, c]`` and ``weights(arrays)``,
which makes its state of the file's arrays by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jdd.interop.generator_code import acgan, diffusion, gaussian, vae
from jdd.interop.generator_code.base import Code

CODES: dict[str, Callable[[Mapping[str, Any]], Code]] = {
    "gaussian": gaussian.code,
    "vae": vae.code,
    "diffusion": diffusion.code,
    "acgan": acgan.code,
}

_TORCH = """import numpy as np
import torch
from safetensors.torch import load_file

{code}

arrays = load_file("generator.safetensors")
generator = Generator()
generator.load_state_dict(
    weights({{n.removeprefix("params/"): a for n, a in arrays.items() if n.startswith("params/")}})
)
generator.eval()
example = load_file("example.safetensors")
with torch.no_grad():
    images = generator(example["z"], example["labels"].long())  # [n, h, w, c], normalised
{pixels}
print("largest difference from jdd's images:", float((images - example["images"]).abs().max()))"""
_FLAX = """import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

{code}

arrays = load_file("generator.safetensors")
variables = weights(
    {{n.removeprefix("params/"): a for n, a in arrays.items() if n.startswith("params/")}}
)
example = load_file("example.safetensors")
images = jax.jit(Generator().apply)(variables, example["z"], example["labels"])  # normalised
{pixels}
print("largest difference from jdd's images:", float(np.abs(images - example["images"]).max()))"""
_PIXELS = 'pixels = (images * arrays["std"] + arrays["mean"]).clip(0, 1)  # [n, h, w, c]'
_WHITENED = '# These images are whitened: jdd.load(".").transform.inverse(images) gives pixels.'


def programs(architecture: Mapping[str, Any], whitened: bool) -> Code | None:
    """Return both programs, to be run in the exported folder; None for an unknown architecture."""
    made = CODES.get(str(architecture.get("name")))
    if made is None:
        return None
    found, pixels = made(architecture), _WHITENED if whitened else _PIXELS
    return Code(
        _TORCH.format(code=found.torch.strip(), pixels=pixels),
        _FLAX.format(code=found.flax.strip(), pixels=pixels),
    )
