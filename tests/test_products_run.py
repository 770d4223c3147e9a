"""Runs whose product is no fixed set of images: made, evaluated, reported, loaded, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import jdd
from jdd import config as configs
from jdd.data.text import from_json
from jdd.errors import BadInput
from jdd.main import main
from jdd.report import evidence
from jdd.report.recipe import table as recipe_table
from jdd.run import pipeline
from jdd.stages import experts
from jdd.stages.base import Estimate

FEW = {"eval.n": 2, "eval.epochs": 3, "baselines.random": 2, "baselines.full_epochs": 1}
KEYS = {
    "pairs": FEW | {"pairs": 12, "text.captions": 1, "text.size": 32, "towers.size": 8},
    "generator": FEW
    | {"net.name": "MLP", "nets": "MLP", "per_class": 2, "ipc": 3}
    | {
        "quality.images": 40,
        "quality.k": 3,
        "quality.width": 4,
        "quality.epochs": 1,
    },
}
CONFIGS = {"pairs": "random_pairs:digits_captions", "generator": "gaussian:digits"}


def go(kind, place, mode="all", **keys):
    loaded = configs.load(CONFIGS[kind], KEYS[kind] | {"progress": False} | keys)
    return pipeline.run(loaded, str(place), mode, None, "test")


@pytest.fixture(scope="module", params=["pairs", "generator"])
def run(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    return request.param, place, go(request.param, place)


def test_a_run_ends_in_a_product_its_figures_and_a_page(run):
    kind, place, result = run
    product = jdd.load(place / "distilled.npz")
    assert product.kind == kind and (place / "distilled.png").stat().st_size > 1000
    page = (place / "report.html").read_text(encoding="utf-8")
    saved = json.loads((place / "result.json").read_text())
    figures = saved["metrics" if kind == "pairs" else "accuracy"]["MLP"]
    assert figures["n"] == 2 and saved["baselines"]["random"]["n"] == 2
    assert saved["baselines"]["full"]["epochs"] == 1
    if kind == "pairs":
        assert (saved["task"], saved["primary"], saved["accuracy"]) == ("retrieval", "recall", {})
        six = [figures[f"{way}{k}"]["mean"] for way in ("tr", "ir") for k in (1, 5, 10)]
        assert figures["mean"] == pytest.approx(np.mean(six))
        assert "mean recall" in result["summary"] and "Recall both ways" in page
        assert all(caption in page for caption in product.captions[:3])
        encode = from_json(product.recipe["text"])
        np.testing.assert_array_equal(encode(product.captions), product.text)
        numbers = 12 * (64 + 32)  # of the images and the texts, in float32
        assert saved["bytes"]["texts"] == 4 * 12 * 32 and saved["bytes"]["total"] >= numbers
        assert " a pair. Report:" in result["summary"] and "Bytes of the set" in page
    else:
        assert product.size == 20 and product.stored_bytes == 4 * 10 * 3 * 64
        assert "Gaussian" in result["summary"] and "Images of one epoch" in page
        assert "as many bytes as the generator" in page
        found = saved["quality"]
        assert found["classifier"]["net"] == "ConvNetBN" and found["n"] == 40 and found["k"] == 3
        assert found["test"]["n"] == 40 and 0 <= found["agreement"] <= 1
        assert found["frechet"] > 0 and "Quality of 40 generated images" in result["summary"]
        storage = {"parameters": 1920, "bytes": 7680, "images_of_equal_bytes": 30}
        assert found["storage"] == storage
        assert saved["bytes"] == {"per_class": 768.0, "total": 7680, "net": 7680}
        assert "768 B a class. Report:" in result["summary"]
        assert "768\u2009B a class" in page or "768 B a class" in page


def test_the_code_of_the_docs_reads_it(run, monkeypatch):
    kind, place, _ = run
    monkeypatch.chdir(place)
    text = (Path(__file__).parents[1] / "docs/use-a-set.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    assert names["x"].shape[1:] == (8, 8, 1)
    assert len(names["words" if kind == "pairs" else "y"]) == len(names["x"])


def test_the_same_seed_gives_the_same_bytes_and_figures(run, tmp_path):
    kind, place, result = run
    again = go(kind, tmp_path)
    first, second = (jdd.load(p / "distilled.npz") for p in (place, tmp_path))
    if kind == "pairs":
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.text, second.text)
    else:
        np.testing.assert_array_equal(first.params["factors"], second.params["factors"])
    name = "metrics" if kind == "pairs" else "accuracy"
    assert result[name]["MLP"]["values"] == again[name]["MLP"]["values"]


def test_damaged_pictures_of_quality_are_a_line_and_are_drawn_again(run, tmp_path, capsys):
    kind, place, _ = run
    stored = place / "checkpoints/quality.npz"
    assert stored.exists() == (kind == "generator")
    if not stored.exists():
        return
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    damaged = bytearray(stored.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (copy / "checkpoints/quality.npz").write_bytes(damaged)
    go(kind, copy, "report")
    assert (
        "checkpoints/quality.npz is damaged, so its pictures" in (copy / "report.html").read_text()
    )
    capsys.readouterr()
    go(kind, copy)
    assert (
        "quality.npz: damaged, or of other settings; the images are drawn again"
        in capsys.readouterr().out
    )
    assert (copy / "checkpoints/quality.npz").read_bytes() == stored.read_bytes()
    assert "is damaged" not in (copy / "report.html").read_text()


def test_a_saved_product_is_evaluated_alone(run, tmp_path):
    kind, place, _ = run
    words = ["--mode=evaluate", f"--set={place / 'distilled.npz'}", f"--workdir={tmp_path / 'e'}"]
    words += ["--config.eval.n=1", "--config.baselines.random=0", "--config.progress=false"]
    assert main(words) == 0
    found = json.loads((tmp_path / "e/result.json").read_text())
    assert found["metrics" if kind == "pairs" else "accuracy"]["MLP"]["n"] == 1
    assert main(words) == 0  # again: nothing to do
    assert main([*words, "--config.eval.epochs=4"]) == 2  # another evaluation in its place


def test_costs_are_estimated_and_nothing_is_written(run, tmp_path):
    kind, _, _ = run
    found = go(kind, tmp_path / "none", "estimate")
    assert found["evaluate"]["seconds"] > 0 and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "kind, keys, words",
    [
        ("pairs", {"pairs": 2000}, "config.pairs: 2000; 2 to 1442"),
        ("pairs", {"data.name": "digit_captions"}, "did you mean digits_captions"),
        ("pairs", {"steps": 3}, "real pairs are chosen"),
        ("pairs", {"data.path": "x"}, "built in"),
        ("pairs", {"scores": True}, "config.scores"),
        ("pairs", {"text.captions": 6}, "1 to 5"),
        ("generator", {"ipc": 1}, "config.ipc"),
        ("generator", {"ipc": 2000}, "the size of the smallest class"),
        ("generator", {"scores": True}, "scores are of fixed sets"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_write(kind, keys, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        go(kind, tmp_path / "w", **keys)
    assert not (tmp_path / "w").exists()


def test_formats_of_fixed_sets_refuse_others(run, tmp_path):
    kind, place, _ = run
    for fmt in ("safetensors", "ddranking", {"pairs": "png", "generator": "figures"}[kind]):
        with pytest.raises(BadInput, match=f"kind '{kind}'"):
            jdd.export(place / "distilled.npz", tmp_path / "x", fmt)
    copied = jdd.export(place / "distilled.npz", tmp_path / "copy.npz")
    assert jdd.load(copied).recipe == jdd.load(place / "distilled.npz").recipe


def saved(run, tmp_path, **changes):
    """Write the run's product with other fields; return its path."""
    product = jdd.load(run[1] / "distilled.npz")
    path = tmp_path / "changed.npz"
    product._replace(**changes).save(path)
    return path


