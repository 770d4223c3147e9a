"""The shared suite's checks for the phases VAE and diffusion, and what their generators are."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd import config as configs
from jdd import rng
from jdd.errors import BadInput, Interrupted
from jdd.generative import diffusion
from jdd.methods import diffusion as diffusion_method
from jdd.methods import vae as vae_method
from jdd.methods.base import Problem, State
from jdd.nets.autoencoder import autoencoder
from jdd.nets.unet import unet
from jdd.run import loop, pipeline
from jdd.run.metrics import read
from jdd.run.session import Session
from jdd.stages import phases
from tests import runs
from tests.methods.test_shared_suite import agree

TINY = {
    "ipc": 2, "vae.width": 2, "vae.channels": 2, "vae.levels": 3, "vae.steps": 4, "vae.batch": 6,
    "vae.parts": 3, "vae.lr": 0.01, "net.name": "MLP", "nets": "MLP", "eval.epochs": 2,
    "eval.n": 1, "eval.curve": 0, "baselines.random": 1, "baselines.full": False,
    "checkpoint_every": 2, "log_every": 1, "data.dsa": "none", "quality.images": 0,
    "quality.every": 0,
}  # fmt: skip
DIFFUSED = {
    **TINY, "diffusion.width": 4, "diffusion.levels": 1, "diffusion.steps": 4, "diffusion.batch": 6,
    "diffusion.parts": 3, "diffusion.lr": 0.01, "diffusion.timesteps": 20, "sampling.steps": 3,
    "sampling.part": 4,
}  # fmt: skip
CASES = {
    "vae": ("vae", TINY),
    "latents": ("diffusion", DIFFUSED),
    "pixels": ("diffusion", DIFFUSED | {"diffusion.space": "pixels", "data.size": 4}),
}


@pytest.fixture(scope="module")
def data(tiny):
    kept = ("data.name", "data.path", "devices", "progress")
    return {name: tiny[name] for name in kept}


# Latents take both phases; each alone has the same code.
SUITE = [pytest.param(c, marks=[pytest.mark.slow] * (c != "latents")) for c in sorted(CASES)]


@pytest.fixture(scope="module", params=SUITE)
def made(request, data, tmp_path_factory):
    """The phase as a method, its problem, its keys and its name; the phases before it have run."""
    name, own = CASES[request.param]
    keys = data | own | {"method": name}
    place = tmp_path_factory.mktemp(request.param)
    context = runs.context(keys, place)
    *before, last = configs.phases(context.config)
    for phase in before:
        runs.run(keys, place, phase.name)
    problem = phases.problem(context, 0, last)
    return context.config.spec.find(last.make)(context.config, problem), problem, keys, last


def batch_of(made, step=0):
    return made[1].gather(made[0].sample(0, step))


@pytest.mark.slow
def test_a_step_is_pure_compiles_once_and_follows_from_the_seed(made):
    method = made[0]
    jax.tree.map(np.testing.assert_array_equal, method.sample(0, 3), method.sample(0, 3))
    same, other = method.init(0), method.init(1)
    jax.tree.map(np.testing.assert_array_equal, method.init(0), same)
    pairs = zip(*map(jax.tree.leaves, (same.variables, other.variables)), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)
    carry, alive = loop.start(method, 0), jnp.asarray(True)
    gradient, update = loop.make_step(method, 0, jax.devices()[:1])
    first = update(carry, gradient(carry, batch_of(made)), alive)[0]
    second = update(carry, gradient(carry, batch_of(made)), alive)[0]
    jax.tree.map(np.testing.assert_array_equal, first, second)
    update(first, gradient(first, batch_of(made, 1)), alive)
    assert update._cache_size() == 1 and gradient.programs == 1


def test_gradient_agrees_with_finite_differences(made):
    method = made[0]
    item = jax.tree.map(lambda x: x[0], batch_of(made))
    state, draw = method.init(0), np.random.default_rng(0)

    def double(a):
        a = np.asarray(a)
        return jnp.asarray(a, jnp.float64) if np.issubdtype(a.dtype, np.floating) else a

    with jax.enable_x64(True):
        variables, aux, item = jax.tree.map(
            double, (state.variables, state.aux | method.constants, item)
        )
        # Layers that start at 0 would hide all others.
        way, moved = (
            jax.tree.map(lambda a: jnp.asarray(draw.standard_normal(a.shape)), variables)
            for _ in range(2)
        )
        at = jax.tree.map(lambda a, m: a + 0.1 * m, variables, moved)

        def loss(v):
            return method.objective(v, aux, item, rng.key(0, "fd"))[0]

        value_and_grad = jax.jit(jax.value_and_grad(loss))
        _, grads = value_and_grad(at)
        ends = [
            value_and_grad(jax.tree.map(lambda a, w, s=s: a + s * 1e-6 * w, at, way))[0]
            for s in (1.0, -1.0)
        ]
        pairs = zip(*map(jax.tree.leaves, (grads, way)), strict=True)
        exact = sum(float(np.vdot(g, w)) for g, w in pairs)
        np.testing.assert_allclose(exact, (ends[0] - ends[1]) / 2e-6, rtol=1e-6)
        assert not any(np.any(g) for g in jax.tree.leaves([grads.get("ema"), grads.get("scale")]))


def test_one_device_equals_several(made):
    method = made[0]
    carry, batch = loop.start(method, 0), batch_of(made)
    one, two = (
        loop.make_step(method, 0, jax.devices()[:count])[0](carry, batch) for count in (1, 2)
    )
    jax.tree.map(agree, one, two)


@pytest.mark.slow
def test_a_resumed_phase_is_bit_equal_and_its_loss_falls(made, tmp_path):
    method, problem, keys, _ = made

    def steps(place, stop=-1):
        place.mkdir(exist_ok=True)
        session = Session(place, progress=False)

        def observe(at, state):
            if at == stop:
                signal.raise_signal(signal.SIGINT)

        with session.signals():
            return loop.run(method, problem, 0, session, jax.devices()[:1], "own", observe,
                            steps=60)  # fmt: skip

    whole = steps(tmp_path / "whole")
    with pytest.raises(Interrupted):
        steps(tmp_path / "parts", stop=31)
    jax.tree.map(np.testing.assert_array_equal, whole, steps(tmp_path / "parts"))
    losses = [row["loss"] for row in read(tmp_path / "whole/metrics.jsonl")]
    assert np.mean(losses[-15:]) < 0.95 * np.mean(losses[:15])
    images = method.samples(whole, jax.random.key(0), jnp.asarray([0, 1]))
    assert images.shape == (2, *problem.data.shape) and np.isfinite(images).all()


@pytest.mark.slow
def test_the_run_ends_in_a_generator_that_loads_and_is_evaluated(made, tmp_path):
    _, problem, keys, phase = made
    result = runs.run(keys, tmp_path)
    assert result["accuracy"]["MLP"]["n"] == 1 and result["baselines"]["random"]["n"] == 1
    product = jdd.load(tmp_path / "distilled.npz")
    assert (product.kind, product.per_class, product.size) == ("generator", 2, 6)
    images = np.asarray(product.images(rng.key(0, "x")))
    assert images.shape == (6, *problem.data.shape)
    pixels = product.transform.inverse(images)
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5
    again = runs.context(keys, tmp_path)
    assert all(stage.done(again) for stage in pipeline.stages(again.config)[:2])
    cost = runs.run(keys, tmp_path / "none", "estimate")
    assert cost[phase.name]["seconds"] > 0 and not (tmp_path / "none").exists()


def test_the_average_of_weights_and_the_scale_of_latents(made):
    method, name = made[0], made[3].name
    state = method.init(0)
    if name == "vae":
        aux = {"mean": jnp.asarray(0.2), "square": jnp.asarray(1.0), "weight": jnp.asarray(0.4)}
        found = method.advance(State(state.variables, aux), jax.random.key(0)).variables["scale"]
        np.testing.assert_allclose(found, 1 / np.sqrt(1.0 / 0.4 - (0.2 / 0.4) ** 2), rtol=1e-6)
        return
    params, ema = ({"a": jnp.asarray(v)} for v in (3.0, 1.0))
    for done, decay in ((0, 2 / 11), (10**6, 0.999)):
        moved = method.advance(
            State({"params": params, "ema": ema}, {"done": jnp.asarray(done)}), jax.random.key(0)
        )
        np.testing.assert_allclose(moved.variables["ema"]["a"], decay + (1 - decay) * 3, rtol=1e-6)
        assert moved.aux["done"] == done + 1 and moved.variables["params"] is params


@pytest.mark.parametrize("drop", [0.0, 0.5, 1.0])
def test_labels_are_dropped_and_times_drawn(drop):
    """The loss of a predictor, by hand from the same draws."""
    images = np.random.default_rng(0).standard_normal((8, 4, 4, 1)).astype(np.float32)
    own = SimpleNamespace(
        space="pixels", batch=8, parts=1, lr=1e-3, timesteps=20, schedule="cosine", drop=drop,
        ema=0.9, width=8, levels=1, attention=False,
    )  # fmt: skip
    config = SimpleNamespace(diffusion=own, sampling=SimpleNamespace(steps=2, guidance=1.0))
    train = SimpleNamespace(images=images, labels=np.arange(8, dtype=np.int32) % 3)
    problem = Problem(SimpleNamespace(train=train, shape=(4, 4, 1), classes=3), {}, None, config)
    method = diffusion_method.phase(config, problem)
    state, key = method.init(0), rng.key(3, "x")
    leaves, tree = jax.tree.flatten(state.variables["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = tree.unflatten(
        [a + 0.1 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    )
    item = {"real": {"images": jnp.asarray(images), "labels": jnp.asarray(train.labels)}}
    found, _ = method.objective(state.variables | {"params": params}, state.aux, item, key)
    _, of_time, of_noise, of_drop = jax.random.split(key, 4)
    t = jax.random.randint(of_time, (8,), 0, 20)
    noise = jax.random.normal(of_noise, images.shape)
    dropped = jax.random.uniform(of_drop, (8,)) < drop
    kept = diffusion.schedule_of("cosine", 20).alpha_bar[t][:, None, None, None]
    z = jnp.sqrt(kept) * images + jnp.sqrt(1 - kept) * noise
    labels = jnp.where(dropped, 3, item["real"]["labels"])
    eps = unet((4, 4, 1), 3, 8, 1, False, 20).apply(params, z, t, labels)
    np.testing.assert_allclose(found, np.mean((np.asarray(eps) - noise) ** 2), rtol=1e-4)


def test_the_gaussians_of_classes_are_those_of_their_posteriors():
    net = autoencoder((4, 4, 1), 2, 2, 2)
    params = net.init(jax.random.key(0))
    draw = np.random.default_rng(0)
    images, labels = draw.standard_normal((9, 4, 4, 1)).astype(np.float32), np.arange(9) % 2
    mean, factors = vae_method.fit(net, params, images, labels, 2)
    means, log_variances = (
        np.asarray(a, np.float64).reshape(9, 2) for a in jax.jit(net.encode)(params, images)
    )
    for c in (0, 1):
        own = means[labels == c]
        np.testing.assert_allclose(mean[c], own.mean(0), atol=1e-5)
        spread = np.cov(own.T, bias=True) + np.diag(np.exp(log_variances[labels == c]).mean(0))
        np.testing.assert_allclose(factors[c].T @ factors[c], spread, atol=1e-5)


@pytest.mark.parametrize(
    "method, keys, words",
    [
        ("vae", {"vae.batch": 64, "vae.parts": 3}, "config.vae.parts: 3, and vae.batch=64"),
        ("vae", {"vae.levels": 4}, "config.vae.levels: 4, of images of 8 a side; 3 or fewer"),
        ("diffusion", {"diffusion.levels": 2}, "2, of latents of 1 a side; 1 or fewer"),
        ("vae", {"steps": 5}, "a prior is trained for vae.steps"),
        ("vae", {"data.zca": "kornia"}, "pixels are clipped"),
        ("diffusion", {"scores": True}, "scores are of fixed sets"),
        ("diffusion", {"sampling.eta": 0.5}, "config.sampling.eta: 0.5"),
        ("diffusion", {"sampling.strength": 0.5}, "a generator starts from noise"),
        ("diffusion", {"sampling.steps": 21}, "config.sampling.steps: 21; 2 to 20"),
        ("diffusion", {"sampling.steps": 1}, "config.sampling.steps: 1; 2 to 20"),
        ("diffusion", {"diffusion.drop": 0.0}, "no class was never learned; 1, or another"),
        ("diffusion", {"diffusion.drop": 1.0}, "a class was never learned; 0, or another"),
        ("vae", {"quality.every": 1, "quality.curve": 1}, "config.quality.curve: 1"),
        ("vae", {"quality.every": 1, "quality.net": "Foo"}, "quality.net"),
        ("diffusion", {"diffusion.space": "pixel"}, "did you mean pixels"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_write(data, method, keys, words, tmp_path):
    own = data | (TINY if method == "vae" else DIFFUSED) | {"method": method} | keys
    with pytest.raises(BadInput, match=words):
        runs.run(own, tmp_path / "w")
    assert not (tmp_path / "w").exists()
