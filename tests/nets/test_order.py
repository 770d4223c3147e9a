"""The order of a net's layers, and the inputs of its convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.nets.order import order


def net_of(name, **options):
    return nets.make(name, (8, 8, 3), 3, **options)


def test_layers_come_in_the_order_in_which_they_run():
    found = order(net_of("ConvNetBN", width=4, depth=2))
    assert found == ("conv1", "norm1", "conv2", "norm2")
    found = order(net_of("ResNet18BN", width=2))
    block = "conv1 norm1 conv2 norm2".split()
    wanted = ["conv0", "norm0"]
    for stage in (1, 2, 3, 4):
        shortcut = ["shortcut", "norm3"] if stage > 1 else []
        wanted += [f"stage{stage}_1/{name}" for name in block + shortcut]
        wanted += [f"stage{stage}_2/{name}" for name in block]
    assert found == tuple(wanted)


def test_kinds_are_told_apart():
    net = net_of("ResNet18BN", width=2)
    convs, norms = order(net, ["conv"]), order(net, ["batch"])
    assert len(convs) == len(norms) == 20
    assert norms[0] == "norm0" and not set(convs) & set(norms)
    # A normalisation that keeps no statistics is none.
    assert order(net_of("ConvNet", width=4, depth=2)) == ("conv1", "conv2")
    assert order(net_of("MLP", width=4)) == ()


def test_inputs_of_convolutions_are_handed_out_when_asked_for():
    net = net_of("ResNet18BN", width=2)
    variables = net.init(jax.random.key(0))
    assert set(variables) == {"params", "batch_stats"}
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3)), jnp.float32)
    few, everything = jax.jit(
        lambda v, x: (net.apply(v, x, taps=True), net.apply(v, x, taps="all"))
    )(variables, x)
    convs = order(net, ["conv"])
    assert set(everything.taps) - set(few.taps) == set(convs)
    np.testing.assert_array_equal(everything.logits, few.logits)
    np.testing.assert_array_equal(everything.taps["conv0"], x)
    np.testing.assert_array_equal(everything.taps["stage3_1/conv1"], everything.taps["block4"])
    np.testing.assert_array_equal(everything.taps["stage3_1/shortcut"], everything.taps["block4"])
    assert everything.taps["stage2_1/conv2"].shape == (2, 4, 4, 4)


@pytest.mark.parametrize("name", ["ConvNet", "ConvNetBN"])
def test_memory_is_planned_without_the_inputs_of_convolutions(name):
    net = nets.make(name, (8, 8, 1), 3, width=4, depth=2)
    # Inputs of the norms, then the blocks; one channel gets padding 3, 8 pixels become 12.
    one = 12 * 12 * 4 + 6 * 6 * 4 + 6 * 6 * 4 + 3 * 3 * 4
    assert net.activations(5) == 4 * 5 * one
