"""Nets by one word, the table across architectures, and what an interruption leaves of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config as configs
from jdd import main, nets, specs
from jdd.config import published
from jdd.errors import BadInput, Interrupted
from jdd.nets import groups
from jdd.report.evidence import gather
from jdd.report.page import render
from jdd.stages import evaluate
from tests.test_report import RESULT, Page, _score, _set
from tests.tiny_distilled import make


def resolved(dataset: str, words: str, **keys: Any) -> tuple[tuple[str, ...], list[str]]:
    config, notes = configs.resolve(configs.load(f"mtt:{dataset}", {"nets": words} | keys).config)
    return config.nets, [note for note in notes if note.startswith("nets=")]


def test_pools_of_the_papers() -> None:
    assert resolved("cifar10", "dm") == (
        ("ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"),
        ["nets=dm: ConvNetBN, ConvNetASwishBN, AlexNetBN, VGG11BN, ResNet18BN"],
    )
    names, _ = resolved("cifar10", "mtt,MLP,dc")
    assert names == (
        "ConvNet", "AlexNet", "VGG11", "ResNet18_AP", "ResNet18", "MLP", "LeNet",
    )  # fmt: skip
    assert resolved("cifar10", "all")[0] == nets.NAMES
    assert resolved("cifar10", "MLP,ConvNet") == (("MLP", "ConvNet"), [])


def test_a_pool_leaves_out_what_is_too_large_and_says_so(monkeypatch: Any) -> None:
    names, (note,) = resolved("digits", "dc")
    assert names == ("MLP", "ConvNet", "AlexNet")
    assert note == (
        "nets=dc: MLP, ConvNet, AlexNet (images of 8x8 are too small for LeNet, VGG11, ResNet18)"
    )
    # A net that was asked for by its name is not left out: making it will say what is wrong.
    assert "VGG11" in resolved("digits", "dc,VGG11")[0]
    assert resolved("digits", "dc", **{"data.size": 32})[0] == groups.POOLS["dc"]
    monkeypatch.setattr(groups, "takes", lambda name, shape: False)
    with pytest.raises(BadInput, match="config.nets: dm; .*8x8 are too small for ConvNetBN, Conv"):
        groups.expand(("dm",), (8, 8, 1), "ConvNet")


def test_a_pool_waits_for_the_shape_of_your_own_images() -> None:
    config = configs.load("mtt", {"data.name": "toy", "data.path": "x.npz", "nets": "dm"}).config
    first, _ = configs.resolve(config)
    assert first.nets == ("dm",)
    second, notes = configs.resolve(first, shape=(32, 32, 3))
    assert second.nets == groups.POOLS["dm"] and notes[-1].startswith("nets=dm: ConvNetBN")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("dmm", ("config.nets: unknown net 'dmm'", "did you mean dm?", "all, dc, dm, mtt")),
        ("dc,ConvNte", ("'ConvNte'", "did you mean ConvNet?", "several at once")),
    ],
)
def test_unknown_words(words: str, says: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as error:
        resolved("cifar10", words)
    assert all(word in str(error.value) for word in says)
    with pytest.raises(BadInput, match="config.net.name: unknown net 'dc'"):
        resolved("cifar10", "ConvNet", **{"net.name": "dc"})


def test_the_swish_net_is_a_convnet_with_batch_norm_and_swish() -> None:
    swish = nets.make("ConvNetASwishBN", (32, 32, 3), 10)
    plain = nets.make("ConvNetBN", (32, 32, 3), 10)
    assert jax.eval_shape(swish.init, jax.random.key(0)) == jax.eval_shape(
        plain.init, jax.random.key(0)
    )
    net = nets.make("ConvNetASwishBN", (4, 4, 1), 2, width=3, depth=1)
    variables = net.init(jax.random.key(1))
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype(np.float32)
    taps = net.apply(variables, jnp.asarray(x), train=True, taps=True).taps
    # By hand: normalised over the batch, times its sigmoid, averaged over 2 x 2.
    before = np.asarray(taps["norm1"], np.float64)
    z = (before - before.mean((0, 1, 2))) / np.sqrt(before.var((0, 1, 2)) + 1e-5)
    z = z / (1 + np.exp(-z))
    n, h, w, c = z.shape
    pooled = z.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
    np.testing.assert_allclose(taps["block1"], pooled, atol=1e-5)


def test_published_rows() -> None:
    found = published.cross("mtt", "cifar10", 10, "ConvNet", False)
    assert found is not None and "Cazenavette" in found["source"]
    assert found["values"]["AlexNet"] == {"mean": 0.342, "std": 0.026}
    copy = published.cross("mtt", "cifar10_jpeg", 10, "ConvNet", True)
    assert copy is not None and "the figure is for cifar10 itself" in copy["source"]
    assert "not theirs" in copy["source"] and "not theirs" not in found["source"]
    for asked in (("mtt", "cifar10", 1), ("mtt", "insects", 10), ("", "cifar10", 10)):
        assert published.cross(*asked, "ConvNet", False) is None
    # DM's sets of that table were distilled with batch norm.
    assert published.cross("dm", "cifar10", 50, "ConvNet", False) is None
    assert published.cross("dm", "cifar10", 50, "ConvNetBN", False) is not None
    for method in specs.names():
        table, file = specs.get(method).cross, Path(specs.FOLDER, f"{method}.py")
        for row in table.values():
            assert {"values", "source"} <= set(row) <= {"values", "source", "net"}
            assert set(row["values"]) <= set(nets.NAMES)
            assert all(0 < mean < 1 for mean, _ in row["values"].values()), file


def test_the_report_shows_what_a_net_costs_and_what_was_published(tmp_path: Path) -> None:
    accuracy = {"ConvNet": _score(0.8), "MLP": _score(0.6)}
    costs = {
        "ConvNet": {"parameters": 320010, "seconds": 61.0},
        "MLP": {"parameters": 411146, "seconds": None},
    }
    printed = {"values": {"MLP": {"mean": 0.696, "std": 0.016}}, "source": "DC, Table 2"}
    result = RESULT | {"accuracy": accuracy, "nets": costs, "published_nets": printed}
    (tmp_path / "result.json").write_text(json.dumps(result))
    _set().save(tmp_path / "distilled.npz")
    page = Page(render(gather(tmp_path)))
    words = page.words.partition("Cross-architecture")[2].replace("\u202f", " ")
    assert words.startswith(" Net Accuracy n Published Parameters Time Each net")
    assert "ConvNet distilled with it 80.0 ± 1.4 % 5 – 320 010 1 min 01 s" in words
    assert "MLP 60.0 ± 1.4 % 5 69.6 ± 1.6 % 411 146 –" in words
    assert "Published: DC, Table 2." in words


@pytest.fixture
def asked(tmp_path: Path, toy: Path) -> list[str]:
    """A command that tests a tiny set on the two nets of DC's pool that are quick here."""
    dset = make(ipc=1, shape=(8, 8, 3), names=("0", "1", "2"), dataset="toy")
    dset.recipe["net"]["options"] = {"width": 4, "depth": 1}
    dset.recipe["train"] |= {"epochs": 3, "passes": 4}
    dset.save(tmp_path / "set.npz")
    keys = {"data.path": toy, "nets": "ConvNet,MLP", "eval.n": 2, "baselines.random": 0}
    keys |= {"devices": 1, "progress": False}
    words = [f"--config.{name}={value}" for name, value in keys.items()]
    place = f"--workdir={tmp_path / 'run'}"
    return ["--mode=evaluate", f"--set={tmp_path / 'set.npz'}", place, *words]


