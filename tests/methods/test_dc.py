"""DC, DSA and DM: the loss against its definition, the loop, groups of classes, batch norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config, methods
from jdd.augment import dsa
from jdd.config import published
from jdd.methods.classwise import groups, real_rows
from jdd.run import loop
from jdd.specs import dc as dc_spec
from tests import runs

LOOP = {"outer_loop": 2, "inner_epochs": 3, "batch_real": 6, "ipc": 2}


def built(tiny, place, method, **keys):
    names = config.schema(method)
    keys = {k: v for k, v in {**tiny, **LOOP, **keys}.items() if k in names}
    context = runs.context({**keys, "method": method}, place)
    return methods.make(context.config, context.problem), context


def loss_of(method, context, indices, state):
    """The loss of a step as the loop has it: a mean over items."""
    batch = context.problem.gather(indices)
    aux = state.aux | batch.pop("shared", {})
    count = len(batch["classes"])

    @jax.jit
    def one(item):
        return method.objective(state.variables, aux, item, None)[0]

    return np.mean([one(jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(count)])


def cosines(a, b):
    total = 0.0
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if x.ndim > 1:
            x, y = (np.asarray(g, np.float64).reshape(-1, g.shape[-1]) for g in (x, y))
            lengths = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
            total += np.sum(1 - (x * y).sum(0) / (lengths + 1e-6))
    return total


@pytest.mark.parametrize("method", ["dc", pytest.param("dsa", marks=pytest.mark.slow), "dm"])
def test_loss_is_its_definition_however_classes_are_grouped(tiny, tmp_path, method):
    made, context = built(
        tiny, tmp_path, method, **{"data.dsa": "rotate" if method != "dc" else "none"}
    )
    state, indices = made.init(0), made.sample(0, 5)
    net, train = context.net, context.data.train
    params = state.aux["net"]["params"]
    own = np.asarray(state.variables["images"]).reshape(3, 2, 8, 8, 3)
    wanted = 0.0

    @jax.jit
    def gradient(images, label):
        def entropy(p):
            return -jnp.mean(jax.nn.log_softmax(net.apply({"params": p}, images).logits)[:, label])

        return jax.grad(entropy)(params)

    for c in range(3):
        rows, seed = indices["real"][c, 0], indices["seed"][c, 0]
        assert set(train.labels[rows]) == {c}
        real, synthetic = jnp.asarray(train.images[rows]), jnp.asarray(own[c])
        if method != "dc":  # one draw for both
            draw = dsa.draw(jax.random.key(seed), 1, "rotate", siamese=True)
            real, synthetic = (
                dsa.augment(draw, x, "rotate", align_corners=False) for x in (real, synthetic)
            )
        if method == "dm":
            means = [net.apply({"params": params}, x).features.mean(0) for x in (real, synthetic)]
            wanted += float(jnp.sum((means[0] - means[1]) ** 2))
        else:
            wanted += cosines(gradient(synthetic, c), gradient(real, c))
    np.testing.assert_allclose(loss_of(made, context, indices, state), wanted, rtol=2e-4)
    two, context = built(
        tiny, tmp_path, method, classes_at_once=2, **{"data.dsa": context.data.dsa}
    )
    indices = two.sample(0, 5)
    assert indices["real"].shape == (2, 2, 6)  # a third class, and one that weighs nothing
    np.testing.assert_allclose(loss_of(two, context, indices, state), wanted, rtol=2e-4)


def test_dm_with_edges_matches_the_graph_of_the_means_of_all_classes(tiny, tmp_path):
    made, context = built(tiny, tmp_path, "dm", **{"irg_edges": 30.0, "data.dsa": "none"})
    state, indices = made.init(0), made.sample(0, 5)
    assert indices["real"].shape == (1, 3, 6)  # in one item
    apply = jax.jit(context.net.apply)
    real = context.data.train.images[indices["real"][0]]
    sets = real, np.asarray(state.variables["images"]).reshape(3, 2, 8, 8, 3)
    means, graphs = [], []
    for images in sets:
        means.append(np.stack([np.mean(apply(state.aux["net"], x).features, 0) for x in images]))
        apart = ((means[-1][:, None] - means[-1][None]) ** 2).sum(-1)
        graphs.append(apart / apart.max())
    edges = 30 / (2 * 3) * ((graphs[0] - graphs[1]) ** 2).sum()
    wanted = ((means[0] - means[1]) ** 2).sum() + edges
    assert edges > 0.05 * wanted
    np.testing.assert_allclose(loss_of(made, context, indices, state), wanted, rtol=2e-4)


def test_the_net_is_trained_between_updates_and_fresh_after_the_last(tiny, tmp_path):
    made, context = built(tiny, tmp_path, "dc", lr_net=0.1)
    carry = loop.start(made, 0)
    gradient, update = loop.make_step(made, 0, jax.devices()[:1])
    seen = [carry]
    for step in range(3):
        batch = context.problem.gather(made.sample(0, step))
        seen.append(update(seen[-1], gradient(seen[-1], batch), jnp.asarray(True))[0])
    assert [int(c.state.aux["t"]) for c in seen] == [0, 1, 0, 1]
    # Three epochs of plain gradient descent on the images as they are after the update.
    images, labels = seen[1].state.variables["images"], np.repeat(np.arange(3), 2)
    params = seen[0].state.aux["net"]["params"]

    @jax.jit
    def descend(p):
        def entropy(p):
            said = jax.nn.log_softmax(context.net.apply({"params": p}, images).logits)
            return -jnp.mean(jnp.take_along_axis(said, labels[:, None], 1))

        return jax.tree.map(lambda w, g: w - 0.1 * g, p, jax.grad(entropy)(p))

    for _ in range(3):
        params = descend(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
        params, seen[1].state.aux["net"]["params"],
    )  # fmt: skip
    kernels = [np.asarray(c.state.aux["net"]["params"]["conv1"]["kernel"]) for c in seen]
    assert not np.allclose(kernels[2], kernels[1], atol=0.05)  # a fresh draw
    assert np.abs(kernels[2]).max() <= 1 / np.sqrt(27)


@pytest.mark.parametrize("method", ["dc", "dm"])
def test_batch_norm_nets(tiny, tmp_path, method):
    made, context = built(tiny, tmp_path, method, **{"net.norm": "batch", "classes_at_once": 2})
    carry = loop.start(made, 0)
    variables = carry.state.aux["net"]
    gradient, update = loop.make_step(made, 0, jax.devices()[:1])
    batch = context.problem.gather(made.sample(0, 0))
    (loss, (new, _)), grads = gradient(carry, batch)
    assert np.isfinite(loss) and np.isfinite(grads["images"]).all()
    if method == "dm":  # all classes in one pass, whatever was asked for
        assert batch["classes"].shape == (1, 3)
        own, given = carry.state.variables["images"], batch["real"]["images"][0]
        seeds, strategy = batch["seed"][0], context.data.dsa

        @jax.jit
        def means(images):  # of classes that have passed together
            drawn = [dsa.draw(jax.random.key(s), 1, strategy, siamese=True) for s in seeds]
            parts = [dsa.augment(d, x, strategy, False) for d, x in zip(drawn, images, strict=True)]
            said = context.net.apply(variables, jnp.concatenate(parts), train=True).features
            return said.reshape(3, images.shape[1], -1).mean(1)

        wanted = jnp.sum((means(given) - means(own.reshape(3, 2, 8, 8, 3))) ** 2)
        np.testing.assert_allclose(loss, wanted, rtol=1e-4)
        return
    # Statistics are renewed by one pass of real images of every class, then held.
    images = batch["shared"]["real"]["images"]
    assert len(images) == 3 * min(16, max(np.bincount(context.data.train.labels)))
    wanted = jax.jit(lambda v, x: context.net.apply(v, x, train=True).stats)(
        carry.state.aux["net"], images
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        wanted, new["net"]["batch_stats"],
    )  # fmt: skip


def test_loops_of_every_ipc():
    table = dc_spec.loops
    assert [table(i) for i in (1, 10, 20, 50)] == [(1, 1), (10, 50), (20, 25), (50, 10)]
    assert [table(i) for i in (2, 15, 45, 200)] == [(2, 50), (15, 50), (45, 15), (50, 10)]


def test_published_settings_and_evaluation_follow_the_dataset():
    def values(spec, **keys):
        return config.resolve(config.load(spec, keys).config)[0]

    mnist = values("dc:mnist,ipc=1")
    assert (mnist.steps, mnist.dc_aug, mnist.data.dsa) == (1000, "crop_scale_rotate", "none")
    assert mnist.eval.epochs == 1000
    assert published.figure(mnist)["accuracy"] == 0.917
    assert published.figure(mnist)["protocol_differs"] == []
    cifar = values("dc:cifar10,ipc=10")
    assert (cifar.steps, cifar.outer_loop, cifar.inner_epochs) == (10000, 10, 50)
    assert (cifar.eval.epochs, cifar.dc_aug) == (300, "none")
    assert values("dc:cifar10", **{"net.name": "ConvNetBN"}).dc_aug == "crop_noise"
    bare = values("dc:mnist,ipc=1", **{"dc_aug": "none", "eval.epochs": 5})
    assert published.figure(bare)["protocol_differs"] == ["dc_aug", "eval.epochs"]
    with_dsa = values("dc:mnist,ipc=1", **{"data.dsa": "crop_rotate"})
    assert (with_dsa.dc_aug, with_dsa.eval.epochs) == ("none", 1000)
    assert values("dc:mnist", **{"net.name": "ResNet18BN_AP"}).dc_aug == "crop_scale_rotate"
    plain = values("frepo:mnist", **{"augment": "none"})
    assert published.figure(plain)["protocol_differs"] == ["augment"]
    assert values("frepo:cifar10,ipc=20").flip
    assert values("dsa:mnist,ipc=1").data.dsa == "color_crop_cutout_scale_rotate"
    assert values("dm:cifar10,ipc=100").lr_img == 10


def test_small_classes_give_each_image_once():
    by_class = [np.arange(4), np.arange(4, 20), np.arange(20, 29)]
    rows, weight = real_rows(np.random.default_rng(0), by_class, 8)
    assert rows.shape == (3, 8)
    np.testing.assert_allclose(weight.sum(1), 1)
    assert sorted(rows[0, :4]) == [0, 1, 2, 3]
    assert not weight[0, 4:].any() and set(rows[0]) == {0, 1, 2, 3}
    assert len(set(rows[1])) == 8
    shape, given = groups(3, 7)
    assert shape.shape == (3, 3)
    assert given.sum() == 7


@pytest.mark.parametrize("classes", [1, 5, 10, 200])
@pytest.mark.parametrize("at_once", [1, 3, 9, 150])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_groups_are_alike(classes, at_once, devices):
    """Every class once; no group above the limit, no round of devices more than needed."""
    found, weight = groups(at_once, classes, devices)
    assert sorted(found[weight > 0]) == list(range(classes))
    items, k = found.shape
    assert k <= at_once
    assert -(-items // devices) == -(-classes // (at_once * devices))
    assert (weight == 0).sum() < items  # padding is less than a class a group


def test_classes_at_once_follow_the_memory(tiny, tmp_path, monkeypatch):
    """Without a word the groups are as large as the memory; a number typed is taken."""
    from jdd.methods import classwise

    def shape(**keys):
        _, context = built(tiny, tmp_path / "x", "dc", **keys)
        return classwise.Classwise(context.config, context.problem, augmented=False).groups.shape

    assert shape() == (3, 1)  # on a CPU
    monkeypatch.setattr(classwise.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(classwise, "memory", lambda devices: 1 << 40)
    monkeypatch.setattr(classwise, "pick", lambda count: [None])
    assert shape() == (1, 3)
    assert shape(classes_at_once=2) == (2, 2)
    monkeypatch.setattr(classwise, "pick", lambda count: [None, None])
    assert shape() == (2, 2)
    monkeypatch.setattr(classwise, "memory", lambda devices: 1)
    assert shape() == (3, 1)


def test_dc_sets_are_evaluated_with_its_own_augmentation(tiny, tmp_path):
    keys = {"dc_aug": "crop_scale_rotate", "data.dsa": "none", "steps": 0, "eval.epochs": 2}
    made, _ = built(tiny, tmp_path, "dc", **keys)
    dset = made.distilled(made.init(0), 0)
    assert dset.recipe["augment"]["name"] == "dc"
    assert dset.recipe["train"]["lr"] == 0.01
    from jdd.evaluation import train_eval

    planned = train_eval.plan(dset)
    assert (planned.recipe.augment, planned.recipe.strategy) == ("dc", "crop_scale_rotate")
