"""DD: the steps, their rates, what they start from, and the evaluation that repeats them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config as configs
from jdd import methods, rng
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.evaluation.accuracy import accuracy
from jdd.methods import dd
from jdd.product.distilled_set import DistilledSet
from jdd.run import loop
from jdd.run.session import Session
from jdd.stages.initial_variables import initial_variables
from tests import runs

OWN = {
    "method": "dd", "ipc": 4, "distill_steps": 2, "distill_epochs": 2, "lr_img": 0.05,
    "lr_lr": 0.05, "batch_real": 16, "lr_student": 0.1, "net.init": "xavier",
}  # fmt: skip


@pytest.fixture(scope="module")
def keys(tiny):
    schema = configs.schema("dd")
    return {name: value for name, value in tiny.items() if name in schema} | OWN


def made(keys, place, **more):
    context = runs.context({**keys, **more}, place)
    return methods.make(context.config, context.problem), context


def plain(net, variables, images, labels, rates, batches):
    """Train as the paper writes it: step t takes batch t mod S at its own rate."""
    size = len(images) // batches

    def loss(params, x, y):
        logits = net.apply({"params": params}, x, train=True).logits
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))

    params = variables["params"]
    for t, rate in enumerate(rates):
        s = t % batches
        rows = slice(s * size, (s + 1) * size)
        g = jax.grad(loss)(params, images[rows], jnp.asarray(labels[rows]))
        params = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params, g)
    return params, loss


def test_softplus_of_the_raw_rate_is_the_rate():
    for rate in (1e-3, 0.02, 3.0):
        np.testing.assert_allclose(jax.nn.softplus(dd.raw_rate(rate)), rate, rtol=1e-5)


def test_layout_is_batch_by_batch_then_class_by_class():
    assert dd.labels_of(3, 2, 2).tolist() == [0, 0, 1, 1, 2, 2] * 2


def test_objective_and_evaluation_are_the_plain_loop(keys, tmp_path):
    method, context = made(keys, tmp_path, init="fixed")
    state = method.init(0)
    raw = state.variables["raw"] + jnp.asarray([0.0, 0.5, -0.5, 1.0])
    state = state._replace(variables=state.variables | {"raw": raw})
    net, rates = context.net, np.asarray(jax.nn.softplus(raw))
    theta = net.init(rng.key(0, dd.FIXED))
    images, labels = state.variables["images"], dd.labels_of(3, 2, 2)
    params, loss = plain(net, theta, images, labels, rates, 2)

    batch = context.problem.gather(method.sample(0, 0))
    item = jax.tree.map(lambda x: x[0], batch)
    value, _ = method.objective(state.variables, {}, item, rng.key(0, "any"))
    real = item["real"]
    expected = loss(params, real["images"], jnp.asarray(real["labels"]))
    np.testing.assert_allclose(value, expected, rtol=1e-5)

    # The recipe, read back from the file, repeats the same steps from the same start.
    method.distilled(state, 0).save(tmp_path / "set.npz")
    dset = DistilledSet.load(tmp_path / "set.npz")
    start = initial_variables(context, dset, net)
    test = context.data.test
    session = Session(tmp_path, progress=False)
    found = train_eval.test_nets(
        net, train_eval.plan(dset), dset.images[None], dset.labels[None],
        lambda net, variables, session: accuracy(net, variables, test), 0, "evaluate",
        session, context.devices, 0, start,
    )  # fmt: skip
    session.metrics.close()
    stacked = jax.tree.map(lambda x: x[None], {"params": params})
    np.testing.assert_allclose(found, accuracy(net, stacked, test), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["truncated"])
def test_truncated_is_the_exact_gradient_of_the_last_steps(keys, tmp_path, estimator):
    whole, context = made(keys, tmp_path, init="fixed")
    last, _ = made(keys, tmp_path, init="fixed", estimator=estimator, window=4)
    item = jax.tree.map(lambda x: x[0], context.problem.gather(whole.sample(0, 0)))
    variables, key = whole.init(0).variables, rng.key(0, "any")
    exact, same = (
        jax.grad(lambda v, m=m: m.objective(v, {}, item, key)[0])(variables) for m in (whole, last)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), exact, same)


def test_rates_halve_every_so_many_epochs_of_real_images(keys, tmp_path):
    _, context = made(keys, tmp_path, decay_epochs=2)
    optimizer = dd.adam(context.config, 3)
    variables = {"images": jnp.zeros(2), "raw": jnp.zeros(1)}
    state, moved = optimizer.init(variables), []
    for _ in range(13):
        step, state = optimizer.update(jax.tree.map(jnp.ones_like, variables), state, variables)
        moved.append(float(step["images"][0]))
    np.testing.assert_allclose(moved, np.repeat([-0.05, -0.025, -0.0125], [6, 6, 1]), rtol=1e-5)


def test_starts_are_shared_fixed_or_new(keys, tmp_path):
    fixed, context = made(keys, tmp_path, init="fixed", inits=2)
    drawn, _ = made(keys, tmp_path, inits=2)
    variables = fixed.init(0).variables
    for method, same in ((fixed, True), (drawn, False)):
        item = jax.tree.map(lambda x: x[0], context.problem.gather(method.sample(0, 0)))
        if not same:
            item.pop("seed", None)
        one, two = (method.objective(variables, {}, item, rng.key(0, p))[0] for p in "ab")
        assert (float(one) == float(two)) is same
    assert loop.start(fixed, 0).state.aux == {}


@pytest.mark.slow
def test_fixed_start_is_tested_on_itself_alone(keys, tmp_path):
    more = {"init": "fixed", "runs": 2, "eval.curve": 0, "baselines.random": 0, "steps": 2}
    result = runs.run({**keys, **more, "baselines.full": False}, tmp_path)
    assert result["accuracy"]["ConvNet"]["n"] == 2  # one start a synthesis run
    seeds = [
        DistilledSet.load(tmp_path / f"distilled{s}.npz").recipe["train"]["init"]["seed"]
        for s in ("", "-s1")
    ]
    assert seeds == [0, 1]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"distill_steps": 3}, "config.distill_steps"),
        ({"window": 2}, "config.window"),
        ({"estimator": "truncated", "window": 5}, "config.window"),
        ({"net.norm": "batch"}, "config.net.norm"),
    ],
)
def test_what_does_not_go_together_is_refused(keys, tmp_path, change, where):
    with pytest.raises(BadInput) as caught:
        runs.context({**keys, **change}, tmp_path)
    assert caught.value.where == where