def test_an_interrupted_table_keeps_the_nets_it_has(
    asked: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    done: list[str] = []
    measure = evaluate.measure

    def stopping(context: Any, dset: Any, net: Any, *rest: Any, **more: Any) -> Any:
        if done:
            raise Interrupted("stopped in the second net")
        done.append(net.name)
        return measure(context, dset, net, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "measure", stopping)
        assert main.main(asked) == 130
    assert done == ["ConvNet"]
    kept = json.loads((tmp_path / "run/checkpoints/evaluate.json").read_text())
    assert len(kept) == 1 and not (tmp_path / "run/result.json").exists()

    def counting(context: Any, dset: Any, net: Any, *rest: Any, **more: Any) -> Any:
        done.append(net.name)
        return measure(context, dset, net, *rest, **more)

    monkeypatch.setattr(evaluate, "measure", counting)
    capsys.readouterr()
    assert main.main(asked) == 0
    assert done == ["ConvNet", "MLP"]
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "run/result.json").read_text())
    (first,) = kept.values()
    assert result["accuracy"]["ConvNet"] == first
    assert result["nets"]["MLP"]["parameters"] == 192 * 128 + 128 + 128 * 128 + 128 + 128 * 3 + 3
    assert all(cost["seconds"] > 0 for cost in result["nets"].values())
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["net", "accuracy,", "%", "n", "seconds", "parameters"]
    assert [line[0] for line in lines[1:3]] == ["ConvNet", "MLP"]
    assert lines[2][4] == "2" and lines[2][-1] == "41,603"
    assert lines[3] == [] and out.splitlines()[-1].endswith("report.html")
