"""DD on trained nets: adapting those of another dataset, and attacking those of the same one."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config as configs
from jdd import main, methods, rng, tasks
from jdd.data import Split, class_of, relabelled
from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet
from jdd.run import pipeline
from jdd.stages.initial_variables import initial_variables
from jdd.tasks.base import merged, summaries
from tests import runs
from tests.conftest import toy_images

OWN = {
    "method": "dd", "ipc": 2, "distill_steps": 2, "distill_epochs": 2, "steps": 60,
    "lr_img": 0.1, "lr_lr": 0.1, "batch_real": 60, "lr_student": 0.1, "net.init": "xavier",
    "experts.count": 4, "held_out": 2, "experts.group": 2, "experts.epochs": 8, "eval.n": 5,
    "eval.curve": 0, "log_every": 20, "checkpoint_every": 60, "baselines.full": False,
}  # fmt: skip
ATTACK = {"objective": "attack", "attack_class": "2", "target_class": "0"}


@pytest.fixture(scope="module")
def keys(tiny):
    schema = configs.schema("dd")
    return {name: value for name, value in tiny.items() if name in schema} | OWN


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The toy's classes as another dataset shows them: upside down, 16 pixels, no test split."""
    path = tmp_path_factory.mktemp("source") / "source.npz"
    images, labels = toy_images(90, 5)
    upside_down = images[:, ::-1].repeat(2, axis=1).repeat(2, axis=2)
    np.savez(path, x_train=upside_down, y_train=labels)
    return {"objective": "adapt", "source.name": "flipped", "source.path": str(path)}


@pytest.fixture(scope="module")
def attack(keys, tmp_path_factory):
    place = tmp_path_factory.mktemp("attack")
    return place, runs.run({**keys, **ATTACK, "steps": 150}, place)


@pytest.fixture(scope="module")
def adapt(keys, source, tmp_path_factory):
    place = tmp_path_factory.mktemp("adapt")
    gentle = {"lr_img": 0.03, "lr_lr": 0.03, "steps": 150}
    return place, runs.run({**keys, **source, **gentle}, place)


def test_attack_changes_one_class_and_leaves_the_others(attack):
    place, result = attack
    found = result["accuracy"]["ConvNet"]
    before = found["before"]
    assert found["n"] == found["success"]["n"] == before["n"] == 2  # the nets held out
    assert found["success"]["mean"] > before["success"]["mean"] + 0.3
    assert found["others"]["mean"] > 0.8
    # A third of the images is attacked: all three figures are of the same guesses.
    parts = before["others"]["mean"] * 2 / 3 + 1 / 3
    assert before["mean"] <= parts + 1e-6
    aim = {"kind": "attack", "attack_class": 2, "target_class": 0}
    assert result["objective"] == aim | {"attack_name": "2", "target_name": "0"}
    assert "to have 2 taken for 0" in result["summary"] and "before the steps" in result["summary"]
    assert result["published"] is None and result["baselines"]["full"] is None
    page = (place / "report.html").read_text()
    assert "What the steps change" in page and "Images of 2, taken for 0" in page
    assert json.loads((place / "result.json").read_text())["accuracy"]["ConvNet"] == found


def test_adapt_makes_nets_of_the_source_good_on_the_target(adapt):
    place, result = adapt
    found = result["accuracy"]["ConvNet"]
    assert found["mean"] > found["before"]["mean"] + 0.1
    assert "from flipped to toy" in result["summary"]
    assert any("flipped" in note for note in result["notes"])
    assert "trained on flipped before" in (place / "report.html").read_text()
    # Experts were trained on the source: the store says so.
    settings = json.loads((place / "experts" / "store.json").read_text())["settings"]
    assert settings["dataset"] == "flipped"


def test_before_is_the_pretrained_net_on_the_target(adapt, keys, source):
    place, result = adapt
    context = runs.context({**keys, **source}, place)
    start = initial_variables(context, context.load_set(0), context.net)
    guess = [
        np.argmax(context.net.apply(jax.tree.map(lambda a, i=i: a[i], start),
                                 context.data.test.images, train=False).logits, -1)
        for i in range(2)
    ]  # fmt: skip
    values = [float(np.mean(g == context.data.test.labels)) for g in guess]
    np.testing.assert_allclose(result["accuracy"]["ConvNet"]["before"]["values"], values)


@pytest.mark.parametrize("mode", ["attack", "adapt"])
def test_gradient_agrees_with_finite_differences(mode, keys, source, request):
    place, _ = request.getfixturevalue(mode)
    context = runs.context({**keys, **(ATTACK if mode == "attack" else source)}, place)
    method = methods.make(context.config, context.problem)
    item = jax.tree.map(lambda x: x[0], context.problem.gather(method.sample(0, 0)))
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x).astype(np.float64))
            if np.asarray(x).dtype == np.float32 else jnp.asarray(x),
            (method.init(0).variables, item),
        )  # fmt: skip
        variables, item = wide
        loss = jax.jit(lambda v: method.objective(v, {}, item, rng.key(0, "fd"))[0])
        grads = jax.grad(loss)(variables)
        draw, h = np.random.default_rng(0), 1e-7
        for name in variables:
            d = {n: jnp.asarray(draw.standard_normal(x.shape)) * (n == name)
                 for n, x in variables.items()}  # fmt: skip
            low, high = (
                loss(jax.tree.map(lambda x, y, s=s: x + s * h * y, variables, d)) for s in (-1, 1)
            )
            exact = sum(jnp.vdot(grads[n], d[n]) for n in variables)
            np.testing.assert_allclose(exact, (high - low) / (2 * h), rtol=1e-5)


