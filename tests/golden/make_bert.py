"""Writes bert.npz: what transformers' BertModel makes of random weights and sentences.

    python tests/golden/make_bert.py

Needs torch and transformers (run with transformers 5.24.0); jdd is not imported. The file holds the
config, the tensors by transformers' names, tokens with their mask, and the last hidden states.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import BertConfig, BertModel

CONFIG = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def main() -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**CONFIG), add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Larger than at the start of training, so that attention is far from uniform.
            value.copy_(torch.randn(value.shape) * 0.3 + ("LayerNorm.weight" in name))
    draw = np.random.default_rng(0)
    ids = draw.integers(0, CONFIG["vocab_size"], (3, 9))
    mask = np.arange(9)[None] < np.array([9, 5, 1])[:, None]
    with torch.no_grad():
        out = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    arrays = {f"weights/{k}": v.detach().numpy() for k, v in model.named_parameters()}
    arrays |= {"ids": ids, "mask": mask, "hidden": out.last_hidden_state.numpy()}
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    config = json.dumps({"model_type": "bert", **CONFIG})
    np.savez_compressed(
        Path(__file__).with_name("bert.npz"),
        config=np.asarray(config), versions=np.asarray(json.dumps(versions)), **arrays,
    )  # fmt: skip


if __name__ == "__main__":
    main()
