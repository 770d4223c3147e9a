"""The printed programs of pairs: run as printed, they train two towers, and say what these find."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jdd.matching import contrastive
from jdd.nets.towers import two_towers
from jdd.report import pair_flax, pair_torch
from jdd.report.evidence import gather
from tests.tiny_pairs import finished, learned

DOCS = (Path(__file__).parents[2] / "docs/use-a-set.md").read_text(encoding="utf-8")


def documented(library: str) -> str:
    """Return the program of the docs on pairs for a library."""
    part = DOCS.partition("## Pairs")[2]
    codes = re.findall(r"^```python\n(.*?)^```", part, re.M | re.S)
    return next(code for code in codes if f"import {library}" in code or f", {library}" in code)


def executed(code: str, place: Path, capsys, monkeypatch) -> tuple[dict, str]:
    monkeypatch.chdir(place)
    names: dict = {}
    exec(code, names)
    return names, capsys.readouterr().out


def losses(printed: str) -> list[float]:
    return [float(one) for one in re.findall(r"loss ([\d.]+)", printed)]


def recalls(printed: str) -> list[float]:
    return [float(one) for one in re.findall(r"R@\d+ ([\d.]+) %", printed)]


def check(names: dict, printed: str, pairs) -> None:
    found = losses(printed)
    assert len(found) > 3 and found[-1] < 0.95 * found[0]
    assert len(recalls(printed)) == 6 and recalls(printed)[2] > 0
    wanted = np.eye(pairs.size) if pairs.similarity is None else pairs.similarity.matrix()
    np.testing.assert_allclose(np.asarray(names["S"]), wanted, rtol=1e-5, atol=1e-6)
    assert names["lr"] == {"image": 0.1, "text": 0.2}


@pytest.mark.parametrize("loss, rank, net", [("wbce", 2, "MLP"), ("nce", -1, "ConvNet")])
def test_the_flax_program_trains(loss, rank, net, tmp_path, capsys, monkeypatch):
    pairs = learned(loss, rank, net={"name": net, "options": {"norm": "none"}})
    if net == "ConvNet":
        pairs.recipe["net"]["options"] |= {"width": 8, "depth": 1}
    code = pair_flax.program(gather(finished(tmp_path, pairs)))
    names, printed = executed(code, tmp_path, capsys, monkeypatch)
    check(names, printed, pairs)
    assert max(map(len, code.splitlines())) <= 64
    x, e, S = (names[name] for name in "xeS")
    logits = names["logits"](names["params"], x, e)
    of = contrastive.nce if loss == "nce" else contrastive.weighted_bce
    got, _ = names["step"](names["params"], x, e, S)
    assert float(got) == pytest.approx(float(of(logits, jax.numpy.asarray(S))), rel=1e-5)


@pytest.mark.parametrize("loss, rank", [("wbce", 2), ("nce", -1)])
def test_the_pytorch_program_trains(loss, rank, tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    pairs = learned(loss, rank)
    code = pair_torch.program(gather(finished(tmp_path, pairs)))
    names, printed = executed(code, tmp_path, capsys, monkeypatch)
    check(names, printed, pairs)
    of = contrastive.nce if loss == "nce" else contrastive.weighted_bce
    logits = names["logits"](names["x"], names["e"])
    got = names["loss_of"](logits, names["S"])
    wanted = of(*(jax.numpy.asarray(a.detach().numpy()) for a in (logits, names["S"])))
    assert got.item() == pytest.approx(float(wanted), rel=1e-5)
    with torch.no_grad():
        assert names["text"](names["e"]).shape == (12, 8)


@pytest.mark.parametrize("library", ["flax", "torch"])
def test_the_programs_of_the_docs_train(library, tmp_path, capsys, monkeypatch):
    pytest.importorskip(library)
    pairs = learned("wbce", 2)
    finished(tmp_path, pairs)
    names, printed = executed(documented(library), tmp_path, capsys, monkeypatch)
    check(names, printed, pairs)


def test_the_programs_are_compiled_for_every_recipe_and_refuse_what_they_lack(tmp_path):
    for at, (net, loss) in enumerate((("ResNet18", "nce"), ("ConvNet", "wbce"), ("MLP", "nce"))):
        pairs = learned(loss, net={"name": net, "options": {"norm": "instance"} if at == 1 else {}})
        evidence = gather(finished(tmp_path / str(at), pairs))
        for program in (pair_flax.program, pair_torch.program):
            code = program(evidence)
            compile(code, "snippet", "exec")
            assert "0.2" in code and "range(76)" in code and "epoch == 41" in code
            assert ("any net; here a ConvNet in place of ResNet18" in code) == (net == "ResNet18")
            assert ("GroupNorm" in code) == (at == 1)
    pairs = learned()
    for train in ({"ema": 0.9}, {"optimizer": "adam"}, {"schedule": {"kind": "constant"}}):
        other = pairs.with_recipe(pairs.recipe | {"train": pairs.recipe["train"] | train})
        evidence = gather(finished(tmp_path / "x", other))
        assert pair_flax.program(evidence) is None and pair_torch.program(evidence) is None


SHARED = {
    "net": {"name": "MLP1", "options": {}},
    "towers": {"size": 8, "tau": 0.07, "start": "shared"},
}


def test_the_programs_start_with_the_image_tower_that_the_pairs_are_made_for(tmp_path, monkeypatch):
    pairs = learned(**SHARED)
    evidence = gather(finished(tmp_path, pairs))
    monkeypatch.chdir(tmp_path)
    net = two_towers("MLP1", (8, 8, 1), 32, 8, shared=True)
    wanted = net.init(jax.random.key(7))["params"]["image"]
    x = pairs.images
    own = {"params": {"image": wanted}}
    embedded = np.asarray(net.apply(own, {"image": x}).embeddings["image"])
    names: dict = {}
    exec(pair_flax.program(evidence).partition("\ndraw =")[0], names)
    jax.tree.map(np.testing.assert_array_equal, names["params"]["image"]["params"], wanted)
    found = names["unit"](names["image"].apply(names["params"]["image"], x).logits)
    np.testing.assert_allclose(found, embedded, atol=1e-6)
    torch = pytest.importorskip("torch")
    exec(pair_torch.program(evidence).partition("\nopt =")[0], names := {})
    with torch.no_grad():
        found = names["F"].normalize(names["image"](names["x"])).numpy()
    np.testing.assert_allclose(found, embedded, atol=1e-6)


def test_the_program_of_lors_protocol_draws_its_batches_anew(tmp_path, capsys, monkeypatch):
    pairs = learned("bce", 2)
    pairs.recipe["train"] |= {"order": "drawn", "batch": 5, "rates": "image", "passes": 30}
    pairs.recipe["train"] |= {"epochs": 30, "drop": None, "test_every": 10}
    evidence = gather(finished(tmp_path, pairs))
    code = pair_flax.program(evidence)
    assert "for _ in range(3):  # drawn anew" in code and "[:5]" in code and "epoch ==" not in code
    names, printed = executed(code, tmp_path, capsys, monkeypatch)
    assert losses(printed)[-1] < losses(printed)[0]
    assert names["lr"] == {"image": 0.1, "text": 0.1}
    x, e, S = (names[name] for name in "xeS")
    logits = names["logits"](names["params"], x, e)
    got, _ = names["step"](names["params"], x, e, S)
    assert float(got) == pytest.approx(float(contrastive.bce(logits, S)), rel=1e-5)
    compile(pair_torch.program(evidence), "snippet", "exec")


def test_towers_of_pretrained_weights_or_adapters_have_no_program(tmp_path):
    for entry in ({"towers": {"size": 8, "tau": 0.07, "weights": "x"}}, {"lora": {"rank": 2}}):
        evidence = gather(finished(tmp_path, learned(**entry)))
        assert pair_flax.program(evidence) is None and pair_torch.program(evidence) is None