def evaluate(path, place, *words):
    own = [f"--set={path}", f"--workdir={place}", "--config.eval.n=1"]
    own += ["--config.baselines.random=1", "--config.progress=false", "--config.eval.epochs=2"]
    return main(["--mode=evaluate", *own, *words])


def test_a_set_of_a_method_with_steps_and_rates_of_its_own(run, tmp_path):
    """Such sets are made outside: the checks of the baselines are not theirs."""
    kind, place, _ = run
    recipe = jdd.load(place / "distilled.npz").recipe
    recipe = recipe | {"method": "my_method", "steps": 100}
    changes = {"recipe": recipe}
    if kind == "pairs":
        changes = {"recipe": recipe | {"train": recipe["train"] | {"lr": None}}}
        changes |= {"rates": {"image": 0.1, "text": 0.2}}
    path = saved(run, tmp_path, **changes)
    assert evaluate(path, tmp_path / "a") == 0
    assert evaluate(path, tmp_path / "b", "--config.eval.ema=0.9", "--config.eval.lr=0.05") == 0
    made = jdd.load(tmp_path / "b/distilled.npz")
    assert made.recipe["train"]["ema"] == 0.9 and made.recipe["train"]["lr"] == 0.05
    if kind == "pairs":
        assert not made.rates and jdd.load(tmp_path / "a/distilled.npz").rates["text"] == 0.2
        shown = [dict(recipe_table(evidence.gather(tmp_path / p)))["Learning rate"] for p in "ab"]
        assert shown == ["image 0.1, text 0.2 (learned)", "0.05"]
        assert shown[0] in (tmp_path / "a/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"task": "foo"}, "recipe.task is 'foo'"),
        ({"task": "adapt"}, "recipe.task"),
        ({"captions": ["a"]}, "captions"),
        ({"captions": [1] * 12}, "list of texts"),
    ],
)
def test_a_damaged_recipe_of_pairs_is_refused_before_the_first_write(
    tmp_path_factory, tmp_path, capsys, entry, words
):
    place = tmp_path_factory.getbasetemp() / "damaged"
    if not place.exists():
        go("pairs", place, "distill")
    with np.load(place / "distilled.npz") as found:
        arrays = dict(found)
    recipe = json.loads(str(arrays["recipe"])) | entry
    np.savez(tmp_path / "x.npz", **arrays | {"recipe": np.asarray(json.dumps(recipe))})
    assert evaluate(tmp_path / "x.npz", tmp_path / "e") == 2
    assert words in capsys.readouterr().err and not (tmp_path / "e").exists()


