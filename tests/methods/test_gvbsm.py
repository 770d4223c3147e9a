"""G-VBSM against plain re-implementations: its targets, its turns, its averages, its value."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config as config_lib
from jdd import methods, nets, rng, specs
from jdd.augment import crops, views
from jdd.errors import BadInput
from jdd.matching import statistics
from jdd.methods import cda, gvbsm, recovery, sre2l
from jdd.nets.order import order
from jdd.pretrained import feature_statistics
from jdd.run import loop
from tests import runs
from tests.layer_statistics import plain

KEYS = {
    "method": "gvbsm", "squeeze.nets": "ConvNetBN,ConvNet", "squeeze.width": 4, "squeeze.batch": 16,
    "squeeze.epochs": 1, "net.name": "ConvNetBN", "nets": "ConvNetBN", "crop": "padded",
    "flip": 0.5, "roll": 2, "patch": 2, "ipc": 4, "image_batch": 6, "class_images": 2,
    "batches_at_once": 3, "lr_img": 0.1, "steps": 8, "eval.curve": 0,
}  # fmt: skip


def keys_of(tiny, **more):
    known = config_lib.schema("gvbsm")
    return {k: v for k, v in tiny.items() if k in known} | KEYS | more


@pytest.fixture
def trained(tiny, tmp_path):
    """Return a maker of runs whose teachers lie on disk; how good they are says nothing here."""

    def make(**more):
        context = runs.context(keys_of(tiny, **more), tmp_path / "run")
        for teacher in context.teachers:
            if not teacher.trained:
                variables = teacher.net.init(rng.key(3, teacher.net.name))
                stacked = jax.tree.map(lambda x: np.asarray(x)[None], variables)
                teacher.store.create()
                teacher.store.write(0, teacher.epochs, stacked)
        return context

    return make


@pytest.fixture
def build(trained):
    """Return a maker of (method, problem)."""

    def make(**more):
        context = trained(**more)
        return methods.make(context.config, context.problem), context.problem

    return make


# --- targets ------------------------------------------------------------------------------------


def test_targets_are_means_over_batches_of_augmented_images(trained):
    context = trained(**{"squeeze.augment": "pad_flip"})
    teacher, data = context.teachers[0], context.data
    found = feature_statistics.targets(teacher, data, 2)
    convs, norms = order(teacher.net, ["conv"]), order(teacher.net, ["batch"])
    assert set(found) == {*convs, *norms} and len(norms) == 3
    variables, images = teacher.variables(), data.train.images
    rows = rng.host(0, "statistics/order").permutation(60)
    wanted = {}

    @jax.jit
    def tapped(batch, key):
        return teacher.net.apply(variables, crops.apply(0, key, batch, "pad_flip"), taps="all").taps

    for i, lo in enumerate((0, 16, 32, 48)):  # the last of 12
        batch = images[rows[lo : lo + 16]]
        taps = tapped(batch, rng.key(0, "statistics/view", i))
        for name in convs:
            for key, value in plain(taps[name], 2).items():
                total = wanted.setdefault((name, key), np.zeros_like(value))
                total += len(batch) / 60 * value
    for (name, key), value in wanted.items():
        np.testing.assert_allclose(found[name][key], value, rtol=1e-4, atol=1e-5)
    for name in norms:
        np.testing.assert_array_equal(found[name]["mean"], variables["batch_stats"][name]["mean"])
        np.testing.assert_array_equal(found[name]["var"], variables["batch_stats"][name]["var"])


@pytest.mark.slow
def test_targets_are_kept_beside_the_teacher_until_it_is_another(trained, monkeypatch):
    context = trained()
    teacher, calls = context.teachers[1], []
    assert order(teacher.net, ["batch"]) == ()  # instance norm: convolutions alone
    measure = feature_statistics._measured
    monkeypatch.setattr(feature_statistics, "_measured", lambda *a: calls.append(1) or measure(*a))
    first = feature_statistics.targets(teacher, context.data, 2)
    again = feature_statistics.targets(teacher, context.data, 2)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert len(calls) == 1 and {x.dtype for x in jax.tree.leaves(first)} == {np.dtype("float32")}
    path = teacher.store.directory / "statistics-p2.npz"
    with np.load(path) as file:
        assert json.loads(str(file["settings"])) == teacher.settings | {"patch": 2}
    feature_statistics.targets(teacher, context.data, 4)
    assert len(calls) == 2
    feature_statistics.targets(
        teacher._replace(settings=teacher.settings | {"seed": 1}), context.data, 2
    )
    assert len(calls) == 3
    path.write_bytes(path.read_bytes()[:50])
    feature_statistics.targets(teacher, context.data, 2)
    assert len(calls) == 4


# --- one step -----------------------------------------------------------------------------------


def stepper(method, devices=1):
    """Return ``f(step, averages) -> (state, loss, averages, metrics, gradient)``, compiled once."""
    gradient, _ = loop.make_step(method, 0, jax.devices()[:devices])

    def step(at=0, averages=None):
        carry = loop.start(method, 0)
        aux = carry.state.aux | {"step": jnp.int32(at)}
        aux |= {} if averages is None else {"averages": averages}
        carry = carry._replace(state=carry.state._replace(aux=aux), step=jnp.int32(at))
        (loss, (new, told)), slope = gradient(carry, method.sample(0, at))
        return carry.state, loss, new["averages"], told, slope

    return step


def opened(problem, averages):
    """Return the averages of every net and image batch as trees, out of the vectors they are in."""
    targets = [feature_statistics.targets(teacher, problem.data, 2) for teacher in problem.teachers]
    return {
        str(m): jax.vmap(lambda v, own=own: gvbsm.unpacked(v, statistics.start(own)))(
            averages[str(m)]
        )
        for m, own in enumerate(targets)
    }


def norm(x):
    return np.sqrt(np.sum(np.square(x)))


def spread(images, tau):
    total = 0.0
    for own in images:
        rows = own.reshape(len(own), -1) / np.sqrt(own[0].size)
        spectrum = np.linalg.eigvalsh(rows @ rows.T)
        p, q = (np.exp(v - v.max()) for v in (spectrum / tau, spectrum))
        p, q = p / p.sum(), q / q.sum()
        total += np.sum(p * np.log(p / q))
    return total


@functools.cache
def seen(net, spec):
    """Return the compiled output of a net on views of six images."""

    def look(variables, images, key):
        view = views.draw(key, 6, (8, 8, 3), spec)
        return net.apply(variables, views.apply(images, view), taps="all")

    return jax.jit(look)


def by_hand(problem, images, place, number, at, before):
    """Return the loss and the averages after a step of one image batch, of the net of its turn."""
    config, m = problem.config, at % 2
    teacher = problem.teachers[m]
    key = jax.random.fold_in(rng.key(0, "objective", at), number)
    view_key, drop_key = jax.random.split(key)
    out = seen(teacher.net, recovery.spec(config, (8, 8, 3)))(teacher.variables(), images, view_key)
    convs = order(teacher.net, ["conv"])
    u = np.asarray(jax.random.uniform(drop_key, (len(convs),)))
    kept = dict(zip(convs, u >= config.drop, strict=True))
    targets = feature_statistics.targets(teacher, problem.data, 2)
    ce = -np.asarray(jax.nn.log_softmax(out.logits), np.float64)
    loss = ce[np.arange(6), np.repeat(np.arange(3), 2)].mean()
    after = {}
    for i, name in enumerate(order(teacher.net)):
        if not kept.get(name, True):
            continue
        own = plain(out.taps[name], 2 if name in convs else None)
        known = np.asarray(before[str(m)].seen[name])[place] > 0
        for statistic, value in own.items():
            old = np.asarray(before[str(m)].value[name][statistic], np.float64)[place]
            after[name, statistic] = 0.8 * old + 0.2 * value if known else value
            away = norm(after[name, statistic] - targets[name][statistic])
            loss += 0.01 * (1 if i else 10) * away
    return loss + spread(np.asarray(images, np.float64).reshape(3, 2, 8, 8, 3), 4), after, convs


@pytest.mark.parametrize(("ipc", "devices"), [(4, 1), (6, 2)])  # 3 batches on 2 are padded
@pytest.mark.slow
def test_three_steps_are_those_of_a_plain_implementation(build, ipc, devices):
    method, problem = build(ipc=ipc, drop=0.3)
    step, count, averages, dropped = stepper(method, devices), ipc // 2, None, 0
    for at in (0, 1, 2):  # a net, the other, the first again
        state, loss, new, _, _ = step(at, averages)
        before, after_it, total = opened(problem, state.aux["averages"]), opened(problem, new), 0.0
        mine, other = str(at % 2), str((at + 1) % 2)
        for place in range(count):
            images = state.variables["images"][6 * place : 6 * place + 6]
            own, after, convs = by_hand(problem, images, place, place, at, before)
            total += own / count
            dropped += sum((name, "mean") not in after for name in convs)
            for name, found in after_it[mine].value.items():
                for statistic, value in found.items():
                    old = np.asarray(before[mine].value[name][statistic][place])
                    wanted = after.get((name, statistic), old)
                    np.testing.assert_allclose(value[place], wanted, rtol=1e-4, atol=1e-5)
                known = (name, "mean") in after or bool(before[mine].seen[name][place])
                assert float(after_it[mine].seen[name][place]) == known
        np.testing.assert_array_equal(new[other], state.aux["averages"][other])
        np.testing.assert_allclose(loss, total, rtol=1e-4)
        averages = new
    assert 0 < dropped < 9 * count


@pytest.mark.slow
def test_the_gradient_is_that_of_the_statistics_and_not_of_their_average(build):
    # An average that has these statistics already has the loss and the derivative of none at all.
    method, _ = build(drop=0.0, ema=0.0)
    _, loss, averages, _, slope = stepper(method)()
    method, problem = build(drop=0.0, ema=0.8)
    state, again, _, _, same = stepper(method)(0, averages)
    assert float(opened(problem, state.aux["averages"])["0"].seen["conv1"].min()) == 1
    np.testing.assert_allclose(loss, again, rtol=1e-6)
    np.testing.assert_allclose(slope["images"], same["images"], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_convolutions_are_left_out_with_the_probability_of_drop_and_norms_never(build):
    method, problem = build(drop=1.0)
    step = stepper(method)
    _, _, new, told, _ = step(0)
    seen = opened(problem, new)["0"].seen
    assert all(float(v.max()) == 0 for n, v in seen.items() if n.startswith("conv"))
    assert all(float(v.min()) == 1 for n, v in seen.items() if n.startswith("norm"))
    assert float(told["statistics"]) > 0
    assert float(step(1)[3]["statistics"]) == 0  # the net that has convolutions alone
    step = stepper(build(drop=0.4)[0])
    counts = [opened(problem, step(2 * i)[2])["0"].seen for i in range(12)]
    part = np.mean([[np.mean(s[f"conv{i}"]) for i in (1, 2, 3)] for s in counts])
    assert 0.45 < part < 0.75  # 72 draws of 0.6


@pytest.mark.slow
def test_ref_bugs_start_the_averages_at_zero(build):
    new, late = (
        opened(problem, stepper(method)()[2])
        for method, problem in (build(drop=0.0, ref_bugs=bugs) for bugs in (False, True))
    )
    for name in ("conv1", "norm2"):
        first, part = (tree["0"].value[name]["var"] for tree in (new, late))
        np.testing.assert_allclose(part, 0.2 * first, rtol=1e-5)


def test_a_batch_has_images_of_a_class_side_by_side(build):
    method, problem = build(ipc=4)
    labels = method.sample(0, 0)["labels"]
    np.testing.assert_array_equal(labels, [[0, 0, 1, 1, 2, 2]] * 2)
    state = method.init(0)
    made = method.distilled(state, 8)
    np.testing.assert_array_equal(made.labels, np.repeat(np.arange(3), 4))
    assert made.recipe["labels"]["teachers"] == ["ConvNetBN", "ConvNet"]


# --- what is refused ----------------------------------------------------------------------------


def test_teachers_without_statistics_are_refused_before_they_are_trained(tiny, tmp_path):
    for method, net, words in (
        ("gvbsm", "ConvNetBN,MLP", "MLP, which has no convolution and no batch norm"),
        ("sre2l", "ConvNet,ConvNetBN", "ConvNet, which has no batch norm"),
        ("cda", "ConvNet", "ConvNet, which has no batch norm"),
    ):
        known = config_lib.schema(method)
        keys = keys_of(tiny) | {"method": method, "squeeze.nets": net}
        keys = {k: v for k, v in keys.items() if k in known}
        with pytest.raises(BadInput, match=f"config.squeeze.nets: {words}"):
            runs.context(keys, tmp_path)


@pytest.mark.parametrize("module", [sre2l, cda, gvbsm])
def test_make_refuses_them_too(build, module):
    _, problem = build()
    mlp = nets.make("MLP", problem.data.shape, problem.data.classes)
    wrong = problem._replace(teachers=(problem.teachers[0]._replace(net=mlp, frozen=mlp),))
    with pytest.raises(BadInput, match="config.squeeze.nets: MLP"):
        module.make(problem.config, wrong)


@pytest.mark.parametrize("override", [{"patch": 0}, {"drop": 1.5}, {"ema": -1}, {"tau": 0}])
def test_values_out_of_bounds_are_refused(override):
    with pytest.raises(BadInput, match=f"config.{next(iter(override))}"):
        config_lib.load("gvbsm.py:digits", override)


def test_published_rows_resolve():
    for dataset, ipc in specs.get("gvbsm").published:
        loaded = config_lib.load(f"gvbsm.py:{dataset}", {"ipc": ipc, "data.path": "x.zip"})
        config, notes = config_lib.resolve(loaded.config)
        assert (config.steps, config.lr_img, config.roll, config.patch) == (4000, 0.05, 32, 4)
        assert len(config.squeeze.nets) == 5 and len(notes) == 1
        assert config.post.loss == "mse_gt" and config.squeeze.weight_decay == 0
