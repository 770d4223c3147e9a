"""Stable Diffusion through diffusers, on a tiny random pipeline; skipped where it is missing."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil

import numpy as np
import pytest

from jdd.errors import BadInput
from jdd.generative import stable_diffusion as sd
from tests.generative import tiny_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pipeline.save(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.fixture(scope="module")
def loaded(folder):
    return sd.StableDiffusion(sd.Settings(str(folder), size=16, steps=4, batch=2))


def pixels(n: int, c: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (n, 8, 8, c)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_encoded_as_the_library_does_it(loaded, channels):
    torch = importlib.import_module("torch")
    images = pixels(3, channels)
    found = loaded.encode(images, 0, [4, 5, 6])
    assert found.shape == (3, 8, 8, 4) and found.dtype == np.float32
    np.testing.assert_array_equal(found, loaded.encode(images, 0, [4, 5, 6]))
    assert not np.array_equal(found, loaded.encode(images, 1, [4, 5, 6]))
    # However many are encoded at a time: the draw of an image is its own.
    np.testing.assert_allclose(found[1:2], loaded.encode(images[1:2], 0, [5]), atol=1e-5)
    shown = np.stack([sd._resized(image, 16) for image in images])
    assert shown.shape == (3, 16, 16, 3) and shown.min() >= 0 and shown.max() <= 1
    with torch.no_grad():
        x = torch.from_numpy(2 * shown.transpose(0, 3, 1, 2) - 1)
        posterior = loaded._pipe.vae.encode(x).latent_dist
    mean, std = (a.numpy().transpose(0, 2, 3, 1) for a in (posterior.mean, posterior.std))
    noise = (found / loaded._pipe.vae.config.scaling_factor - mean) / std
    assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.1  # 768 draws of N(0, 1)


def test_an_image_follows_from_its_own_number_prompt_and_prototype(loaded):
    z = loaded.encode(pixels(3), 0, range(3))
    words = ["cat", "dog 1", "cat"]
    found = loaded.generate(z, words, 0, [0, 1, 2], (8, 8, 3))
    assert found.shape == (3, 8, 8, 3) and 0 <= found.min() and found.max() <= 1
    alone = loaded.generate(z[2:], words[2:], 0, [2], (8, 8, 3))
    np.testing.assert_allclose(found[2:], alone, atol=1e-4)
    for other in (
        loaded.generate(z[2:], words[2:], 1, [2], (8, 8, 3)),
        loaded.generate(z[2:], ["dog 1"], 0, [2], (8, 8, 3)),
        loaded.generate(z[:1], words[2:], 0, [2], (8, 8, 3)),
    ):
        assert np.abs(other - alone).max() > 1e-3
    assert loaded.generate(z[:1], ["cat"], 0, [0], (5, 8, 1)).shape == (1, 5, 8, 1)


def test_strength_and_guidance_reach_the_library(folder, loaded):
    """Strength 0 decodes the prototypes; guidance and scheduler change what is made of them."""
    torch = importlib.import_module("torch")
    z = loaded.encode(pixels(1), 0, [0])
    still = sd.StableDiffusion(loaded.settings._replace(strength=0.0))
    found = still.generate(z, ["cat"], 0, [0], (16, 16, 3))
    with torch.no_grad():
        vae = still._pipe.vae
        x = torch.from_numpy(z.transpose(0, 3, 1, 2)) / vae.config.scaling_factor
        wanted = (vae.decode(x).sample / 2 + 0.5).clamp(0, 1).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    made = loaded.generate(z, ["cat"], 0, [0], (16, 16, 3))
    for other in ({"guidance": 1.0}, {"scheduler": "ddim"}, {"strength": 1.0}, {"negative": "dog"}):
        changed = sd.StableDiffusion(loaded.settings._replace(**other))
        assert np.abs(changed.generate(z, ["cat"], 0, [0], (16, 16, 3)) - made).max() > 1e-4, other


def test_weights_that_do_not_fit_are_refused_in_one_line(folder, tmp_path):
    with pytest.raises(BadInput, match=r"^config.sd.weights: '' with prior=stable_diffusion; a fo"):
        sd.validate("", 64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="config.sd.weights: .*empty.*No such file"):
        sd.validate(str(tmp_path / "empty"), 64)
    index = json.loads((folder / "model_index.json").read_text())
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(BadInput, match="other is a FluxPipeline; a folder or hub name"):
        sd.validate(str(other), 64)
    (other / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(other / "unet")
    with pytest.raises(BadInput, match="other has no unet"):
        sd.validate(str(other), 64)
    shutil.copytree(folder / "unet", other / "unet")
    for file in (other / "unet").glob("*.safetensors"):
        file.write_bytes(b"no weights")
    with pytest.raises(BadInput, match="^config.sd.weights: .*other: "):
        sd.StableDiffusion(sd.Settings(str(other), size=16))
    # The net of another latent space: its weights have another shape.
    settings = json.loads((folder / "vae/config.json").read_text())
    (other / "vae/config.json").write_text(json.dumps(settings | {"latent_channels": 8}))
    shutil.copy(next((folder / "unet").glob("*.safetensors")), other / "unet")
    with pytest.raises(BadInput, match="^config.sd.weights: .*other: "):
        sd.StableDiffusion(sd.Settings(str(other), size=16))
    with pytest.raises(BadInput, match="config.sd.size: 20 pixels per side; a multiple of 16"):
        sd.validate(str(folder), 20)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    match = r"config.prior: stable_diffusion, .*diffusers is missing; pip install 'jdd\[diff"
    with pytest.raises(BadInput, match=match):
        sd.validate("stable-diffusion-v1-5/stable-diffusion-v1-5", 64)


def test_prompts_are_names_of_classes():
    names = ["tench, Tinca tinca\tn01440764", "goldfish"]
    assert sd.prompts(names, "{}") == ["tench, Tinca tinca", "goldfish"]
    assert sd.prompts(names[1:], "a photo of a {}") == ["a photo of a goldfish"]
    with pytest.raises(BadInput, match="config.sd.prompt: 'a photo'; a text with {}"):
        sd.prompts(names, "a photo")


def test_sizes_change_by_resizing_and_grey_is_shown_in_three_channels():
    image = pixels(1, 1)[0]
    np.testing.assert_array_equal(sd._resized(image, 8, 8, 1), image)
    three = sd._resized(image, 8)
    np.testing.assert_array_equal(three, np.repeat(image, 3, -1))
    np.testing.assert_allclose(sd._resized(three, 8, 8, 1), image, atol=1e-6)
    flat = sd._resized(np.full((8, 8, 3), 0.25, np.float32), 20, 10)
    assert flat.shape == (10, 20, 3)
    np.testing.assert_allclose(flat, 0.25, atol=1e-6)
