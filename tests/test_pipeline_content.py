"""A pipeline's folder counts by its content; large files are hashed once; keys without effect."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jdd import config as configs
from jdd import main
from jdd.generative import stable_diffusion
from jdd.stages import phases, pipeline_content
from jdd.storage import digests, json_files
from tests import runs
from tests.methods.test_d4m import OWN


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What looks like a pipeline: settings, vocabulary, weights in two formats, and others."""
    place = tmp_path / "pipeline"
    files = {"model_index.json": "{}", "README.md": "words"}
    for part in stable_diffusion.PARTS:
        files[f"{part}/config.json"] = part
        files[f"{part}/model.safetensors"] = f"weights of {part}"
        files[f"{part}/model.bin"] = f"weights of {part}, again"
        files[f"{part}/model.fp16.safetensors"] = "rounded"
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def digest(weights: Path | str, cache: Path) -> str:
    own = SimpleNamespace(sd=SimpleNamespace(weights=str(weights)))
    own.data = SimpleNamespace(cache_dir=str(cache))
    return pipeline_content.digest(own)


def test_what_is_loaded_counts_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    first = digest(folder, tmp_path)
    for ignored in ("README.md", "unet/model.bin", "vae/model.fp16.safetensors"):
        (folder / ignored).write_text("other")
    moved = folder.rename(tmp_path / "moved")
    assert digest(moved, tmp_path) == first and len(first) == 16
    found = {first}
    for changed in ("model_index.json", "unet/config.json", "vae/model.safetensors"):
        (moved / changed).write_text((moved / changed).read_text() + " ")
        found.add(digest(moved, tmp_path))
    (moved / "unet/model.safetensors").unlink()  # now the other format is loaded
    found.add(digest(moved, tmp_path))
    assert len(found) == 5
    assert digest("owner/name", tmp_path) == "owner/name"
    assert not (tmp_path / pipeline_content.STORED).exists()  # small files alone


def test_a_large_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SMALL", 3)
    known, file = tmp_path / "cache/hashes.json", tmp_path / "weights"
    file.write_bytes(b"1234")
    first = digests.of_file(file, known)
    assert json.loads(known.read_text()) == {next(iter(json.loads(known.read_text()))): first}
    stored = {name: "stored" for name in json.loads(known.read_text())}
    json_files.write(known, stored)
    digests._of.cache_clear()
    assert digests.of_file(file, known) == "stored"  # by another process
    file.write_bytes(b"1235")
    assert digests.of_file(file, known) not in (first, "stored")
    known.write_text("[")  # damaged
    digests._of.cache_clear()
    file.write_bytes(b"1234")
    assert digests.of_file(file, known) == first


def test_identities_have_the_content_in_place_of_the_path(
    tiny: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stable_diffusion, "validate", lambda weights, size: None)
    more = {"prior": "stable_diffusion", "data.cache_dir": str(tmp_path / "cache")}

    def identity(weights: Path | str) -> list[str]:
        keys = {**tiny, **OWN, **more, "sd.weights": str(weights)}
        keys = {k: v for k, v in keys.items() if k in configs.schema("d4m")}
        return phases.identities(runs.context(keys, tmp_path / "run"))

    first = identity(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert identity(moved) == first
    (moved / "unet/model.safetensors").write_text("other weights")
    assert identity(moved) != first and identity("owner/name") not in (first, identity(moved))


@pytest.mark.parametrize(
    "keys, says",
    [
        ("prior=stable_diffusion,vae.steps=5", "config.vae.steps: it has no effect"),
        ("prior=stable_diffusion,diffusion.width=8", "config.diffusion.width: it has no effect"),
        ("prior=stable_diffusion,quality.every=5", "or --config.prior=own"),
        (
            "prior=stable_diffusion,sampling.guidance=1,sd.negative=x",
            "no negative prompt at guidance 1",
        ),
        ("guide.until=0.2", "config.guide.until: it has no effect: no guide is on"),
        ("diffusion.space=pixels,vae.width=8", "config.vae.width: it has no effect"),
        ("sd.size=64", "config.sd.size: it has no effect: prior=own"),
    ],
)
def test_keys_that_the_prior_leaves_without_effect_are_refused(
    keys: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run"
    assert main.main([f"--config=d4m:digits,{keys}", f"--workdir={place}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err, err
    assert not place.exists()
