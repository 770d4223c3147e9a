"""What every method must pass, on one tiny problem; a new method adds its line to METHODS.

Methods whose images are chosen have no steps: ``CHOSEN``, and a suite of their own at the end.
"""

from __future__ import annotations

import shutil
import signal
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd import config, methods, rng, specs
from jdd.data import draw_per_class
from jdd.errors import BadInput, Interrupted
from jdd.methods import METHODS
from jdd.nets import base
from jdd.parallel import over_devices
from jdd.product.distilled_set import DistilledSet
from jdd.run import loop, pipeline
from jdd.run.session import Session
from tests import runs

# Images recovered from a net: three batches of three, one of each class.
RECOVERED: dict[str, Any] = {
    "ipc": 3,
    "net.name": "ConvNetBN",
    "nets": "ConvNetBN",
    "squeeze.nets": "ConvNetBN",
    "squeeze.width": 4,
    "squeeze.epochs": 2,
    "squeeze.batch": 16,
    "image_batch": 3,
    "class_images": 1,
    "batches_at_once": 3,
    "crop": "none",
    "flip": 0.0,
    "roll": 1,
    "lr_img": 0.1,
    "eval.epochs": 4,
    "eval.batch": 3,
    "eval.curve": 0,
    "baselines.hard": False,
    "baselines.random": 0,
}
# Two teachers, and the set's images in batches of two of each class.
IN_PARTS: dict[str, Any] = {
    **RECOVERED,
    "squeeze.nets": "ConvNetBN,ConvNet",
    "squeeze.epochs": 8,
    "ipc": 6,
    "image_batch": 6,
    "class_images": 2,
    "patch": 2,
}

# Pairs of images and captions, for two towers.
PAIRED: dict[str, Any] = {
    "data.name": "digits_captions",
    "pairs": 6,
    "text.captions": 1,
    "text.size": 8,
    "towers.size": 4,
    "syn_steps": 3,
    "batch_syn": 4,
    "segments": 3,
    "net.name": "ConvNet",
    "nets": "ConvNet",
    "net.width": 3,
    "net.depth": 1,
    "experts.count": 2,
    "experts.group": 1,
    "experts.batch": 400,
    "experts.lr": 0.1,
    "lr_img": 0.1,
    "lr_txt": 0.1,
    "lr_student": 0.02,
    "lr_lr": 1e-6,
    "eval.n": 2,
    "eval.epochs": 3,
    "eval.curve": 0,
    "baselines.random": 2,
    "baselines.full": False,
    "checkpoint_every": 2,
    "progress": False,
}

# Keys of PAIRED about students and experts' segments.
TRAJECTORIES = ("syn_steps", "segments", "lr_student", "lr_lr")

KEYS: dict[str, dict[str, Any]] = {
    "cda": {**RECOVERED, "crop": "resized", "min_scale": 0.5},
    "datm": {
        "segments": 3,
        "experts.epochs": 3,
        "current_max_start_epoch": 1,
        "expansion_end": 4,
        "threshold": 0.0,
    },
    "frepo": {
        "real_parts": 3,
        "batch_real": 60,
        "pix_init": "noise",
        "lr_img": 0.03,
        "decay_steps": 40,
        "pool_size": 3,
        "pool_steps": 4,
        "lr_pool": 0.01,
        "flip": True,
        "eval.steps": 20,
    },
    "ftd": {"segments": 3, "pix_init": "noise", "ema": 0.5},
    # Two teachers, which take turns. The density's derivative is not that of its value: its target
    # follows the images.
    "gvbsm": {
        **IN_PARTS,
        "density": 0.0,
    },
    # RandAugment, small batches and the average of the weights are in its students' training.
    "edc": {
        **IN_PARTS,
        "lr_img": 0.02,
    },
    "covmatch": {key: value for key, value in PAIRED.items() if key not in TRAJECTORIES}
    | {"real_batches": 3, "batch_real": 40, "reset_every": 3, "lr_img": 3.0, "lr_txt": 3.0},
    "lors": PAIRED | {"sim_rank": 2, "lr_sim": 0.01},
    "vl": PAIRED,
    "mtt": {"segments": 3, "pix_init": "noise"},
    "ratbptt": {
        "inits": 3,
        "unroll_steps": 6,
        "window": 4,
        "batch_real": 30,
        "lr_img": 0.005,
        "window_draw": "end",
        "lr_student": 0.05,
        "learn_labels": True,
        "data.dsa": "rotate",
    },
    "sre2l": RECOVERED,
    "tesla": {"segments": 3, "pix_init": "noise", "estimator": "exact"},
    "dc": {
        "net.depth": 1,
        "ipc": 2,
        "outer_loop": 2,
        "inner_epochs": 1,
        "batch_real": 6,
        "lr_img": 0.2,
    },
    "dsa": {
        "ipc": 2,
        "outer_loop": 2,
        "inner_epochs": 1,
        "batch_real": 6,
        "lr_img": 0.2,
        "classes_at_once": 2,
    },
    "dm": {"batch_real": 6, "classes_at_once": 2, "lr_img": 1.0},
    # Images of four tiles, and frequencies that a net learns.
    "ncfm": {
        "net.depth": 1,
        "batch_real": 6,
        "num_freqs": 64,
        "sampling_net": True,
        "pix_init": "noise",
        "lr_img": 0.02,
        "experts.epochs": 2,
        "experts.momentum": 0.5,
    },
    "dd": {
        "net.depth": 1,
        "inits": 3,
        "distill_epochs": 3,
        "lr_img": 0.05,
        "lr_lr": 0.05,
        "batch_real": 16,
        "nets": "ConvNet",
    },
}