def test_scores_of_a_product_are_refused_before_the_first_write(run, tmp_path, capsys):
    words = ("--config.scores=true", "--config.baselines.full=true")
    assert evaluate(run[1] / "distilled.npz", tmp_path / "e", *words) == 2
    assert "scores are of fixed sets" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_keys_that_pairs_do_not_have_are_refused(tmp_path):
    for key, value in (("data.val", 0.2), ("data.size", 16), ("data.zca", "kornia")):
        with pytest.raises(BadInput, match=f"config.{key}"):
            go("pairs", tmp_path / "w", **{key: value})


def test_the_ceiling_of_pairs_is_that_of_the_same_towers(tmp_path):
    from jdd.stages import full

    contexts = [
        pipeline.prepare(
            configs.resolve(
                configs.load(CONFIGS["pairs"], KEYS["pairs"] | {"towers.tau": tau}).config
            )[0],
            tmp_path,
            "test",
        )
        for tau in (0.07, 0.7)
    ]
    assert full.STAGE.fingerprint(contexts[0]) != full.STAGE.fingerprint(contexts[1])


def test_runs_of_pairs_are_compared_and_studied(tmp_path):
    base = {"method": "random_pairs", "data.name": "digits_captions", "progress": False}
    base |= KEYS["pairs"] | {"eval.n": 1, "baselines.random": 0, "baselines.full": False}
    grid = {"pairs": [12, 14]}
    study = {"base": base, "grid": grid, "seeds": [0], "metric": "recall"}
    found = jdd.study(study, tmp_path / "s")
    assert "mean recall" in found["text"] and len(found["cells"]) == 2
    page = (tmp_path / "s/compare.html").read_text(encoding="utf-8")
    assert "digits_captions, 12 pairs" in page and "Mean recall in percent" in page
    again = jdd.study(study | {"metric": "tr1"}, tmp_path / "s")  # the same runs
    firsts = [json.loads((tmp_path / "s" / cell["folder"] / "result.json").read_text())
              for cell in again["cells"]]  # fmt: skip
    wanted = [one["metrics"]["MLP"]["tr1"]["mean"] for one in firsts]
    assert [cell["figure"]["mean"] for cell in again["cells"]] == wanted
    lines = (tmp_path / "s/table.csv").read_text().splitlines()
    assert [line.split(",")[1:3] for line in lines[1:]] == [["tr1", repr(one)] for one in wanted]
    tex = (tmp_path / "s/table.tex").read_text()
    assert r"\caption{R@1, image to text, in percent" in tex and r"pairs & tr1" in tex
    with pytest.raises(BadInput, match="did you mean tr1"):
        jdd.study(study | {"metric": "tr11"}, tmp_path / "t")
    with pytest.raises(BadInput, match="recall of its task"):
        jdd.study(study | {"metric": "accuracy"}, tmp_path / "t")


