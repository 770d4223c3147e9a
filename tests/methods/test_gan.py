"""The shared suite's checks for GAN and DiM, whose products are generators, and turns of Adam."""

from __future__ import annotations

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdd
from jdd import config as configs
from jdd import methods, rng
from jdd.errors import BadInput, Interrupted
from jdd.methods.adversaries import alternating
from jdd.run import loop
from jdd.run.metrics import read
from jdd.run.session import Session
from jdd.stages import phases
from tests import runs

TINY = {
    "ipc": 2, "gan.width": 3, "gan.latent": 5, "gan.batch": 6, "gan.lr": 2e-3, "net.name": "MLP",
    "nets": "MLP", "eval.epochs": 2, "eval.n": 1, "eval.curve": 0, "baselines.random": 1,
    "baselines.full": False, "checkpoint_every": 2, "log_every": 1, "data.dsa": "crop",
}  # fmt: skip
KEYS = {
    "gan": {**TINY, "steps": 4, "gan.parts": 3},
    "dim": {
        **TINY, "steps": 4, "gan_steps": 3, "match.nets": "MLP1:2,ConvNetBN:2", "match.lr": 2e-3,
        "match.net_steps": 2, "match.batch": 6, "match.augment": "crop",
        "match.net_augment": "crop", "match.weight": 1.0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tiny):
    kept = ("data.name", "data.path", "devices", "progress")
    return {name: tiny[name] for name in kept}


# A step of DiM is one of the GAN with a loss more.
SUITE = [pytest.param(c, marks=[pytest.mark.slow] * (c == "gan")) for c in sorted(KEYS)]


@pytest.fixture(scope="module", params=SUITE)
def made(request, data, tmp_path_factory):
    """The method, its problem and its keys; the phases before it have run."""
    keys = data | KEYS[request.param] | {"method": request.param}
    place = tmp_path_factory.mktemp(request.param)
    context = runs.context(keys, place)
    for phase in configs.phases(context.config):
        runs.run(keys, place, phase.name)
    problem = phases.problem(context, 0)
    return methods.make(context.config, problem), problem, keys


def batch_of(made, step):
    method, problem, _ = made
    return problem.gather(method.sample(0, step))


@pytest.mark.slow
def test_a_step_is_pure_compiles_once_and_moves_one_net_alone(made):
    method = made[0]
    gradient, update = loop.make_step(method, 0, jax.devices()[:1])
    carry, alive = loop.start(method, 0), jnp.asarray(True)
    for step, (moves, waits) in enumerate([("generator", "critic"), ("critic", "generator")] * 2):
        batch = batch_of(made, step)
        before = jax.tree.map(np.array, carry)
        new, metrics = update(carry, gradient(carry, batch), alive)
        again, _ = update(carry, gradient(carry, batch), alive)
        jax.tree.map(np.testing.assert_array_equal, new, again)
        jax.tree.map(np.testing.assert_array_equal, before, carry)
        held = [one.state.aux.get("net", jnp.zeros(1)) for one in (carry, new)]
        assert (held[0] != held[1]).any() == ("net" in carry.state.aux and moves == "generator")
        for tree in (lambda c: c.state.variables, lambda c: c.optimizer.states):
            jax.tree.map(np.testing.assert_array_equal, tree(before)[waits], tree(new)[waits])
            changed = jax.tree.map(lambda a, b: (a != b).any(), tree(before)[moves],
                                   tree(new)[moves])  # fmt: skip
            assert any(jax.tree.leaves(changed))
        assert metrics[f"grad_{waits}"] == 0 < metrics[f"grad_{moves}"] and metrics["ok"]
        match = metrics.get("match", 0.0) if moves == "generator" else 0.0  # of weight 1
        loss = float(metrics[f"loss_{moves}"] + match)
        assert loss == pytest.approx(float(metrics["loss"]), rel=1e-5)
        carry = new
    assert update._cache_size() == 1 and gradient.programs == 1


def float64(tree):
    return jax.tree.map(
        lambda x: jnp.asarray(np.asarray(x), jnp.float64)
        if np.issubdtype(np.asarray(x).dtype, np.floating) else jnp.asarray(x), tree
    )  # fmt: skip


@pytest.mark.slow
def test_gradients_of_both_halves_agree_with_finite_differences(made):
    method, state = made[0], made[0].init(0)
    items = [jax.tree.map(lambda x: np.asarray(x[0]), batch_of(made, turn)) for turn in (0, 1)]
    with jax.enable_x64(True):
        variables, aux = float64((state.variables, state.aux | method.constants))
        key = rng.key(0, "fd")
        found = jax.jit(jax.value_and_grad(lambda v, i: method.objective(v, aux, i, key)[0]))
        draw = np.random.default_rng(0)
        h = 1e-7  # ReLU has kinks: a small step keeps both ends on one piece
        for name, item in zip(("generator", "critic"), map(float64, items), strict=True):
            own = variables[name]
            d = jax.tree.map(lambda x: jnp.asarray(draw.standard_normal(x.shape)), own)
            moved = [jax.tree.map(lambda x, y, s=s: x + s * h * y, own, d) for s in (1.0, -1.0)]
            ends = [found(variables | {name: one}, item)[0] for one in moved]
            slopes = found(variables, item)[1][name]
            exact = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slopes, d)))
            np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