CHOSEN = ("el2n", "herding", "kcenter", "random")
# Real crops put together, and images of a prior: no steps, and no rows of the training images to
# keep. They have tests of their own. Products that are no fixed set of images:
# tests/test_products_run.py; the phases VAE and diffusion: test_priors.py; GAN and DiM:
# test_gan.py.
EXCLUDED = (
    "rded",
    "d4m",
    "gaussian",
    "random_pairs",
    "herding_pairs",
    "kcenter_pairs",
    "vae",
    "diffusion",
    "gan",
    "dim",
)
LEARNED = sorted(set(METHODS) - set(CHOSEN) - set(EXCLUDED))
# The code of SRe2L, MTT, DC, DD, DM and LoRS with other settings or losses: in the slow suite.
RELATED = (
    *("cda", "covmatch", "datm", "dsa", "edc", "ftd", "gvbsm", "ncfm", "ratbptt", "tesla", "vl"),
)
SUITE = [pytest.param(m, marks=[pytest.mark.slow] * (m in RELATED)) for m in LEARNED]


def base_of(method, tiny):
    """Return the tiny problem of a method's task, without images for methods of pairs."""
    return tiny if specs.get(method).task == "classify" else {}


def known(method, keys):
    """Return the keys of the tiny run that a method has."""
    schema = config.schema(method)
    return {name: value for name, value in keys.items() if name in schema}


@pytest.fixture(scope="module", params=SUITE)
def made(request, tiny, tmp_path_factory):
    """The method, its problem and its work, with what it reads already trained."""
    place = tmp_path_factory.mktemp(request.param)
    own = {"method": request.param, "experts.dir": str(place / "x")}
    own |= known(request.param, {"squeeze.dir": str(place / "q")})
    # All of DSA's operations at once compile for long and have tests of their own.
    paired = specs.get(request.param).task == "retrieval"
    dsa = {} if request.param in RELATED or paired else known(request.param, {"data.dsa": "crop"})
    keys = known(request.param, base_of(request.param, tiny)) | dsa | KEYS[request.param] | own
    for stage in pipeline.stages(runs.context(keys, place / "run").config):
        if stage.name in ("experts", "squeeze"):
            runs.run(keys, place / "run", stage.name)
    context = runs.context(keys, place / "run")
    return methods.make(context.config, context.problem), context, keys


def batch_of(made, step=0):
    method, context, _ = made
    return context.problem.gather(method.sample(0, step))


def test_state_has_the_shapes_of_the_set(made):
    method, context, _ = made
    state = method.init(0)
    count = getattr(context.config, "pairs", 3 * int(context.config.ipc))
    assert state.variables["images"].shape == (count, *context.data.shape)
    assert bool(method.valid(state))
    same, other = method.init(0), method.init(1)
    jax.tree.map(np.testing.assert_array_equal, state.variables, same.variables)
    assert not np.array_equal(state.variables["images"], other.variables["images"])


def test_sampling_is_a_function_of_seed_and_step(made):
    method = made[0]
    first, again = (method.sample(0, 3) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_step_is_pure_and_compiles_once(made):
    method = made[0]
    carry = loop.start(method, 0)
    gradient, update = loop.make_step(method, 0, jax.devices()[:1])
    batch, alive = batch_of(made), jnp.asarray(True)
    before = jax.tree.map(np.array, carry)
    first = update(carry, gradient(carry, batch), alive)[0]
    with jax.log_compiles(False), jax.checking_leaks():
        second = update(carry, gradient(carry, batch), alive)[0]
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, before, carry)
    update(first, gradient(first, batch_of(made, 1)), alive)
    assert update._cache_size() == 1
    assert gradient.programs == 1


