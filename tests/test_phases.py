"""A method with a phase of its own: run, interrupted, resumed, extended, skipped, estimated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jdd import config as configs
from jdd import main
from jdd.config.helptext import help_text
from jdd.errors import BadInput, Interrupted
from jdd.product.distilled_set import DistilledSet
from jdd.run import pipeline
from jdd.run.metrics import read
from jdd.run.session import Session
from jdd.stages import distill, phases, registry
from jdd.stages.registry import Phase
from jdd.storage import checkpoints
from tests import toy_generator

FILE = Path(toy_generator.__file__)
OWN = ("prior_steps", "rank", "lr_latent", "with_rest")


@pytest.fixture(scope="module")
def keys(tiny):
    kept = {k: v for k, v in tiny.items() if k in configs.COMMON and not k.startswith("experts.c")}
    return kept | {
        "steps": 4, "prior_steps": 4, "eval.epochs": 2, "eval.n": 1, "eval.curve_n": 1,
        "eval.curve": 0, "baselines.random": 0, "baselines.full": False, "net.name": "MLP",
        "nets": "MLP", "checkpoint_every": 3, "data.dsa": "none",
    }  # fmt: skip


def go(keys, place, mode="all"):
    return pipeline.run(configs.load(str(FILE), keys), str(place), mode, None, "test")


@pytest.fixture(scope="module")
def done(keys, tmp_path_factory):
    place = tmp_path_factory.mktemp("phases")
    return place, go(keys, place)


def prior_of(place, name="prior"):
    folder = place / "checkpoints" / name
    return checkpoints.read(folder / str(checkpoints.latest(folder)) / "default")


def same(a, b):
    (a_set, b_set), (a_prior, b_prior) = (
        (make(a), make(b)) for make in (lambda p: DistilledSet.load(p / "distilled.npz"), prior_of)
    )
    np.testing.assert_array_equal(a_set.images, b_set.images)
    assert a_set.recipe["fingerprint"] == b_set.recipe["fingerprint"]
    for name in ("encoder", "decoder"):
        np.testing.assert_array_equal(
            a_prior["state"]["variables"][name], b_prior["state"]["variables"][name]
        )
    assert a_prior["state"]["aux"]["seen"] == b_prior["state"]["aux"]["seen"] == 4


def context_of(keys, place):
    config, _ = configs.resolve(configs.load(str(FILE), keys).config)
    return pipeline.prepare(config, place, "test")


def test_a_run_has_both_phases_everywhere(done):
    place, result = done
    assert {row["stage"] for row in read(place / "metrics.jsonl")} >= {"prior", "distill"}
    assert list(result["seconds"])[:2] == ["prior", "distill"]
    assert set(result["peak_memory_bytes"]["xla_temporaries"]) <= {"prior", "distill"}
    page = (place / "report.html").read_text(encoding="utf-8")
    assert page.index("prior <b>") < page.index("distill <b>")
    made = DistilledSet.load(place / "distilled.npz")
    decoder = prior_of(place)["state"]["variables"]["decoder"]
    flat = made.images.reshape(len(made.images), -1)
    latents = prior_of(place, "distill")["state"]["variables"]["latents"]
    np.testing.assert_allclose(flat, latents @ decoder, atol=1e-5)


@pytest.mark.parametrize("stage", ["prior", "distill"])
def test_either_phase_resumes_to_the_same_bits(done, keys, tmp_path, monkeypatch, stage):
    real, seen = Session.stopping.fget, []

    def stopping(session):
        here = checkpoints.latest(tmp_path / "checkpoints" / stage)
        seen.append(here)
        at = read(tmp_path / "metrics.jsonl")
        return real(session) or any(r["stage"] == stage and r["step"] == 2 for r in at)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "stopping", property(stopping))
        with pytest.raises(Interrupted, match="interrupted at step 2"):
            go(keys, tmp_path)
    assert seen and checkpoints.latest(tmp_path / "checkpoints" / stage) == 2
    go(keys, tmp_path)
    same(done[0], tmp_path)


def test_one_mode_at_a_time(done, keys, tmp_path):
    with pytest.raises(BadInput, match="--mode=prior first"):
        go(keys, tmp_path, "distill")
    go(keys, tmp_path, "prior")
    assert not (tmp_path / "distilled.npz").exists()
    before = (tmp_path / "checkpoints/prior/4/_CHECKPOINT_METADATA").stat().st_mtime_ns
    go(keys, tmp_path, "prior")
    go(keys, tmp_path, "distill")
    assert (tmp_path / "checkpoints/prior/4/_CHECKPOINT_METADATA").stat().st_mtime_ns == before
    same(done[0], tmp_path)
    # Another number of the prior's steps: it goes on from there, the set starts anew.
    with pytest.raises(BadInput, match="config.prior_steps: 3, and 4 are done"):
        go(keys | {"prior_steps": 3}, tmp_path, "prior")
    go(keys | {"prior_steps": 6}, tmp_path, "prior")
    assert checkpoints.latest(tmp_path / "checkpoints/prior") == 6
    assert not distill.STAGE.done(context_of(keys | {"prior_steps": 6}, tmp_path))
    go(keys | {"prior_steps": 6}, tmp_path, "distill")
    at = prior_of(tmp_path, "distill")["state"]["variables"]["latents"]
    fresh = tmp_path / "fresh"
    for mode in ("prior", "distill"):
        go(keys | {"prior_steps": 6}, fresh, mode)
    np.testing.assert_array_equal(at, prior_of(fresh, "distill")["state"]["variables"]["latents"])


def test_an_identity_holds_the_phases_before_it(keys, tmp_path):
    first = context_of(keys, tmp_path)
    longer = context_of(keys | {"prior_steps": 5}, tmp_path)
    other = context_of(keys | {"steps": 5}, tmp_path)
    own = toy_generator.PRIOR
    assert phases.identity(first, own) != phases.identity(longer, own)
    assert phases.identity(first, own) == phases.identity(other, own)
    found = {distill.identity(context) for context in (first, longer, other)}
    assert len(found) == 3


def test_estimate_and_help_name_every_phase(keys, tmp_path, capsys):
    found = go(keys | {"with_rest": True}, tmp_path / "none", "estimate")
    assert list(found) == ["prior", "critic", "means", "distill", "evaluate", "report", "full"]
    assert found["prior"]["seconds"] > 0 and found["critic"]["seconds"] > 0
    assert not (tmp_path / "none").exists()
    assert "4 steps of" in capsys.readouterr().out
    words = help_text(str(FILE), {})
    assert re.search(r"^  prior +learn the generator of the images$", words, re.M)
    assert main.main([f"--config={FILE}", "--mode=priors"]) == 2
    assert "did you mean prior?" in capsys.readouterr().err


def test_a_training_and_a_construction_are_phases(keys, tmp_path):
    keys = keys | {"with_rest": True, "runs": 2, "steps": 1, "prior_steps": 1}
    for mode in ("prior", "critic", "means", "distill"):
        go(keys, tmp_path, mode)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()}
    assert names == {f"{s}{t}" for s in ("prior", "means", "distill") for t in ("", "-s1")}
    context = context_of(keys, tmp_path)
    assert all(stage.done(context) for stage in pipeline.stages(context.config)[:4])
    # Keys that only a later phase reads are no part of an earlier one's identity.
    changed = context_of(keys | {"lr_latent": 0.2}, tmp_path)
    for phase in (toy_generator.PRIOR, toy_generator.CRITIC):
        assert phases.identity(context, phase) == phases.identity(changed, phase)
    assert phases.identity(context, toy_generator.MEANS) != phases.identity(
        changed, toy_generator.MEANS
    )
    known = json.loads((tmp_path / "checkpoints/phases.json").read_text())
    assert list(known) == ["prior", "prior-s1", "critic", "means", "means-s1"]


def test_a_resumable_key_of_a_training_is_honoured(keys, tmp_path):
    keys = keys | {"with_rest": True, "steps": 1, "prior_steps": 1}
    longer, modes = keys | {"critic_epochs": 2}, ("prior", "critic", "means", "distill")
    for mode in modes:
        go(keys, tmp_path / "a", mode)
    context = context_of(longer, tmp_path / "a")
    assert [stage.done(context) for stage in pipeline.stages(context.config)[:4]] == [
        True, False, False, False
    ]  # fmt: skip
    first = (tmp_path / "a/checkpoints/prior/1/_CHECKPOINT_METADATA").stat().st_mtime_ns
    for mode in modes:
        go(longer, tmp_path / "a", mode)
        go(longer, tmp_path / "b", mode)
    assert (tmp_path / "a/checkpoints/prior/1/_CHECKPOINT_METADATA").stat().st_mtime_ns == first
    a, b = (phases.problem(context_of(longer, tmp_path / p), 0).phases["critic"] for p in "ab")
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)
    steps = [r["step"] for r in read(tmp_path / "a/metrics.jsonl") if r["stage"] == "critic"]
    assert steps == [1, 2]  # it went on
    with pytest.raises(BadInput, match="phase critic: epochs 1, and 2 are done; 2 or more"):
        go(keys, tmp_path / "a", "critic")
    # A construction is made again.
    fewer = longer | {"means_of": 1}
    assert not phases.done(context_of(fewer, tmp_path / "a"), toy_generator.MEANS)
    assert phases.done(context_of(fewer, tmp_path / "a"), toy_generator.CRITIC)
    go(fewer, tmp_path / "a", "means")
    a, b = (prior_of(tmp_path / p, "means")["state"]["variables"]["means"] for p in "ab")
    assert (a != b).any() and phases.done(context_of(fewer, tmp_path / "a"), toy_generator.MEANS)


def test_a_phase_is_declared_in_its_own_words():
    for name in ("distill", "all", "Prior", "prior-1", ""):
        with pytest.raises(BadInput, match="Phase.name"):
            Phase(name, make="a:b")
    with pytest.raises(BadInput, match="one of method, training, construction"):
        Phase("prior", make="a:b", kind="gan")  # type: ignore[arg-type]
    assert registry.load("jdd.stages.registry:Phase") is Phase and registry.load(same) is same
