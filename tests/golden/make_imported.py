"""Writes imported.npz: what timm makes of nets whose weights are ``imported_cases.values``.

    PYTHONPATH=tests/golden python tests/golden/make_imported.py

Needs torch, torchvision and timm (run with timm 1.0.31); jdd is not imported.
"""

from __future__ import annotations

from pathlib import Path

import imported_cases
import numpy as np
import timm
import torch
from timm.models.nfnet import NfCfg, NormFreeNet
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer

NETS = {
    "nf": lambda: NormFreeNet(
        NfCfg(
            depths=(2, 2, 2, 2), channels=(16, 32, 64, 128), stem_type="7x7_pool", stem_chs=4,
            bottle_ratio=0.25, act_layer="relu", ch_div=1, skipinit=True,
        ),
        num_classes=5,
    ),
    "vit": lambda: VisionTransformer(
        img_size=8, patch_size=2, in_chans=3, num_classes=5, embed_dim=16, depth=2, num_heads=2
    ),
    "basic": lambda: ResNet(BasicBlock, (2, 2, 2, 2), num_classes=5),
    "bottleneck": lambda: ResNet(Bottleneck, (3, 4, 6, 3), num_classes=5),
}  # fmt: skip


def main() -> None:
    arrays: dict[str, np.ndarray] = {"timm": np.asarray(timm.__version__)}
    for case, make in NETS.items():
        net = make().double().eval()
        state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
        values = {
            k: torch.tensor(imported_cases.values(k, tuple(v.shape))) for k, v in state.items()
        }
        net.load_state_dict(values, strict=False)
        x = torch.tensor(imported_cases.images(case)).permute(0, 3, 1, 2)
        with torch.no_grad():
            arrays[f"{case}/logits"] = net(x.double()).numpy()
        arrays[f"{case}/names"] = np.asarray(list(state))
        arrays[f"{case}/shapes"] = np.asarray([",".join(map(str, v.shape)) for v in state.values()])
    np.savez_compressed(Path(__file__).with_name("imported.npz"), **arrays)


if __name__ == "__main__":
    main()
