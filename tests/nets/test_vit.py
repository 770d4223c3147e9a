"""ViT against its equations in NumPy, its shapes, and what it refuses."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.errors import BadInput

DRAW = np.random.default_rng(5)


def normed(x, layer):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return y * layer["scale"] + layer["bias"]


def linear(x, layer):
    return x @ layer["kernel"].reshape(-1, layer["kernel"].shape[-1]) + layer["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attended(x, layer, heads):
    """One image's tokens [t, d], one head at a time."""
    d = x.shape[-1] // heads
    q, k, v = np.split(linear(x, layer["qkv"]), 3, axis=-1)
    found = []
    for head in range(heads):
        own = slice(head * d, (head + 1) * d)
        scores = np.exp(q[:, own] @ k[:, own].T / math.sqrt(d))
        found.append(scores / scores.sum(1, keepdims=True) @ v[:, own])
    return linear(np.concatenate(found, -1), layer["proj"])


def forward(params, image, patch, heads):
    """The logits of one image [h, w, c], patch by patch and block by block."""
    tokens = [params["cls_token"][0, 0]]
    for i in range(0, image.shape[0], patch):
        for j in range(0, image.shape[1], patch):
            pixels = image[i : i + patch, j : j + patch].ravel()
            tokens.append(linear(pixels, params["patch_embed"]["proj"]))
    x = np.stack(tokens) + params["pos_embed"][0]
    for i in range(sum(name.startswith("blocks") for name in params)):
        block = params[f"blocks_{i}"]
        x = x + attended(normed(x, block["norm1"]), block["attn"], heads)
        y = gelu(linear(normed(x, block["norm2"]), block["mlp"]["fc1"]))
        x = x + linear(y, block["mlp"]["fc2"])
    return linear(normed(x, params["norm"])[0], params["head"])


def test_logits_and_gradient_are_those_of_the_equations():
    net = nets.make("ViT", (4, 8, 2), 3, width=8, depth=2, heads=2)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(net.init, jax.random.key(0))
        variables, step = (
            jax.tree.map(lambda v: jnp.asarray(0.5 * DRAW.normal(size=v.shape)), shapes)
            for _ in "ab"
        )
        x = DRAW.normal(size=(2, 4, 8, 2))

        @jax.jit
        def both(x):
            def loss(t):
                moved = jax.tree.map(lambda v, d: v + t * d, variables, step)
                logits = net.apply(moved, x).logits
                return jnp.sum(jnp.square(logits)), logits

            return jax.value_and_grad(loss, has_aux=True)(0.0)

        (_, logits), slope = both(jnp.asarray(x))
    at = jax.tree.map(np.asarray, variables["params"])
    towards = jax.tree.map(np.asarray, step["params"])
    wanted = [forward(at, image, 2, 2) for image in x]
    np.testing.assert_allclose(logits, wanted, rtol=1e-9)

    def loss(t):
        moved = jax.tree.map(lambda v, d: v + t * d, at, towards)
        return sum(np.square(forward(moved, image, 2, 2)).sum() for image in x)

    np.testing.assert_allclose(slope, (loss(1e-6) - loss(-1e-6)) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("side", "patch"), [(8, 2), (16, 2), (28, 4), (32, 4), (64, 8), (128, 16), (224, 16)]
)
def test_the_default_patch_cuts_images_into_about_eight_by_eight(side, patch):
    net = nets.make("ViT", (side, side, 3), 5)
    shapes = jax.eval_shape(net.init, jax.random.key(0))["params"]
    assert shapes["patch_embed"]["proj"]["kernel"].shape == (patch, patch, 3, 192)
    assert shapes["pos_embed"].shape == (1, 1 + (side // patch) ** 2, 192)


def test_parameters_of_vit_tiny():
    net = nets.make("ViT", (224, 224, 3), 1000)
    shapes = jax.eval_shape(net.init, jax.random.key(0))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 5_717_416  # timm's vit_tiny


def test_the_start_is_drawn():
    net = nets.make("ViT", (8, 8, 1), 3, width=64, depth=1)
    params = net.init(jax.random.key(0))["params"]
    assert np.std(params["pos_embed"]) == pytest.approx(0.02, rel=0.1)
    assert np.std(params["cls_token"]) == pytest.approx(0.02, rel=0.4)
    np.testing.assert_array_equal(params["norm"]["scale"], 1)
    np.testing.assert_array_equal(params["blocks_0"]["attn"]["qkv"]["bias"], 0)


def test_what_does_not_divide_is_refused():
    with pytest.raises(BadInput, match=r"net.patch: 3 on images of 8x8; one of 2, 4, 8"):
        nets.make("ViT", (8, 8, 3), 3, patch=3)
    with pytest.raises(BadInput, match="net.patch: 1 on images of 33x20; .*data.size=32"):
        nets.make("ViT", (33, 20, 3), 3)
    with pytest.raises(BadInput, match="net.heads: 5; a divisor of net.width=8"):
        nets.make("ViT", (8, 8, 3), 3, width=8, heads=5)
