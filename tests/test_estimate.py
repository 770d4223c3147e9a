"""What a run costs is told before the images are there, from steps that fit the machine."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config as configs
from jdd import data, memory, parallel
from jdd.data.catalogue import CATALOGUE
from jdd.errors import BadInput
from jdd.parallel import devices
from jdd.run import pipeline
from jdd.run.session import clock
from jdd.stages import base, costs, distill_estimate, evaluate, report, whitening
from tests import runs
from tests.conftest import CLASSES
from tests.test_decoupled import OWN, keys_of

_OPTIMISED = {"xla_backend_optimization_level": 3}


@pytest.fixture
def large(monkeypatch):
    """A known dataset that no machine holds."""
    facts = CATALOGUE["tiny_imagenet"]._replace(
        name="large", shape=(16, 16, 3), classes=CLASSES, sizes=(40_000_000, 3_000_000)
    )
    monkeypatch.setitem(CATALOGUE, "large", facts)
    monkeypatch.setattr(base, "_PIXELS", {"cpu": 1 << 11})  # 8 images; of more, 4 are timed
    return facts


@pytest.mark.slow
def test_a_dataset_that_is_not_here_is_foretold(large, tiny, tmp_path, capsys):
    keys = keys_of(
        tiny, "sre2l", **{"data.name": "large", "data.path": "", "squeeze.batch": 32,
        "eval.batch": 16, "ipc": 8, "image_batch": 24, "class_images": 8, "data.stream": True},
    )  # fmt: skip
    found = runs.run(keys, tmp_path / "none", "estimate")
    assert not (tmp_path / "none").exists()
    out = capsys.readouterr().out
    assert "large is not here: estimated for 40000000 training and 3000000 test images" in out
    for words in ("from 4 of 32 images", "from 4 of 24 images", "from 4 of 16 images"):
        assert words in out
    assert "1250000 steps an epoch" in out  # of the real batch
    pixels = 43_000_000 * 16 * 16 * 3
    assert pixels < found["squeeze"]["disk_bytes"] < pixels + (1 << 20)
    assert found["recover"]["disk_bytes"] == 4 * 24 * 16 * 16 * 3
    labels = 4 * 3 * 2 * (16 * CLASSES * 2)  # epochs, sets, steps of 16 rows of logits
    assert labels < found["relabel"]["disk_bytes"] < 100 * labels
    assert all(found[s]["seconds"] > 0 for s in ("squeeze", "recover", "relabel", "evaluate"))
    for mode in ("all", "squeeze"):
        with pytest.raises(BadInput, match="config.data.path: empty"):
            runs.run(keys, tmp_path / "none", mode)


def test_what_is_there_is_no_placeholder(large, toy, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for config, answer in (
        ({"name": "large"}, True),
        ({"name": "imagenet", "size": 32}, True),
        ({"name": "cifar10"}, True),
        ({"name": "digits"}, False),
        ({"name": "large", "path": str(toy)}, False),
        ({"name": "mine"}, False),
    ):
        assert data.absent(config) is answer, config
    (tmp_path / "cifar10/3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10/3.0.2/dataset_info.json").write_text("{}")
    assert not data.absent({"name": "cifar10"})
    found = data.placeholder({"name": "imagenet", "size": 32})
    assert found.train.images.shape == (1281167, 32, 32, 3) and found.classes == 1000
    assert found.train.images.strides == (0, 0, 0, 0)
    assert np.bincount(found.test.labels).tolist() == [50] * 1000
    assert set(np.bincount(found.train.labels)) == {1281, 1282}


def test_a_share_of_a_step_is_timed_where_it_is_large(large, tiny, tmp_path):
    devices = runs.context({**keys_of(tiny, "sre2l", **OWN)}, tmp_path).devices
    assert base.share(8, (16, 16), devices) == 8 and base.scaled(8, 8) == ""
    assert base.share(9, (16, 16), devices) == 4 and base.share(3, (64, 64), devices) == 3
    assert base.share(99, (8, 8), devices) == 16


@pytest.fixture
def no_stages(monkeypatch):
    """Runs of the report alone: nothing is trained to say what whitening takes."""
    monkeypatch.setattr(pipeline, "stages", lambda config: [report.STAGE])
    monkeypatch.setattr(whitening, "_SIDE", 64)


@pytest.mark.parametrize("kind", ["kornia", "kip", "frepo"])
def test_whitening_counts_and_is_not_fitted(tiny, no_stages, tmp_path, capsys, kind):
    cache = tmp_path / "cache"
    keys = {**tiny, "data.zca": kind, "data.cache_dir": str(cache)}
    found = runs.run(keys, tmp_path / "run", "estimate")
    assert not list(cache.rglob("zca*")) and not (tmp_path / "run").exists()
    size = 8 * 8 * 3
    row = found["whitening"]
    assert row["seconds"] > 0 and row["disk_bytes"] == 8 * size**2
    # The covariance, LAPACK's copy of it and its two workspaces, the eigenvectors: float64.
    assert row["temporaries_bytes"] == 5 * 8 * size**2
    out = capsys.readouterr().out
    assert f"{kind} of 60 images: a matrix of 192 x 192, its eigenvectors and its inverse" in out
    assert out.splitlines()[-1].endswith(f"the whitening {memory.size(8 * size**2)} in memory")
    if kind != "kornia":
        return
    fitted = runs.context(keys, tmp_path / "run")
    assert list(cache.glob("zca-*.npz"))
    found = runs.run(keys, tmp_path / "run", "estimate")
    assert found["whitening"] == {"seconds": 0.0, "temporaries_bytes": 0, "disk_bytes": 0}
    assert fitted.data.transform.fitted and whitening.held(fitted) == 8 * size**2
    assert "whitening" not in runs.run(tiny, tmp_path / "none", "estimate")


@pytest.mark.parametrize("kind", ["kornia", "kip", "frepo"])
def test_unfitted_data_are_the_same_dataset(tiny, tmp_path, kind):
    words = {"name": "toy", "path": tiny["data.path"], "zca": kind, "cache_dir": str(tmp_path)}
    unfitted, fitted = data.load(words, fit=False), data.load(words)
    assert unfitted.fingerprint == fitted.fingerprint and not unfitted.transform.fitted
    assert unfitted.transform.kind == fitted.transform.kind == kind
    assert unfitted.transform.zca_matrix.strides == (0, 0)  # no memory
    assert unfitted.train.images.shape == fitted.train.images.shape


def test_whitening_of_a_dataset_that_is_not_here(tiny, tmp_path, monkeypatch):
    words = {"data.name": "tiny_imagenet", "data.path": "", "data.zca": "kornia"}

    def cost(size):
        there = data.placeholder({"name": "tiny_imagenet", "zca": "kornia", "size": size})
        resolved = configs.load("mtt", {**tiny, **words}).config
        return whitening.estimate(pipeline.RunContext(resolved, there, tmp_path, ""))

    monkeypatch.setattr(whitening, "_SIDE", 64)
    small, large = cost(8), cost(16)
    assert (small.temporaries, large.temporaries) == (40 * 192**2, 40 * 768**2)
    assert 0 < small.seconds < large.seconds and "from one of 64 x 64" in large.note
    monkeypatch.setattr(memory, "available", lambda: 23 << 30)
    says = r"config.data.zca: kornia of 224x224x3 images needs a matrix of 169 GiB, .* 23 GiB free"
    with pytest.raises(BadInput, match=says):
        runs.run({**tiny, **words, "data.size": 224}, tmp_path / "none", "estimate")


def test_times_and_memory_have_units_that_fit(monkeypatch):
    assert clock(71 * 3600 + 59 * 60) == "71 h 59 min"
    assert clock(10748 * 3600 + 540) == "447 days 20 h"
    assert (base.pace(0.047), base.pace(9.8), base.pace(61.2)) == ("47 ms", "9800 ms", "61 s")
    monkeypatch.setattr(pipeline, "room", lambda devices: 3 << 30)
    context = SimpleNamespace(devices=())
    assert pipeline._exceeds(3 << 30, context) == ""
    assert pipeline._exceeds(4 << 30, context).startswith("; more than this machine's memory")


def test_a_slow_call_is_timed_once(monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(base, "ENOUGH", 0.0)
    base.timed(lambda: calls.append(1), 5)
    assert len(calls) == 2  # to warm up, then one
    monkeypatch.setattr(base, "ENOUGH", 60.0)
    base.timed(lambda: calls.append(1), 5)
    assert len(calls) == 2 + 6


def test_a_long_outer_step_is_timed_with_fewer_student_steps(tiny, tmp_path, monkeypatch):
    keys = {**tiny, "syn_steps": 8, "ipc": 4}
    context = runs.context(keys, tmp_path)
    assert distill_estimate.shortened(context, context.config).config is context.config
    monkeypatch.setattr(base, "_PIXELS", {"cpu": 1 << 11})
    made = distill_estimate.shortened(context, context.config)
    assert made.config.syn_steps == 2 and made.config.ipc == 4
    assert made.factor == 4 and made.images == 1 and made.stored > 0
    assert made.note == " (from 2 of 8 student steps)"
    monkeypatch.setattr(base, "_PIXELS", {"cpu": 1 << 7})
    made = distill_estimate.shortened(context, context.config)
    assert made.config.ipc < 4 and made.factor > 4 and "images" in made.note


def test_the_memory_of_a_step_that_does_not_run_is_xlas_plan_for_it():
    def step(w, x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w) - jnp.sin(c), None), x, None, 4)[0].sum()

    lowered = jax.jit(jax.grad(step)).lower(jnp.ones((64, 64)), jnp.ones((32, 64)))
    planned = devices.temporaries(devices.memory_only(lowered))
    assert planned == devices.temporaries(lowered.compile(_OPTIMISED)) > 0
    call = parallel.spread(jax.grad(step), (None, 0), jax.devices()[:1])
    args = (jnp.ones((64, 64)), jnp.ones((3, 32, 64)))
    before = parallel.planned(call, *args)
    call(*args)
    assert before == parallel.planned(call, *args) == planned * devices.threads(3)


def test_a_nets_step_is_timed_once_for_all_its_measurements(tiny, tmp_path, monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(costs, "timed", lambda call: calls.append(1) or 0.5)
    keys = {**tiny, "baselines.random": 2, "eval.n": 2, "eval.curve": 3, "eval.curve_n": 2}
    context = runs.context(keys, tmp_path)
    alone = costs.cost(context, context.net, 2).seconds
    found = evaluate.STAGE.estimate(context)
    assert len(calls) == 2  # one of them was ``alone``
    assert found.seconds == pytest.approx(alone * (1 + 1 + 3))  # the set, random draws, the curve
    assert "3 points of the accuracy curve" in found.note


def test_experts_count_every_snapshot(tiny, tmp_path):
    keys = {
        **tiny, "method": "mtt", "ipc": 1, "steps": 1, "syn_steps": 1, "max_start_epoch": 1,
        "expert_epochs": 1, "experts.count": 2, "experts.group": 1, "experts.epochs": 2,
        "net.width": 8, "baselines.random": 0, "baselines.full": False,
    }  # fmt: skip
    foretold = runs.run(keys, tmp_path / "run", "estimate")["experts"]["disk_bytes"]
    context = runs.context(keys, tmp_path / "run")
    one = sum(x.nbytes for x in jax.tree.leaves(context.net.init(jax.random.key(0))))
    assert 2 * 3 * one <= foretold < 2 * 3 * one + one  # two groups of epochs 0, 1 and 2
    context.store.create()
    context.store.write(0, 1, jax.vmap(context.net.init)(jax.random.split(jax.random.key(0), 1)))
    left = runs.run(keys, tmp_path / "run", "estimate")["experts"]["disk_bytes"]
    assert 4 * one <= left < 5 * one  # epoch 2 of a group, all three of the other
