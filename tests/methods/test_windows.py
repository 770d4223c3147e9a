"""Window policies of RaT-BPTT: their windows, stages and state, and the gradient of a short one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config, methods, rng
from jdd.errors import BadInput
from jdd.meta import unroll
from jdd.methods import ratbptt, windows
from jdd.run import loop
from jdd.specs import ratbptt as ratbptt_spec
from jdd.training import optimisers
from tests import runs

KEYS = {
    "method": "ratbptt", "ipc": 2, "net.width": 2, "net.depth": 1, "unroll_steps": 6, "window": 3,
    "window_policy": "at", "window_radius": 1, "batch_real": 20, "lr_student": 0.1, "inits": 2,
    "per_class": 1, "classes_per_step": 2, "learn_labels": False, "eval.n": 1, "data.dsa": "none",
    "pix_init": "real", "net.name": "MLP1",
}  # fmt: skip


@pytest.fixture(scope="module")
def work_of(toy, tmp_path_factory):
    place = tmp_path_factory.mktemp("windows")
    base = {"data.name": "toy", "data.path": str(toy), **KEYS}
    return lambda **changes: runs.context({**base, **changes}, place)


@pytest.mark.parametrize(
    "how", [pytest.param(w, marks=[pytest.mark.slow] * (w != "mixed")) for w in unroll.WAYS]
)
def test_a_window_of_some_steps_is_a_window_of_that_many(how):
    def inner(theta, xs, j):
        return 0.5 * (theta * xs[j] - 1) ** 2

    def ends(xs, window, start, length):
        rates = {"lr": jnp.full((4,), 0.1)}
        return unroll.unroll(
            inner, optimisers.make("adam"), jnp.asarray(1.0), rates, xs, jnp.arange(4), how,
            None, "truncated", window, start, length,
        )  # fmt: skip

    with jax.enable_x64(True):
        xs = jnp.asarray([1.0, 2.0, 0.5, 1.5])
        some = jax.jit(jax.value_and_grad(lambda xs, s, w: ends(xs, 3, s, w)))
        for start, length in ((0, 1), (1, 2), (3, 1), (1, 3)):  # 3 + 3 is past the end
            exact = jax.value_and_grad(lambda xs: ends(xs, length, start, None))(xs)  # noqa: B023
            found = some(xs, jnp.asarray(start), jnp.asarray(length))
            np.testing.assert_allclose(found[0], exact[0], rtol=1e-12)
            np.testing.assert_allclose(found[1], exact[1], rtol=1e-9, atol=1e-12)


def written_out(u, uniform, norms, stage, window, radius):
    """The rule of each stage, in words of its own."""
    steps = len(norms)
    changes = [0.0, *(abs(b - a) for a, b in zip(norms, norms[1:], strict=False))]
    if stage == 1:
        rank = sorted(changes).index(changes[u])
        size = int(window - radius + 2 * radius * (rank / steps))  # cut, not rounded
        return min(u, steps - size), size
    if stage == 2:
        return uniform, window + radius
    return max(0, steps - u - (window - radius)), window - radius


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_windows_are_chosen_by_the_rule_of_their_stage(stage):
    norms, window, radius = np.array([0.5, 2.0, 1.9, 1.0, 3.0, 0.2, 0.1, 1.1], np.float32), 4, 2
    choose = jax.jit(jax.vmap(windows.choose, (0, None, None, None, None)), static_argnums=(3, 4))
    keys = jax.random.split(jax.random.key(0), 400)
    start, size = map(np.asarray, choose(keys, norms, jnp.asarray(stage), window, radius))
    assert start.min() >= 0 and (start + size).max() <= 8
    seen = set(zip(start.tolist(), size.tolist(), strict=True))
    wanted = [written_out(u, u, norms.tolist(), stage, window, radius) for u in range(8)]
    assert seen <= set(wanted) and len(seen) > 2
    if stage == 2:
        assert {s for s, _ in seen} == {0, 1, 2} and {w for _, w in seen} == {6}
        return
    # A step's share is its softmax: of windows that several steps have, the sum.
    share = np.exp(norms) / np.exp(norms).sum()
    for one in set(wanted):
        chance = sum(share[u] for u in range(8) if wanted[u] == one)
        count = np.sum((start == one[0]) & (size == one[1])) / 400
        np.testing.assert_allclose(count, chance, atol=0.08)


def test_stages_end_where_accuracy_hardly_rises():
    zero = jnp.zeros((), jnp.int32)
    state = {"stage": zero + 1, "stalled": zero, "last": -jnp.ones(())}
    judged = jax.jit(windows.judged, static_argnums=1)
    found = []
    # T is 20: 3 passes in a row of a rise below 1.5 points, then 2.5 of one below 1.
    for accuracy in (0.2, 0.21, 0.22, 0.24, 0.25, 0.26, 0.27, 0.282, 0.29, 0.295, 0.30, 0.31, 0.9):
        given = state | {"total": jnp.asarray(3 * accuracy), "count": zero + 3}
        state = judged(given, 20)
        found.append((int(state["stage"]), int(state["stalled"])))
        assert float(state["total"]) == 0 and int(state["count"]) == 0
    assert found == [
        (1, 0), (1, 1), (1, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 0), (2, 1), (2, 2), (3, 0),
        (3, 0), (3, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("steps, passes", [(200, 30), (100, 15), (300, 45)])
def test_a_stage_ends_at_the_very_pass(steps, passes):
    zero = jnp.zeros((), jnp.int32)
    state = {"stage": zero + 1, "last": jnp.ones(()), "total": jnp.ones(()), "count": zero + 1}
    for stalled, stage in ((passes - 2, 1), (passes - 1, 2)):
        found = windows.judged(state | {"stalled": zero + stalled}, steps)
        assert int(found["stage"]) == stage


def test_norms_are_those_of_a_plain_training(work_of):
    context = work_of(inner="sgd")
    problem, net = context.problem, context.net
    hard = np.repeat(np.arange(3), 2)
    variables = methods.make(context.config, problem).init(0).variables
    norms = ratbptt._gradient_norms(problem, hard, 3, 2)  # every step has the whole set
    key = rng.key(0, "norms")
    found = jax.jit(norms)(key, variables)
    params, wanted = net.init(jax.random.split(key, 3)[0])["params"], []

    @jax.jit
    def gradient(params):
        def entropy(params):
            logits = net.apply({"params": params}, variables["images"], train=True).logits
            return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(6), hard])

        return jax.grad(entropy)(params)

    for _ in range(6):
        g = gradient(params)
        wanted.append(np.sqrt(sum(float(jnp.sum(x * x)) for x in jax.tree.leaves(g))))
        params = jax.tree.map(lambda p, d: p - 0.1 * (d + 5e-4 * p), params, g)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_windows_are_renewed_once_a_pass_and_are_in_the_state(work_of):
    context = work_of()
    method = methods.make(context.config, context.problem)
    again = methods.make(context.config, context.problem).init(0)
    state = method.init(0)
    jax.tree.map(np.testing.assert_array_equal, state.aux, again.aux)
    advance = jax.jit(method.advance)
    sizes = []
    for step in range(9):  # 60 real images, 2 x 20 a step: 2 steps end a pass, then 1
        given = state._replace(aux=state.aux | {"accuracy": jnp.asarray(0.1)})
        state = advance(given, rng.key(0, "advance", step))
        window = jax.tree.map(np.asarray, state.aux["window"])
        sizes.append(int(window["count"]))
        assert set(window["size"]) <= {2, 3, 4}
        assert np.all(window["start"] >= 0) and np.all(window["start"] + window["size"] <= 6)
    assert sizes == [1, 0, 0, 1, 0, 0, 1, 0, 0]
    assert "start" not in method.sample(0, 0)


@pytest.mark.slow
def test_the_objective_differentiates_the_chosen_window(work_of):
    """At equal windows the gradient is that of window_policy=uniform."""
    adaptive = work_of()
    uniform = work_of(window_policy="uniform", window_radius=10)
    one, other = (methods.make(c.config, c.problem) for c in (adaptive, uniform))
    state, key = one.init(0), rng.key(0, "same")
    item = adaptive.problem.gather(one.sample(0, 0))
    item = jax.tree.map(lambda x: jnp.asarray(x[1]), item)
    window = {"start": jnp.asarray([0, 2]), "size": jnp.asarray([4, 3]), "stage": jnp.asarray(2)}
    plain = {**item, "start": np.int32(2)}
    found = jax.value_and_grad(lambda v: one.objective(v, {"window": window}, item, key)[0])
    wanted = jax.value_and_grad(lambda v: other.objective(v, {}, plain, key)[0])
    (a, ga), (b, gb) = found(state.variables), wanted(state.variables)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(ga["images"], gb["images"], rtol=1e-4, atol=1e-7)


def test_the_whole_training_is_one_window(work_of):
    context = work_of(window_policy="whole", window_radius=10)
    method = methods.make(context.config, context.problem)
    assert windows.longest(context.config) == 6
    assert {int(s) for step in range(9) for s in method.sample(0, step)["start"]} == {0}
    assert method.init(0).aux == {}


@pytest.mark.slow
def test_a_carry_of_the_policy_is_stepped_and_compiles_once(work_of):
    context = work_of()
    method = methods.make(context.config, context.problem)
    carry, alive = loop.start(method, 0), jnp.asarray(True)
    gradient, update = loop.make_step(method, 0, jax.devices()[:1])
    for step in range(3):
        batch = context.problem.gather(method.sample(0, step))
        carry, told = update(carry, gradient(carry, batch), alive)
    assert bool(told["ok"]) and int(carry.state.aux["window"]["steps"]) == 3
    assert {"window_stage", "window_start", "window_size"} <= set(told)
    assert update._cache_size() == 1 and gradient.programs == 1


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"window_radius": 3}, "config.window_radius: 3: sizes of 0 to 6 of 6 steps; .*0 to 2"),
        ({"window": 6}, "config.window_radius: 1: .*0 to 0"),
        ({"window_policy": "whole"}, "config.window_radius: 1 with window_policy=whole"),
    ],
)
def test_radii_that_do_not_fit_are_refused(work_of, changes, words):
    with pytest.raises(BadInput, match=words):
        work_of(**changes)


@pytest.mark.parametrize("policy, key", [("whole", "window"), ("at", "window_draw")])
def test_keys_that_a_policy_leaves_idle_are_refused(policy, key):
    values = {"window_policy": policy}
    assert key in ratbptt_spec.SPEC.idle(values) and not ratbptt_spec.SPEC.idle(
        {"window_policy": "uniform"}
    )


@pytest.mark.slow
def test_a_run_of_the_policy_resumes_to_the_same_bits(toy, tmp_path):
    keys = {"data.name": "toy", "data.path": str(toy), **KEYS, "steps": 7, "eval.epochs": 2}
    keys |= {"nets": "MLP1", "eval.curve": 0, "baselines.random": 0, "baselines.full": False}
    keys |= {"checkpoint_every": 2, "progress": False}
    whole = runs.run(keys, tmp_path / "whole")
    runs.run({**keys, "steps": 3}, tmp_path / "parts")
    assert runs.run(keys, tmp_path / "parts")["accuracy"] == whole["accuracy"]
    both = [np.load(tmp_path / name / "distilled.npz")["images"] for name in ("whole", "parts")]
    np.testing.assert_array_equal(*both)
    assert config.load("ratbptt:digits").config.window_policy == "uniform"
