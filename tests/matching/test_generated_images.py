"""Matching losses of DiM against formulas in NumPy, and their gradients by finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.matching import generated

SHAPE, LABELS = (8, 8, 1), np.asarray([0, 1, 2, 0])


@pytest.fixture(scope="module")
def problem():
    draw = np.random.default_rng(0)
    net = nets.make("ConvNetBN", SHAPE, 3, width=2, depth=1)
    variables = net.init(jax.random.key(0))
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), variables)
        images = [jnp.asarray(draw.standard_normal((4, *SHAPE))) for _ in range(2)]
        yield net, variables, {"images": images[0], "labels": jnp.asarray(LABELS)}, images[1]


def log_softmax(x):
    x = np.asarray(x)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def test_logits_of_images_paired_by_class(problem):
    net, variables, real, fake = problem
    logs = [log_softmax(net.apply(variables, x, train=True).logits) for x in (real["images"], fake)]
    found = generated.logit(net, variables, real, fake)
    np.testing.assert_allclose(found, np.mean((logs[0] - logs[1]) ** 2))


def test_gradients_of_kernels_but_the_classifiers(problem):
    net, variables, real, fake = problem

    def loss(kernel, images):
        params = variables["params"] | {"conv1": variables["params"]["conv1"] | {"kernel": kernel}}
        out = net.apply({**variables, "params": params}, images, train=True).logits
        return -np.mean(log_softmax(out)[np.arange(4), LABELS])

    kernel = np.asarray(variables["params"]["conv1"]["kernel"])
    own = []
    for images in (real["images"], fake):
        slopes = np.zeros_like(kernel)
        for place in np.ndindex(kernel.shape):
            step = np.zeros_like(kernel)
            step[place] = 1e-6
            ends = [loss(jnp.asarray(kernel + s * step), images) for s in (1, -1)]
            slopes[place] = (ends[0] - ends[1]) / 2e-6
        own.append(slopes)
    found = generated.gradient(net, variables, real, fake)
    np.testing.assert_allclose(found, np.abs(own[0] - own[1]).sum(), rtol=1e-6)


def test_mean_features_of_blocks(problem):
    net, variables, real, fake = problem
    maps = [
        np.asarray(net.apply(variables, x, train=True, taps=True).taps["block1"]).mean(0)
        for x in (real["images"], fake)
    ]
    found = generated.feature(net, variables, real, fake)
    np.testing.assert_allclose(found, np.abs(maps[0] - maps[1]).sum())


@pytest.mark.parametrize("name", sorted(generated.LOSSES))
def test_the_gradient_of_a_loss_agrees_with_finite_differences(problem, name):
    net, variables, real, fake = problem
    loss = jax.jit(lambda x: generated.LOSSES[name](net, variables, real, x))
    d = jnp.asarray(np.random.default_rng(1).standard_normal(fake.shape))
    exact = jnp.vdot(jax.grad(loss)(fake), d)
    ends = [loss(fake + s * 1e-7 * d) for s in (1, -1)]
    assert float(jnp.abs(exact)) > 1e-6
    np.testing.assert_allclose(exact, (ends[0] - ends[1]) / 2e-7, rtol=1e-5)


@pytest.mark.parametrize("name", ["ConvNet", "MLP", "ResNet18BN", "VGG11"])
def test_every_kind_of_net_has_blocks_and_kernels(name):
    net = nets.make(name, (32, 32, 1), 3, **({} if name == "MLP" else {"width": 4}))

    def run(key):
        variables = net.init(key)
        taps = net.apply(variables, jnp.zeros((2, 32, 32, 1)), train=True, taps=True).taps
        return taps, generated._kernels(variables["params"])

    taps, kernels = jax.eval_shape(run, jax.random.key(0))
    assert [n for n in taps if n.startswith("block")] and len(kernels) >= 2
    assert all(kernel.ndim > 1 for kernel in kernels)