def test_outer_loss_of_an_attack_is_that_of_relabelled_images(attack, keys):
    place, _ = attack
    values = {**keys, **ATTACK}
    context = runs.context(values, place)
    method = methods.make(context.config, context.problem)
    plain = methods.make(
        configs.replace(context.config, {"objective": "distill"}), context.problem
    )  # same nets, no attack
    item = jax.tree.map(lambda x: x[0], context.problem.gather(method.sample(0, 0)))
    variables, key = method.init(0).variables, rng.key(0, "any")
    truth = item["real"]["labels"]
    told = item | {"real": item["real"] | {"labels": relabelled(truth, 2, 0)}}
    ours = method.objective(variables, {}, item, key)[0]
    np.testing.assert_allclose(ours, plain.objective(variables, {}, told, key)[0], rtol=1e-6)
    assert abs(ours - plain.objective(variables, {}, item, key)[0]) > 1e-3


@pytest.mark.parametrize("mode", ["attack", "adapt"])
def test_saved_set_is_evaluated_on_its_own_nets(mode, request, capsys, tmp_path):
    place, result = request.getfixturevalue(mode)
    again = pipeline.run(
        configs.load(None, {"progress": False, "baselines.random": 0, "eval.n": 5}),
        str(tmp_path / "again"), "evaluate", str(place / "distilled.npz"), "test",
    )  # fmt: skip
    assert again["accuracy"] == result["accuracy"]
    alone = tmp_path / "alone" / "set.npz"
    alone.parent.mkdir()
    alone.write_bytes((place / "distilled.npz").read_bytes())
    words = ["--mode=evaluate", f"--set={alone}", f"--workdir={tmp_path / 'out'}"]
    assert main.main(words) == 2
    err = capsys.readouterr().err
    assert "trained nets" in err and "config.experts.dir" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main.main([*words, "--config.nets=MLP"]) == 2
    assert "config.nets" in capsys.readouterr().err
    result = main.main([*words, f"--config.experts.dir={place / 'experts'}",
                        "--config.baselines.random=0"])  # fmt: skip
    assert result == 0


def test_random_images_of_an_attack_carry_its_labels(attack, keys):
    from jdd.stages.baselines import random_sets

    place, _ = attack
    context = runs.context({**keys, **ATTACK}, place)
    _, labels = random_sets(context, DistilledSet.load(place / "distilled.npz"), 2)
    assert labels.tolist() == [[0, 1, 0, 0, 1, 0]] * 2


def test_figures_of_several_sets_are_merged():
    one = summaries(["accuracy", "success"], np.asarray([[0.5, 0.0], [0.7, 1.0]]))
    both = merged([one | {"before": one}, one | {"before": one}])
    assert both["n"] == both["before"]["success"]["n"] == 4
    np.testing.assert_allclose([both["mean"], both["success"]["mean"]], [0.6, 0.5])


def test_splits_of_an_attack():
    test = Split(np.zeros((4, 1, 1, 1)), np.asarray([0, 1, 2, 2]))
    recipe = {"objective": {"kind": "attack", "attack_class": 2, "target_class": 1}}
    asked = tasks.of(recipe).problems(test)
    assert asked["success"].labels.tolist() == [1, 1] and asked["others"].labels.tolist() == [0, 1]
    assert list(tasks.of({}).problems(test)) == ["accuracy"]


def test_classes_go_by_name_or_number():
    assert class_of("ship", ["cat", "ship"], "x") == class_of("1", ["cat", "ship"], "x") == 1
    assert class_of("1", ["1", "0"], "x") == 0  # a name before a number
    for word in ("2", "shp", ""):
        with pytest.raises(BadInput):
            class_of(word, ["cat", "ship"], "x")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({**ATTACK, "init": "random"}, "config.init"),
        ({**ATTACK, "init": "fixed"}, "config.init"),
        ({**ATTACK, "target_class": ""}, "config.target_class"),
        ({**ATTACK, "target_class": "2"}, "config.target_class"),
        ({**ATTACK, "attack_class": "7"}, "config.attack_class"),
        ({**ATTACK, "objective": "distill"}, "config.attack_class"),
        ({**ATTACK, "nets": "ConvNet,MLP"}, "config.nets"),
        ({**ATTACK, "source.name": "mnist"}, "config.source.name"),
        ({"objective": "adapt"}, "config.source.name"),
        ({"objective": "adapt", "source.name": "flipped"}, "config.source.name"),
        ({"objective": "adapt", "source.name": "minst"}, "config.source.name"),
        ({"objective": "adapt", "source.name": "mnist"}, "tfds"),
        ({"objective": "adapt", "source.name": "digits"}, "config.source.name=digits"),
        ({"objective": "adapt", "source.name": "a", "source.path": "no.npz"}, "config.source.path"),
    ],
)
def test_what_does_not_go_together_is_refused(keys, tmp_path, change, where):
    with pytest.raises(BadInput) as caught:
        runs.context({**keys, **change}, tmp_path)
    assert where in str(caught.value), caught.value
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_source_in_another_order_of_classes_is_refused(keys, source, tmp_path):
    images, labels = toy_images(30, 5)
    path = tmp_path / "other.npz"
    np.savez(path, x_train=images, y_train=labels, class_names=["b", "a", "c"])
    with pytest.raises(BadInput, match="classes 'a', 'b', 'c' not among the classes of toy"):
        runs.context({**keys, **source, "source.path": str(path)}, tmp_path / "run")
