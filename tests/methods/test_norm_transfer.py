"""Batch-norm statistics beside trajectories: loss, gradient, targets, what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config, methods, rng
from jdd.errors import BadInput
from jdd.methods import norm_transfer
from tests import runs

OWN = {"net.name": "ConvNetBN", "nets": "ConvNetBN", "ipc": 2, "data.dsa": "none", "bn.weight": 0.5}


class Known:
    """Experts whose snapshots are fresh nets with statistics of their own."""

    trained, settings = True, {}

    def __init__(self, net):
        self.net = net

    def read(self, expert, epoch):
        variables = jax.device_get(self.net.init(rng.key(expert, "test", epoch)))
        draw = np.random.default_rng([expert, epoch])
        stats = jax.tree.map(
            lambda a: draw.uniform(0.5, 1.5, a.shape).astype(np.float32), variables["batch_stats"]
        )
        return {**variables, "batch_stats": stats}


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("bn")

    def make(**changes):
        context = runs.context({**tiny, **OWN, **changes}, place)
        problem = context.problem._replace(experts=Known(context.net))
        return methods.make(context.config, problem), problem

    return make


def statistics(problem, variables, images, hard, first, wanted):
    """The term written out: the inputs of both batch norms, of each class alone or of all."""
    net, total = problem.nets["student"], 0.0
    taps = net.apply(variables, images, train=True, taps=True).taps
    groups = [np.arange(len(images))]
    if wanted["norm1"]["mean"].shape[0] > 1:
        groups = [np.flatnonzero(hard == c) for c in range(3)]
    for g, rows in enumerate(groups):
        for name, weight in (("norm1", first), ("norm2", 1.0)):
            x = np.asarray(taps[name], np.float64)[rows]
            for key, value in (("mean", x.mean((0, 1, 2))), ("var", x.var((0, 1, 2)))):
                total += weight * np.linalg.norm(value - wanted[name][key][g]) / len(groups)
    return total


@pytest.mark.parametrize(
    "param, targets",
    [(0.0, "class"), pytest.param(1.0, "global", marks=pytest.mark.slow)],
)
def test_the_loss_is_the_formula_and_its_gradient_that_of_differences(made, param, targets):
    keys = {"bn.param": param, "bn.first": 10.0, "bn.targets": targets, "bn.net": "start"}
    method, problem = made(**keys)
    plain, _ = made(**{"bn.weight": 0.0})
    item = jax.tree.map(lambda x: x[0], problem.gather(method.sample(0, 0)))
    state, key, hard = method.init(0), rng.key(0, "fd"), np.repeat(np.arange(3), 2)
    with jax.enable_x64(True):

        def doubled(tree):
            return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)

        variables, item = doubled(state.variables), doubled(item)
        both = jax.jit(jax.value_and_grad(lambda v: method.objective(v, {}, item, key)[0]))
        loss, grads = both(variables)
        term = statistics(
            problem, item["start"], variables["images"], hard, 10.0, doubled(item["bn"])
        )
        trajectory = 0.0
        if param:
            trajectory = jax.jit(lambda v: plain.objective(v, {}, item, key)[0])(variables)
        np.testing.assert_allclose(loss, param * trajectory + 0.5 * term, rtol=1e-9)
        draw, h = np.random.default_rng(0), 1e-6
        d = jnp.asarray(draw.standard_normal(variables["images"].shape))
        ends = [both(variables | {"images": variables["images"] + s * h * d})[0] for s in (1, -1)]
        exact = jnp.vdot(grads["images"], d)
        np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)
        assert (float(grads["lr"]) != 0) == bool(param)


def test_a_set_with_the_experts_own_statistics_loses_nothing(made):
    """One expert whose statistics are those of the set: the term is 0 there, and only there."""
    method, problem = made()
    net, images = problem.nets["student"], method.init(0).variables["images"]
    own = Known(net).read(0, 1)
    taps = net.apply(own, images, train=True, taps=True).taps
    wanted = {
        name: {"mean": taps[name].mean((0, 1, 2))[None], "var": taps[name].var((0, 1, 2))[None]}
        for name in ("norm1", "norm2")
    }
    term = norm_transfer.statistics_term(net, 1.0, np.ones((len(images), 1)))
    np.testing.assert_allclose(term(images, own, wanted), 0, atol=1e-4)
    assert term(images + 0.5, own, wanted) > 0.1


def test_the_term_is_added_to_whatever_the_trajectories_lose(made):
    method, problem = made(**{"bn.param": 2.0})

    def objective(variables, aux, item, key):
        return jnp.sum(variables["images"]) * 0 + 0.25, ({}, {"lr": 1.0})

    config, hard = problem.config, np.repeat(np.arange(3), 2)
    both = norm_transfer.added(method._replace(objective=objective), config, problem, hard)
    item = jax.tree.map(lambda x: x[0], problem.gather(both.sample(0, 0)))
    loss, (_, metrics) = both.objective(method.init(0).variables, {}, item, rng.key(0, "x"))
    np.testing.assert_allclose(loss, 2 * 0.25 + 0.5 * metrics["bn"], rtol=1e-6)
    assert metrics["trajectory"] == 0.25 and metrics["bn"] > 0.1


def test_targets_are_of_the_snapshot_that_the_source_names(made):
    def targets(**changes):
        method, problem = made(**changes)
        found = norm_transfer.Targets(problem.config, problem)
        return found, problem

    start, target = (1, 0), (1, 1)
    found, problem = targets()
    stored = problem.experts.read(*target)["batch_stats"]
    for key in ("mean", "var"):
        np.testing.assert_array_equal(
            found.at(start, target)["norm2"][key][0], stored["norm2"][key]
        )
    # Of an untrained snapshot, and of source=target: measured in real images.
    images, labels = problem.data.train.images, problem.data.train.labels
    for keys, snapshot in (
        ({"bn.net": "start"}, start),
        ({"bn.source": "target", "experts.batch": 13}, target),
        ({"bn.source": "target", "bn.targets": "class"}, target),
    ):
        found, problem = targets(**keys)
        net, variables = problem.nets["student"], problem.experts.read(*snapshot)
        x = np.asarray(net.apply(variables, images, taps=True).taps["norm1"], np.float64)
        of_class = "bn.targets" in keys
        groups = [labels == c for c in range(3)] if of_class else [labels >= 0]
        here = found.at(start, target)["norm1"]
        assert here["mean"].shape == (len(groups), 4) and here["mean"].dtype == np.float32
        for g, rows in enumerate(groups):
            np.testing.assert_allclose(here["mean"][g], x[rows].mean((0, 1, 2)), rtol=1e-4)
            np.testing.assert_allclose(here["var"][g], x[rows].var((0, 1, 2)), rtol=1e-4)
        assert found.at(start, target) is found.at(start, target)  # measured once


def test_the_best_expert_is_the_most_accurate_and_may_measure_the_set_too(made, monkeypatch):
    seen = []

    def accuracy(net, variables, split):
        seen.append(len(split.labels))
        return np.asarray([0.1 * len(seen)])

    monkeypatch.setattr(norm_transfer, "accuracy", accuracy)
    method, problem = made(**{"bn.source": "best", "bn.net": "best"})
    best = problem.experts.read(1, problem.config.experts.epochs)
    assert seen == [60, 60]  # training images, never those of the test
    jax.tree.map(np.testing.assert_array_equal, method.constants["bn_best"], best)
    found = method.sample(0, 0)["bn"]["norm1"]["var"]
    np.testing.assert_array_equal(found[0, 0], best["batch_stats"]["norm1"]["var"])


def test_keys_that_do_not_fit_are_refused_in_one_line(made):
    with pytest.raises(BadInput, match="config.bn.weight: 0.5, and ConvNet has no batch norm"):
        made(**{"net.name": "ConvNet", "nets": "ConvNet"})
    made(**{"net.name": "ConvNet", "nets": "ConvNet", "net.norm": "batch"})  # its own remedy
    for given, words in (
        ({"bn.first": 10}, "config.bn.first: 10 with bn.weight=0"),
        ({"bn.param": 0}, "config.bn.param: 0 with bn.weight=0"),
        ({"bn.weight": 1, "bn.net": "best"}, "config.bn.net: best with bn.source=checkpoint"),
    ):
        with pytest.raises(BadInput, match=words):
            config.resolve(config.load("mtt:digits", given).config)
    given = {"bn.weight": 1, "threshold": 1, "net.name": "ConvNetBN"}
    with pytest.raises(BadInput, match="config.threshold: 1 with bn.weight=1"):
        config.resolve(config.load("datm:digits", given).config)
    config.resolve(config.load("datm:digits", given | {"threshold": 0}).config)


def test_estimates_measure_nothing(made, monkeypatch):
    monkeypatch.setattr(norm_transfer, "measured", None)
    _, problem = made(**{"bn.source": "target"})
    untrained = SimpleNamespace(trained=False, settings={}, read=problem.experts.read)
    method = methods.make(problem.config, problem._replace(experts=untrained))
    assert method.sample(0, 0)["bn"]["norm1"]["mean"].shape == (1, 1, 4)


@pytest.mark.slow
def test_a_run_matches_statistics_and_resumes_to_the_same_bits(tiny, tmp_path):
    keys = {**tiny, **OWN, "steps": 4, "eval.curve": 0, "baselines.random": 0, "eval.epochs": 2}
    keys |= {"baselines.full": False, "experts.dir": str(tmp_path / "x"), "eval.n": 1}
    whole = runs.run(keys, tmp_path / "whole")
    runs.run({**keys, "steps": 2}, tmp_path / "parts")
    parts = runs.run(keys, tmp_path / "parts")
    assert whole["accuracy"]["ConvNetBN"]["values"] == parts["accuracy"]["ConvNetBN"]["values"]
    with (
        np.load(tmp_path / "whole/distilled.npz") as a,
        np.load(tmp_path / "parts/distilled.npz") as b,
    ):
        np.testing.assert_array_equal(a["images"], b["images"])
    assert '"bn"' in (tmp_path / "whole/metrics.jsonl").read_text()
