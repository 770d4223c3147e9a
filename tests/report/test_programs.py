"""Programs of the report: what a set's recipe names is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jdd.report import recipe, replay, torch_net
from jdd.report.evidence import gather
from tests import tiny_distilled


def test_weights_of_images_scale_the_targets(tmp_path: Path) -> None:
    dset = tiny_distilled.make()
    dset._replace(weights=np.arange(6, dtype=np.float32)).save(tmp_path / "distilled.npz")
    lines = (replay.plain(gather(tmp_path)) or "").splitlines()
    at = lines.index('y = torch.from_numpy(z["labels"]).long()')
    assert lines[at + 1] == "y = torch.eye(3)[y]"
    assert lines[at + 2] == 'y = y * torch.from_numpy(z["weights"])[:, None]'
    rows = dict(recipe.table(gather(tmp_path)))
    assert rows["Loss"].endswith("; of each image times its weight, 0 to 2 (mean 1)")
    dset.save(tmp_path / "distilled.npz")
    assert "weights" not in (replay.plain(gather(tmp_path)) or "")


def test_layer_normalisation_is_no_instance_normalisation(tmp_path: Path) -> None:
    dset, options = tiny_distilled.make(), {"width": 8, "norm": "layer"}
    net = {"name": "ConvNet", "options": options}
    dset.with_recipe(dset.recipe | {"net": net}).save(tmp_path / "distilled.npz")
    assert "    norm = nn.GroupNorm(1, 8)  # layer;" in "\n".join(torch_net.net(gather(tmp_path)))