def test_gradient_agrees_with_finite_differences(made, monkeypatch):
    monkeypatch.setattr(base, "PART", 1)  # an image at a time: the parts of a step are in it too
    method = made[0]
    item = jax.tree.map(lambda x: x[0], batch_of(made))
    # A truncated gradient is the whole one where nothing comes before the window.
    if not isinstance(item.get("start", {}), dict):
        item["start"] = np.zeros((), np.int32)
    state = method.init(0)
    with jax.enable_x64(True):
        variables, aux, item = jax.tree.map(
            lambda x: (
                jnp.asarray(np.asarray(x), jnp.float64)
                if np.issubdtype(np.asarray(x).dtype, np.floating)
                else jnp.asarray(x)
            ),
            (state.variables, state.aux | method.constants, item),
        )
        key = rng.key(0, "fd")
        loss = jax.jit(lambda v: method.objective(v, aux, item, key)[0])
        grads = jax.jit(jax.grad(lambda v: method.objective(v, aux, item, key)[0]))(variables)
        draw = np.random.default_rng(0)
        v = jax.tree.map(lambda x: jnp.asarray(draw.standard_normal(x.shape)), variables)
        # ReLU has kinks: a small step keeps both sides of the difference on one piece.
        h = 1e-7
        for only in variables:  # one variable at a time, so that none hides behind another
            d = {n: x if n == only else jax.tree.map(jnp.zeros_like, x) for n, x in v.items()}
            ends = [
                loss(jax.tree.map(lambda x, y, s=s: x + s * h * y, variables, d))
                for s in (1.0, -1.0)
            ]
            products = jax.tree.map(jnp.vdot, grads[only], d[only])
            exact = sum(jax.tree.leaves(products))
            np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


def agree(a, b):
    """Equal to rounding; an entry far smaller than the array's largest is rounded as that one."""
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=max(1e-6, 3e-5 * float(np.abs(a).max())))


def test_one_device_equals_several(made, monkeypatch):
    method = made[0]
    carry, batch = loop.start(method, 0), batch_of(made)
    one = loop.make_step(method, 0, jax.devices()[:1])[0](carry, batch)
    # 3 items on 2 devices are padded; an accelerator runs its items in one program.
    accelerator = [SimpleNamespace(platform="gpu")]
    several = ("pmap", jax.devices()[:2]), ("jit", jax.devices()[:3]), ("jit", accelerator)
    assert {form for form, _ in several} == set(over_devices.FORMS)
    for form, devices in several:
        monkeypatch.setattr(over_devices, "FORM", form)
        many = loop.make_step(method, 0, devices)[0](carry, batch)
        jax.tree.map(agree, one, many)


def test_resumed_run_is_bit_equal(made, tmp_path):
    _, context, keys = made

    def steps(place, count, stop=-1):
        result = runs.context({**keys, "steps": count}, place)
        place.mkdir(exist_ok=True)
        session = Session(place, progress=False)
        method = methods.make(result.config, result.problem)

        def observe(at, state):
            if at == stop:
                signal.raise_signal(signal.SIGINT)

        with session.signals():
            return loop.run(method, result.problem, 0, session, result.devices, observe=observe)

    whole = steps(tmp_path / "whole", 4)
    if config.schema(keys["method"])["steps"].resumable:
        steps(tmp_path / "parts", 3)  # in the middle of DC's loop of 2, too
    else:
        with pytest.raises(Interrupted):
            steps(tmp_path / "parts", 4, stop=3)
    parts = steps(tmp_path / "parts", 4)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_loss_falls_and_the_set_loads_and_evaluates(made, tmp_path):
    one = known(made[2]["method"], {"segments": 1, "inits": 1, "real_parts": 1, "real_batches": 1})
    keys = {**made[2], "steps": 40, **one, "log_every": 1}
    result = runs.run(keys, tmp_path)
    from jdd.run.metrics import read

    # A part of a set that is made in parts has a stage of its own: recover-0-1-2.
    made_by = [(row["stage"], row) for row in read(tmp_path / "metrics.jsonl")]
    losses = [row["loss"] for stage, row in made_by if stage.startswith(("distill", "recover-"))]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    dset, shape = jdd.load(tmp_path / "distilled.npz"), made[1].data.shape
    assert dset.images.shape == (keys.get("pairs") or 3 * int(keys["ipc"]), *shape)
    (found,) = (result["accuracy"] or result["metrics"]).values()  # by its own net
    assert found["n"] == 2 and 0 <= found["mean"] <= 1


# Methods without steps.


