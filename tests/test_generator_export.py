"""Export of generators: pictures, and weights with programs that draw the same images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jdd
from jdd import interop, rng
from jdd.data.transform import normalisation
from jdd.errors import BadInput
from jdd.interop import generator_code, generator_folder
from jdd.main import main
from jdd.nets import generators
from jdd.product.distilled_set import make_recipe
from jdd.product.generator import GeneratorSet
from tests.tiny_distilled import make as tiny

# A small one of each architecture of jdd.
SMALL = {
    "gaussian": {"name": "gaussian", "shape": [4, 5, 1], "classes": 3, "latent": 2},
    # 6 x 5 pixels are padded to 8 x 8 inside.
    "vae": {"name": "vae", "shape": [6, 5, 3], "classes": 3, "latent": 8, "channels": 2, "width": 4,
            "levels": 2, "low": [-1.6] * 3, "high": [2.4] * 3},
    "diffusion": {"name": "diffusion", "shape": [8, 8, 1], "classes": 3, "latent": 32, "width": 4,
                  "levels": 2, "attention": True, "schedule": "scaled_linear", "timesteps": 20,
                  "steps": 3, "guidance": 2.0, "low": [-1.6], "high": [2.4],
                  "decoder": {"channels": 2, "width": 4, "levels": 1}},
    "acgan": {"name": "acgan", "shape": [8, 8, 1], "classes": 3, "latent": 5, "width": 4,
              "mean": [0.4], "std": [0.25]},
}  # fmt: skip
# Other options of an architecture: pixels, no guidance, an odd width; the layers of 28 pixels.
OTHERS = {
    "diffusion of pixels": SMALL["diffusion"] | {
        "shape": [6, 5, 1], "latent": 30, "decoder": None, "guidance": 1.0, "schedule": "cosine",
        "width": 3, "levels": 0,
    },
    "acgan of 28 pixels": SMALL["acgan"] | {"shape": [28, 28, 1]},
}  # fmt: skip


def small(name: str) -> GeneratorSet:
    """Return a generator with random parameters, none of which is 0."""
    described = (SMALL | OTHERS)[name]
    leaves, tree = jax.tree.flatten(generators.make(described).init(jax.random.key(0)))
    draw = np.random.default_rng(0)
    params = [np.asarray(a + 0.05 * draw.normal(size=a.shape), np.float32) for a in leaves]
    channels = described["shape"][-1]
    transform = normalisation(*(np.full(channels, v, np.float32) for v in (0.4, 0.25)))
    names = [f"class {i}" for i in range(described["classes"])]
    stated = {"mean": [0.4] * channels, "std": [0.25] * channels}
    recipe = make_recipe(
        class_names=names, dataset="toy", shape=described["shape"], normalisation=stated
    )
    return GeneratorSet(described, jax.tree.unflatten(tree, params), 2, recipe, transform)


def test_every_architecture_has_its_programs() -> None:
    assert set(generator_code.CODES) == set(generators._OWN) == set(SMALL)


def programs(folder: Path) -> list[str]:
    """Return the programs of the page: jdd's lines, PyTorch, Flax."""
    parts = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    return [part.partition("\n```")[0] for part in parts]


def run(code: str, folder: Path, python: str = sys.executable) -> float:
    """Run a program of the page in its folder; return the difference that it prints."""
    done = subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.rpartition(":")[2])


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)]
)
def test_the_folder_is_read_again_and_its_programs_draw_the_same_images(name, tmp_path):
    made = small(name)
    folder = jdd.export(made, tmp_path / "out", "weights")
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1  # as readable as the page
    again = jdd.load(folder)
    assert again.architecture == made.architecture and again.per_class == made.per_class
    jax.tree.map(np.testing.assert_array_equal, again.params, made.params)
    assert again.recipe["dataset"] == "toy"
    np.testing.assert_array_equal(again.transform.std, made.transform.std)
    jdds, torchs, flaxs = programs(folder)
    assert "jdd.load" in jdds and "torch" in torchs
    example = generator_folder.example(made)
    assert np.ptp(example["images"]) > 0.02
    assert run(flaxs, folder) < 1e-4 * max(1.0, float(np.abs(example["images"]).max()))
    if name == "gaussian":  # the program finds differences: other latents are other images
        assert run(flaxs.replace('example["z"]', '-example["z"]'), folder) > 1e-2


@pytest.mark.parametrize("name", [*SMALL, *OTHERS])
def test_the_pytorch_program_draws_the_same_images(name, tmp_path):
    pytest.importorskip("torch")
    folder = jdd.export(small(name), tmp_path / "out", "weights")
    largest = float(np.abs(generator_folder.example(small(name))["images"]).max())
    assert run(programs(folder)[1], folder) < 1e-4 * max(1.0, largest)


