"""A tiny, randomly initialised Stable Diffusion pipeline on disk."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest


def save(folder: Path) -> Path:
    """Write the pipeline to ``folder``; skip the test where its libraries are missing."""
    for name in ("torch", "transformers", "diffusers"):
        pytest.importorskip(name, reason=f"needs {name}")
    torch = importlib.import_module("torch")
    d, t = importlib.import_module("diffusers"), importlib.import_module("transformers")
    torch.manual_seed(0)
    blocks = {"block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 8}
    unet = d.UNet2DConditionModel(
        in_channels=4, out_channels=4, cross_attention_dim=16, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=8, **blocks,
    )  # fmt: skip
    vae = d.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        **blocks,
    )  # fmt: skip
    text = t.CLIPTextModel(
        t.CLIPTextConfig(
            vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=1,
            pad_token_id=1,
        )
    )  # fmt: skip
    scheduler = d.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
        steps_offset=1, set_alpha_to_one=False,
    )  # fmt: skip
    pipe = d.StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=_tokenizer(folder), unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> object:
    """Return CLIP's tokenizer with a vocabulary of single letters and digits."""
    letters = [chr(c) for c in (*range(97, 123), *range(48, 58))]
    words = ["<|startoftext|>", "<|endoftext|>", *letters[:26], *(f"{c}</w>" for c in letters)]
    place = folder / "words"
    place.mkdir(parents=True)
    (place / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    (place / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 16})
    )
    return importlib.import_module("transformers").CLIPTokenizer.from_pretrained(str(place))
