"""Weights by timm's names: the outputs are timm's, and what does not fit is named."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jdd import nets
from jdd.errors import BadInput
from jdd.nets.towers import two_towers
from jdd.pretrained import imported

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import imported_cases  # noqa: E402

CASES = {
    "nf": ("NFResNet_IN", {"width": 4, "depth": 26, "skipinit": True}),
    "vit": ("ViT", {"width": 16, "depth": 2, "heads": 2, "patch": 2}),
    "basic": ("ResNet18BN_IN", {}),
    "bottleneck": ("ResNet50BN_IN", {}),
}


def tensors(case):
    """The tensors of a case, as timm's state dict has them."""
    with np.load(GOLDEN / "imported.npz") as golden:
        names, shapes = golden[f"{case}/names"], golden[f"{case}/shapes"]
    sides = [tuple(int(n) for n in shape.split(",") if n) for shape in shapes]
    return {
        str(name): imported_cases.values(str(name), shape)
        for name, shape in zip(names, sides, strict=True)
    }


def small(classes=5):
    return nets.make("ViT", (8, 8, 3), classes, width=16, depth=2, heads=2, patch=2)


def written(path, arrays):
    safetensors.numpy.save_file(arrays, path)
    return path


@pytest.mark.parametrize(
    "case", ["nf", "vit", "basic", pytest.param("bottleneck", marks=pytest.mark.slow)]
)
def test_outputs_are_timms(case, tmp_path):
    (name, options), side = CASES[case], imported_cases.SIDES[case]
    net = nets.make(name, (side, side, 3), 5, **options)
    arrays = tensors(case)
    if case == "basic":
        arrays["bn1.num_batches_tracked"] = np.asarray(3)
    found = imported.read(written(tmp_path / "a.safetensors", arrays), net)
    assert found.notes == ()
    variables = imported.fixed(net, found.variables).init(jax.random.key(0))
    logits = jax.jit(lambda v, x: net.apply(v, x).logits)(variables, imported_cases.images(case))
    with np.load(GOLDEN / "imported.npz") as golden:
        np.testing.assert_allclose(logits, golden[f"{case}/logits"], rtol=1e-4, atol=1e-5)


def test_a_head_of_another_size_is_left_out_and_drawn(tmp_path):
    path = written(tmp_path / "vit.safetensors", tensors("vit"))
    net = small(classes=7)
    found = imported.read(path, net)
    assert found.notes == (
        "vit.safetensors: the last layer (head.bias) is of [5], not [7]: drawn anew",
    )
    assert "head" not in found.variables["params"]
    own = imported.fixed(net, found.variables)
    first, second = (own.init(jax.random.key(k))["params"] for k in (0, 1))
    np.testing.assert_array_equal(first["pos_embed"], second["pos_embed"])
    assert np.abs(first["head"]["kernel"] - second["head"]["kernel"]).max() > 0.01
    np.testing.assert_array_equal(
        first["head"]["kernel"], net.init(jax.random.key(0))["params"]["head"]["kernel"]
    )
    without = {k: v for k, v in tensors("vit").items() if not k.startswith("head")}
    found = imported.read(written(tmp_path / "b.safetensors", without), net)
    assert "is absent, not [7]" in found.notes[0]


def test_the_image_tower_of_two_starts_as_the_file(tmp_path):
    path = written(tmp_path / "vit.safetensors", tensors("vit"))
    options = (("depth", 2), ("heads", 2), ("patch", 2), ("width", 16))
    towers = two_towers("ViT", (8, 8, 3), 6, 7, options)
    weights = imported.read(path, small(classes=7)).variables
    params = imported.fixed(towers, weights, "image").init(jax.random.key(0))["params"]
    kernel = tensors("vit")["blocks.1.mlp.fc2.weight"].T
    np.testing.assert_array_equal(params["image"]["blocks_1"]["mlp"]["fc2"]["kernel"], kernel)
    with pytest.raises(ValueError, match="/params/blocks_0 is no variable"):
        imported.fixed(towers, weights).init(jax.random.key(0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm.bias": None}, r"no tensor norm.bias \[16\]"),
        ({"extra.weight": np.ones((2, 3), np.float32)}, r"extra.weight \[2, 3\] belongs to no"),
        (
            {"blocks.0.mlp.fc1.weight": np.ones((32, 16), np.float32)},
            r"blocks.0.mlp.fc1.weight is \[32, 16\], not \[64, 16\]",
        ),
        ({"norm.bias": np.ones(16, np.int32)}, "norm.bias is of I32, not one of F64, F32, F16"),
    ],
)
def test_what_does_not_fit_is_named(change, words, tmp_path):
    arrays = {k: v for k, v in (tensors("vit") | change).items() if v is not None}
    path = written(tmp_path / "a.safetensors", arrays)
    with pytest.raises(BadInput, match=words) as error:
        imported.read(path, small())
    assert "\n" not in str(error.value) and "config.net.width" in str(error.value)


def test_halves_are_read_as_floats(tmp_path):
    arrays = {k: v.astype(np.float16) for k, v in tensors("vit").items()}
    arrays["norm.bias"] = np.asarray(jnp.asarray(tensors("vit")["norm.bias"], jnp.bfloat16))
    found = imported.read(written(tmp_path / "a.safetensors", arrays), small()).variables
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(
        found["params"]["norm"]["bias"], tensors("vit")["norm.bias"], rtol=1e-2
    )


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    path = written(tmp_path / "a.safetensors", tensors("vit"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        imported.read(path, small())
    with pytest.raises(BadInput, match="does not exist"):
        imported.read(tmp_path / "none.safetensors", small())
    with pytest.raises(BadInput, match="is a folder"):
        imported.read(tmp_path, small())
    with pytest.raises(BadInput, match="MLP, whose weights cannot be read; one of NFResNet"):
        imported.read(path, nets.make("MLP", (8, 8, 3), 5))