def agree(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=max(1e-6, 3e-5 * float(np.abs(a).max())))


def test_one_device_equals_several(made):
    method = made[0]
    carry, batches = loop.start(method, 0), [batch_of(made, turn) for turn in (0, 1)]
    if made[2]["method"] == "dim":  # one item a step, of one net: other devices have no part in it
        assert all(len(batch["turn"]) == 1 for batch in batches)
        return
    one, two = (loop.make_step(method, 0, jax.devices()[:n])[0] for n in (1, 2))
    for batch in batches:
        jax.tree.map(agree, one(carry, batch), two(carry, batch))


def test_a_resumed_run_is_bit_equal(made, tmp_path):
    method, problem, keys = made
    programs = loop.make_step(method, 0, jax.devices()[:1])

    def steps(place, count, stop=-1):
        config = runs.context(keys | {"steps": count}, place).config
        place.mkdir(exist_ok=True)
        session = Session(place, progress=False)

        def observe(at, state):
            if at == stop:
                signal.raise_signal(signal.SIGINT)

        with session.signals():
            given = problem._replace(config=config)
            return loop.run(
                method, given, 0, session, jax.devices()[:1], observe=observe, programs=programs
            )

    whole = steps(tmp_path / "whole", 4)
    with pytest.raises(Interrupted):
        steps(tmp_path / "parts", 4, stop=1)  # between the halves of a batch
    steps(tmp_path / "parts", 3)
    jax.tree.map(np.testing.assert_array_equal, whole, steps(tmp_path / "parts", 4))


@pytest.fixture(scope="module")
def gan_run(data, tmp_path_factory):
    """A finished run of the GAN: its place and its result."""
    place = tmp_path_factory.mktemp("run")
    return place, runs.run(data | KEYS["gan"] | {"method": "gan", "steps": 60}, place)


@pytest.mark.slow
def test_the_generator_is_saved_loaded_and_evaluated(gan_run, data):
    place, result = gan_run
    made = jdd.load(place / "distilled.npz")
    assert (made.kind, made.per_class, made.size) == ("generator", 2, 6)
    assert made.recipe["augment"]["name"] == "diffaug" and made.recipe["train"]["drop"] is None
    images = made.images(rng.key(0, "some"))
    pixels = made.transform.inverse(np.asarray(images))
    assert images.shape == (6, 8, 8, 3) and pixels.min() >= -1e-5 and pixels.max() <= 1 + 1e-5
    assert (images != made.images(rng.key(0, "other"))).any()
    assert result["accuracy"]["MLP"]["n"] == 1
    # Two baselines: two images of each class, and as many as the weights' bytes, here fewer.
    of_bytes = result["baselines"]["random_bytes"]
    assert made.stored_bytes // (4 * 192 * 3) < 2 and of_bytes["per_class"] == 1
    assert (of_bytes["n"], result["baselines"]["random"]["n"]) == (1, 1)
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "as many bytes (1 of each class)" in page and "as many bytes, 1 of" in result["summary"]
    rows = [row for row in read(place / "metrics.jsonl") if row["stage"] == "distill"]
    first, last = rows[1]["loss_critic"], np.mean([r["loss_critic"] for r in rows[-10:]])
    assert last < first
    net = made.architecture | {"classes": 4}
    with pytest.raises(BadInput, match="4 classes, 3 class names"):
        made._replace(architecture=net).save(place / "wrong.npz")


def test_optimisers_take_turns_bit_for_bit():
    def own():
        return optax.adam(0.1, b1=0.0, b2=0.9)

    turns = alternating({"a": own(), "b": own()})
    x = {"a": jnp.arange(3.0), "b": jnp.ones(2)}
    g = jax.tree.map(lambda v: v + 1, x)
    state, alone, alone_state = turns.init(x), x["a"], own().init(x["a"])
    for step in range(4):
        moves, state = turns.update(g, state, x)
        other = "ba"[step % 2]
        assert not moves[other].any()
        x = optax.apply_updates(x, moves)
        if step % 2 == 0:
            move, alone_state = own().update(g["a"], alone_state, alone)
            alone = alone + move
    np.testing.assert_array_equal(x["a"], alone)
    assert int(state.done) == 4 and int(state.states["a"][0].count) == 2


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"gan.latent": 3}, "config.gan.latent: latent 3, of which 3 are the class; 4 or more"),
        ({"gan.parts": 4}, "config.gan.parts: 4, of a batch of 6"),
        ({"gan.parts": 6}, "equal parts of two images or more"),
        ({"data.zca": "kornia"}, "config.data.zca"),
        ({"data.size": 12}, "a GAN of 12x12 images; .*config.data.size=32"),
        ({"scores": True}, "config.scores"),
        ({"eval.lr": 0}, "config.eval.lr"),
        ({"gan.widht": 3}, "did you mean config.gan.width"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_write(data, keys, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        runs.run(data | KEYS["gan"] | {"method": "gan"} | keys, tmp_path / "w")
    assert not (tmp_path / "w").exists()