@pytest.fixture(scope="module", params=CHOSEN)
def picked(request, tiny, tmp_path_factory):
    """The method, the keys, the place and the result of a finished run of it."""
    place = tmp_path_factory.mktemp(request.param)
    own = {"method": request.param, "steps": "auto", "ipc": 2, "experts.epochs": 1}
    own |= {"net.name": "MLP", "nets": "MLP"}
    keys = known(request.param, {**tiny, **own, "experts.dir": str(place / "x")})
    return request.param, keys, place / "run", runs.run(keys, place / "run")


def test_chosen_images_are_real_ones_and_their_rows_are_kept(picked):
    name, keys, place, result = picked
    context = runs.context(keys, place)
    dset, train = DistilledSet.load(place / "distilled.npz"), context.data.train
    rows = dset.recipe["selected"]
    assert len(set(rows)) == 6 and dset.label_kind == "hard"
    np.testing.assert_array_equal(dset.images, train.images[rows])
    np.testing.assert_array_equal(dset.labels, train.labels[rows])
    np.testing.assert_array_equal(dset.labels, [0, 0, 1, 1, 2, 2])
    assert result["method"] == name and result["steps"] == 0
    assert dset.recipe["train"]["lr"] == 0.01 and result["accuracy"]["MLP"]["n"] == 2
    method = methods.make(context.config, context.problem)
    assert method.objective is None
    again, other = (method.init(seed).aux["rows"].tolist() for seed in (0, 1))
    assert again == rows and (other == rows) == (name != "random")


def test_chosen_rows_follow_from_the_seed_or_the_features_of_the_trained_net(picked):
    name, keys, place, _ = picked
    context = runs.context(keys, place)
    train, net = context.data.train, context.net
    if name == "random":
        drawn = draw_per_class(rng.host(0, "random/choice"), train.labels, 3, 2)
        assert DistilledSet.load(place / "distilled.npz").recipe["selected"] == drawn.tolist()
        return
    out = [net.apply(context.store.read(i, 1), train.images, train=False) for i in range(2)]
    if name == "el2n":  # both experts; the two of lowest score of each class
        error = [np.asarray(jax.nn.softmax(o.logits)) - np.eye(3)[train.labels] for o in out]
        mean = np.mean(np.linalg.norm(error, axis=2), axis=0)
        easy = [np.flatnonzero(train.labels == c) for c in range(3)]
        easy = [group[np.argsort(mean[group])[:2]].tolist() for group in easy]
        assert sum(easy, []) == DistilledSet.load(place / "distilled.npz").recipe["selected"]
        return
    features = np.asarray(out[0].features)
    rows = []
    for c in range(3):
        group = np.flatnonzero(train.labels == c)
        f = features[group].astype(np.float64)
        first = np.argmin(np.linalg.norm(f - f.mean(0), axis=1))
        if name == "herding":
            second = [np.linalg.norm((f[first] + g) / 2 - f.mean(0)) for g in f]
            second[first] = np.inf
            rows += [group[first], group[np.argmin(second)]]
        else:
            rows += [group[first], group[np.argmax(np.linalg.norm(f - f[first], axis=1))]]
    assert rows == DistilledSet.load(place / "distilled.npz").recipe["selected"]


def test_a_run_without_steps_is_finished_resumed_and_reported(picked, capsys):
    name, keys, place, result = picked
    page = (place / "report.html").read_text()
    assert "0 distillation steps" in page and "While distilling" not in page
    assert "distilled with it" not in page
    assert "finished" in runs_output(capsys, {**keys, "progress": True}, place)
    whole = (place / "distilled.npz").read_bytes()
    for lost in ("distilled.npz", "result.json", "checkpoints/distill"):
        path = place / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert runs.run(keys, place)["accuracy"] == result["accuracy"], lost
        assert (place / "distilled.npz").read_bytes() == whole
    with pytest.raises(BadInput, match="config.steps: 3 with method"):
        runs.run({**keys, "steps": 3}, place)


def runs_output(capsys, keys, place):
    runs.run(keys, place)
    return capsys.readouterr().out


def test_a_chosen_set_is_evaluated_and_its_cost_foretold(picked, tmp_path):
    name, keys, place, result = picked
    small = {"eval": {"n": 2}, "baselines": {"random": 0}}
    found = jdd.evaluate(place / "distilled.npz", tmp_path, **small)
    np.testing.assert_allclose(
        found["accuracy"]["MLP"]["values"], result["accuracy"]["MLP"]["values"]
    )
    cost = runs.run({**keys, "experts.dir": ""}, tmp_path / "none", "estimate")
    assert not (tmp_path / "none").exists() and ("experts" in cost) == (name != "random")
    assert cost["distill"]["seconds"] >= 0 and cost["evaluate"]["seconds"] > 0
