"""EDC against plain formulas: targets of classes, the loss of a step, its bugs; its settings."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jdd import config as config_lib
from jdd import methods, rng, specs
from jdd.augment import crops
from jdd.errors import BadInput
from jdd.nets.order import order
from jdd.pretrained import feature_statistics, teachers
from tests import runs
from tests.layer_statistics import plain

KEYS = {
    "method": "edc", "squeeze.nets": "ConvNetBN:d1", "squeeze.width": 4, "squeeze.batch": 32,
    "squeeze.epochs": 1, "squeeze.augment": "none", "net.name": "MLP", "nets": "MLP",
    "crop": "none", "flip": 0.0, "roll": 0, "patch": 2, "ipc": 2, "lr_img": 0.1, "steps": 8,
    "eval.curve": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def context(tiny, tmp_path_factory):
    """A run whose teacher lies on disk; how good it is says nothing here."""
    known = config_lib.schema("edc")
    keys = {k: v for k, v in tiny.items() if k in known} | KEYS
    found = runs.context(keys, tmp_path_factory.mktemp("edc") / "run")
    (teacher,) = found.teachers
    variables = teacher.net.init(rng.key(3, "teacher"))
    stats = jax.tree.map(lambda a: a + 0.3, variables["batch_stats"])
    teacher.store.create()
    stacked = jax.tree.map(lambda x: np.asarray(x)[None], variables | {"batch_stats": stats})
    teacher.store.write(0, teacher.epochs, stacked)
    return found


@pytest.fixture(scope="module")
def taps(context):
    """Return ``f(images) -> output`` of the teacher, its layers' inputs tapped."""
    teacher = context.teachers[0]
    variables = teacher.variables()
    return jax.jit(lambda x: teacher.net.apply(variables, x, taps="all"))


def of_classes(context, taps):
    """Return the mean statistics of one image of each class, by hook and statistic."""
    net, train = context.teachers[0].net, context.data.train
    convs = order(net, ["conv"])
    out, found = taps(np.asarray(train.images)), {}
    for name in order(net):
        each = [plain(x[None], 2 if name in convs else None) for x in np.asarray(out.taps[name])]
        for key in each[0]:
            stacked = np.stack([one[key] for one in each])
            found[name, key] = np.stack([stacked[train.labels == c].mean(0) for c in range(3)])
    return found


def test_targets_of_a_class_are_means_over_its_images(context, taps, monkeypatch):
    teacher, wanted = context.teachers[0], of_classes(context, taps)
    found = feature_statistics.class_targets(teacher, context.data, 2)
    assert {(n, k) for n, own in found.items() for k in own} == set(wanted)
    for (name, key), value in wanted.items():
        assert found[name][key].dtype == np.float32
        np.testing.assert_allclose(found[name][key], value, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(feature_statistics, "_measured_by_class", None)  # read, not made again
    again = feature_statistics.class_targets(teacher, context.data, 2)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert crops.names(teacher.recipe.strategy) == ()
    shapes = feature_statistics.class_targets(teacher._replace(store=None), context.data, 2)
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, found)


@pytest.mark.parametrize("bugs", [False, True])
def test_a_step_is_half_of_all_images_and_half_of_the_batchs_classes(context, taps, bugs):
    config = config_lib.replace(context.config, {"ref_bugs": bugs, "category": 0.25, "first_bn": 5})
    problem = context.problem._replace(config=config)
    method = methods.make(config, problem)
    state = method.init(0)
    images, train = np.asarray(state.variables["images"]), context.data.train
    labels = np.repeat(np.arange(3), 2)
    for one, c in zip(images, labels, strict=True):  # real images, of their classes
        same = (np.asarray(train.images) == one).all((1, 2, 3))
        assert set(train.labels[same]) == {c}
    item = jax.tree.map(lambda x: x[0], method.sample(0, 0))
    np.testing.assert_array_equal(item["labels"], labels)
    loss, (_, told) = jax.jit(method.objective)(
        state.variables, state.aux | method.constants, item, jax.random.key(0)
    )
    assert set(told) == {"ce", "statistics", "agreement"}

    net, out, classes = context.teachers[0].net, taps(images), of_classes(context, taps)
    targets = feature_statistics.targets(context.teachers[0], context.data, 2)
    convs, apart = order(net, ["conv"]), 0.0
    for i, name in enumerate(order(net)):
        for key, value in plain(out.taps[name], 2 if name in convs else None).items():
            value = 0.2 * value if bugs else value
            swap = {"patch_mean": "patch_var", "patch_var": "patch_mean"} if bugs else {}
            own = classes[name, swap.get(key, key)].mean(0)
            pair = (np.linalg.norm(value - targets[name][key]), np.linalg.norm(value - own))
            apart += (1 if i else 5) * (0.75 * pair[0] + 0.25 * pair[1])
    ce = -np.asarray(jax.nn.log_softmax(out.logits))[np.arange(6), labels].mean()
    np.testing.assert_allclose(told["statistics"], apart, rtol=1e-4)
    np.testing.assert_allclose(loss, ce + 0.01 * apart, rtol=1e-4)


def test_published_rows_resolve():
    for dataset, ipc in specs.get("edc").published:
        loaded = config_lib.load(f"edc.py:{dataset}", {"ipc": ipc, "data.path": "x.zip"})
        config, notes = config_lib.resolve(loaded.config)
        assert len(notes) == 1 and config.pix_init == "real" and config.category == 0.5
        assert (config.drop, config.roll, config.relabel.randaugment) == (0, 0, 2)
        assert (config.eval.ema, config.post.ce_weight, config.post.momentum) == (
            0.99, 0.025, 0.875,
        )  # fmt: skip
        ten = dataset == "cifar10"
        assert config.min_scale == config.relabel.min_scale == (0.08 if ten else 0.5)
        assert len(config.squeeze.nets) == (8 if ten else 5) and config.steps == 75 + 1925 * (
            not ten
        )
        kind = {"cifar10": "multistep", "cifar100": "cosine_linear"}.get(dataset, "recipe")
        assert config.eval.schedule == kind
        assert config.eval.batch == {"cifar10": 10, "cifar100": 50}.get(dataset, 100)
        assert config.eval.milestones == ((0.8, 0.9, 0.95) if ten else (0.5, 0.75))
    # Another schedule than the row's leaves nothing of it behind.
    given = {"ipc": 1, "data.path": "x.zip", "eval.schedule": "recipe"}
    config, _ = config_lib.resolve(config_lib.load("edc.py:cifar10", given).config)
    assert config.eval.gamma == 0.1


def test_teachers_of_other_depths(context, tmp_path):
    given = {"squeeze.nets": ("ConvNet:d2", "ConvNet:d1", "ConvNetBN:6")}
    config = config_lib.replace(context.config, given)
    found = teachers.teachers(config, context.data, tmp_path)
    assert [t.settings["net_options"] for t in found] == [
        {"width": 4, "depth": 2}, {"width": 4, "depth": 1}, {"width": 6},
    ]  # fmt: skip
    assert [t.store.directory.name for t in found] == ["ConvNet-d2", "ConvNet-d1", "ConvNetBN-w6"]
    for word in ("ConvNet:d", "ConvNet:d0", "ConvNet:0", "ConvNet:x2"):
        wrong = config_lib.replace(context.config, {"squeeze.nets": (word,)})
        with pytest.raises(BadInput, match=f"squeeze.nets: {word}; .*NET:dDEPTH"):
            teachers.teachers(wrong, context.data, None)