def test_weights_scale_each_images_loss(toy, tmp_path):
    """Weights of 0 leave an image out: the set trains as the one without it, but for its size."""
    keys = {"data.name": "toy", "data.path": str(toy), "ipc": 2, "steps": 0, "progress": False}
    keys |= {"net.name": "MLP", "nets": "MLP", "eval.n": 1, "eval.epochs": 2, "eval.curve": 0}
    keys |= {"baselines.random": 0, "baselines.full": False, "data.dsa": "none", "eval.batch": 6}
    pipeline.run(configs.load("random", keys), str(tmp_path / "r"), command="test")
    dset = jdd.load(tmp_path / "r/distilled.npz")
    first = np.tile([1.0, 0.0], 3).astype(np.float32)
    few = dset._replace(weights=first)
    half = dset._replace(images=dset.images[::2], labels=dset.labels[::2])
    found = [
        jdd.evaluate(one, nets="MLP", baselines={"random": 0}, progress=False)["accuracy"]["MLP"]
        for one in (few, half)
    ]
    assert found[0]["values"] == found[1]["values"]


def test_weights_are_part_of_what_an_evaluation_is_of(tmp_path):
    from jdd.run.workdir import digest
    from tests.tiny_distilled import make

    plain = make()
    weights = np.arange(1, plain.size + 1, dtype=np.float32)
    digests = {
        digest(plain),
        *(digest(plain._replace(weights=w)) for w in (weights, weights[::-1])),
    }
    assert len(digests) == 3
    with pytest.raises(BadInput, match="hold no weights"):
        jdd.export(plain._replace(weights=weights), tmp_path / "x.safetensors")


def test_an_estimate_times_all_pairs(tmp_path, monkeypatch):
    timed = []

    def cost(net, recipe, data, group, epochs, batches, devices):
        timed.append((net.name, recipe.loss, data.train.size, group, epochs, batches))
        return Estimate(7.0, 5, "7 s", 9)

    monkeypatch.setattr(experts, "training_cost", cost)
    keys = {"baselines.full_epochs": 4, "data.cache_dir": str(tmp_path / "cache")}
    found = go("pairs", tmp_path / "x", "estimate", **keys)
    assert (found["full"]["seconds"], found["full"]["disk_bytes"]) == (7, 0)
    assert timed == [("MLP", "nce", 1442, 1, 4, 1)]