def test_pictures_of_each_class(tmp_path, capsys):
    made = small("gaussian")
    path = made.save(tmp_path / "a.npz")
    words = ["--mode=export", f"--set={path}", f"--to={tmp_path / 'out'}", "--images=7"]
    assert main(words) == 0 and "written" in capsys.readouterr().out
    folders = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir())
    assert [name[0] for name in folders] == ["0", "1", "2"]
    assert all(len(list((tmp_path / "out" / f).glob("*.png"))) == 7 for f in folders)
    read = jdd.load(tmp_path / "out")
    images = made.drawn(rng.key(0, "export"), np.repeat(np.arange(3), 7))
    pixels = np.round(np.clip(made.transform.inverse(images), 0, 1) * 255) / 255
    np.testing.assert_allclose(read.transform.inverse(read.images), pixels, atol=1e-5)
    assert read.labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7


@pytest.mark.parametrize(
    "words, error",
    [
        (["--images=0"], "--images: '0'"),
        (["--images=many"], "--images: 'many'"),
        (["--images=3", "--format=weights"], "--images: given with the format weights"),
        (["--format=ddranking"], "one of npz, png, weights"),
    ],
)
def test_what_cannot_be_exported_is_one_line(words, error, tmp_path, capsys):
    path = small("gaussian").save(tmp_path / "a.npz")
    given = ["--mode=export", f"--set={path}", f"--to={tmp_path / 'out'}", *words]
    assert main(given) == 2
    error_text = capsys.readouterr().err
    assert error in error_text and error_text.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_fixed_set_has_no_weights_and_draws_nothing(tmp_path):
    with pytest.raises(BadInput, match="a generator has weights"):
        jdd.export(tiny(), tmp_path / "x", "weights")
    with pytest.raises(BadInput, match="--images: given for a product of kind 'images'"):
        jdd.export(tiny(), tmp_path / "x", "png", images=3)


def test_wrong_weights_are_one_line(tmp_path, capsys):
    folder = jdd.export(small("gaussian"), tmp_path / "out", "weights")
    package = interop.generator_folder.import_package("test")
    good = package.numpy.load_file(folder / "generator.safetensors")
    path = f"--set={folder}"

    def refused(found: str) -> None:
        assert main(["--mode=export", path, f"--to={tmp_path / 'b.npz'}"]) == 2
        error_text = capsys.readouterr().err
        assert found in error_text and error_text.count("\n") == 1, error_text

    def write(arrays: dict) -> None:
        package.numpy.save_file(arrays, folder / "generator.safetensors")

    write(good | {"params/mean": good["params/mean"][:, :-1].copy()})
    refused("params/mean is [3, 19]; [3, 20], by its architecture")
    write({n: a for n, a in good.items() if n != "params/factors"})
    refused("params/factors is missing")
    write(good | {"params/bias": np.zeros(3, np.float32)})
    refused("params/bias is [3]; no such parameter")
    write(good | {"params/mean": np.full((3, 20), np.nan, np.float32)})
    refused("params/mean holds NaN or infinity")
    (folder / "generator.safetensors").write_bytes(b"no tensors")
    refused("not a whole safetensors file")
    write(good)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"kind": "images"}))
    refused("a product of kind 'images'")
    (folder / "config.json").write_text("{")
    refused("not JSON")


def test_another_datasets_generator_is_one_line(tmp_path, capsys):
    """Of another shape, of other classes, of other names."""
    first = small("gaussian")

    def refused(made: GeneratorSet, found: str) -> None:
        path = made.save(tmp_path / "a.npz")
        words = ["--mode=evaluate", f"--set={path}", f"--workdir={tmp_path / 'e'}"]
        assert main([*words, "--config.data.name=digits", "--config.eval.lr=0.01"]) == 2
        error_text = capsys.readouterr().err
        assert found in error_text and error_text.count("\n") == 1, error_text
        assert not (tmp_path / "e").exists()

    refused(first, "images (4, 5, 1), 3 classes; digits has images (8, 8, 1), 10 classes")
    described = {"name": "gaussian", "shape": [8, 8, 1], "classes": 3, "latent": 2}
    params = {"mean": np.zeros((3, 64), np.float32), "factors": np.zeros((3, 2, 64), np.float32)}
    refused(first._replace(architecture=described, params=params), "images (8, 8, 1), 3 classes")
    names = [f"odd {i}" for i in range(10)]
    params = {"mean": np.zeros((10, 64), np.float32), "factors": np.zeros((10, 2, 64), np.float32)}
    other = first._replace(
        architecture=described | {"classes": 10}, params=params,
        recipe=first.recipe | {"class_names": names, "shape": [8, 8, 1]},
    )  # fmt: skip
    refused(other, "odd 0")


def test_missing_safetensors_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(BadInput, match="--format=weights: .*pip install safetensors"):
        jdd.export(small("gaussian"), tmp_path / "out", "weights")
    assert not list(tmp_path.iterdir())
