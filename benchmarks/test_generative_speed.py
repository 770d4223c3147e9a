"""How fast are a U-Net's training step and its sampling next to PyTorch, on the same device?

    python -m pytest benchmarks/test_generative_speed.py -s              # -k pixels: one size
    python -m pytest benchmarks/test_generative_speed.py -s --quick      # does it run?

Both sides run in one process, in turns. Before a timing the predictions and all gradients are
compared in float64 on the same weights, and the samples in float32 from the same noise: unless they
agree nothing is timed. jdd's step is that of its outer loop: gradient of the batch, Adam,
average of the weights. PyTorch's is eager, channels last.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch", reason="the speed benchmarks need PyTorch: pip install 'jdd[bench]'")

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import peers
from benchmarks.peers import unet as peer_unet
from benchmarks.timing import Bench, report_times, take_turns
from jdd.generative import diffusion
from jdd.methods import diffusion as method
from jdd.methods.base import Problem
from jdd.nets.unet import unet
from jdd.run import loop

pytestmark = pytest.mark.slow

CLASSES, TIMESTEPS, GUIDANCE = 10, 1000, 2.0


class Size(NamedTuple):
    """A U-Net and its batch; ``images`` are sampled in ``steps`` steps."""

    shape: tuple[int, int, int]
    width: int
    levels: int
    batch: int
    images: int
    steps: int
    parts: int = 1


SIZES = {
    "latents": Size((8, 8, 4), 64, 2, 128, 100, 10),
    "pixels": Size((32, 32, 3), 32, 3, 64, 20, 5),
}


def random_params(size: Size) -> tuple[Any, Any]:
    """Return the net, and weights without zeros."""
    net = unet(size.shape, CLASSES, size.width, size.levels, timesteps=TIMESTEPS)
    leaves, tree = jax.tree.flatten(net.init(jax.random.key(0)))
    draw = np.random.default_rng(0)
    moved = [np.asarray(a) + 0.02 * draw.standard_normal(a.shape).astype("f") for a in leaves]
    return net, tree.unflatten([jnp.asarray(a) for a in moved])


def sizes_of(size: Size) -> dict[str, int]:
    return {"width": size.width, "levels": size.levels, "timesteps": TIMESTEPS}


def nchw(x: Any) -> torch.Tensor:
    """Return images [n, h, w, c] as PyTorch's [n, c, h, w], channels last in memory."""
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def agreement(size: Size) -> float:
    """Return the largest relative difference of gradients in float64; refuse more than 1e-9."""
    net, params = random_params(size)
    draw = np.random.default_rng(1)
    z, noise = (draw.standard_normal((4, *size.shape)) for _ in range(2))
    t, labels = np.array([0, 10, 500, 999]), np.array([0, 3, 9, CLASSES])
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), params)

        def loss(p: Any) -> jax.Array:
            out = net.apply(p, jnp.asarray(z), jnp.asarray(t), jnp.asarray(labels))
            return jnp.mean((out - noise) ** 2)

        grads = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params))
    w = peer_unet.weights(params, torch.float64)
    own = (torch.tensor(t), torch.tensor(labels))
    ((peer_unet.apply(w, nchw(z), *own, **sizes_of(size)) - nchw(noise)) ** 2).mean().backward()
    ours = peer_unet.weights(grads, torch.float64)
    worst = max(
        float((ours[name].detach() - v.grad).abs().max() / v.grad.abs().max().clamp(min=1e-12))
        for name, v in w.items()
    )
    assert worst < 1e-9, worst
    return worst


def problem_of(size: Size) -> tuple[Any, Problem]:
    """Return the config and problem of a diffusion of pixels, of random images."""
    draw = np.random.default_rng(2)
    images = draw.standard_normal((4 * size.batch, *size.shape)).astype(np.float32)
    labels = draw.integers(0, CLASSES, len(images)).astype(np.int32)
    own = SimpleNamespace(
        space="pixels", batch=size.batch, parts=size.parts, lr=1e-3, timesteps=TIMESTEPS,
        schedule="scaled_linear", drop=0.1, ema=0.999, width=size.width, levels=size.levels,
        attention=True,
    )  # fmt: skip
    config: Any = SimpleNamespace(diffusion=own, sampling=SimpleNamespace(steps=1, guidance=1.0))
    train = SimpleNamespace(images=images, labels=labels)
    data: Any = SimpleNamespace(train=train, shape=size.shape, classes=CLASSES)
    return config, Problem(data, {}, None, config)


@pytest.mark.parametrize("name", SIZES)
def test_training_step(bench: Bench, name: str) -> None:
    """One step of the predictor: gradient, Adam, average."""
    peer, size = peers.prepare(), SIZES[name]
    if bench.quick:
        size = size._replace(batch=8)
    agreed = agreement(size)
    config, problem = problem_of(size)
    made = method.phase(config, problem)
    gradient, update = loop.make_step(made, 0, jax.devices()[:1])
    state, alive = [loop.start(made, 0)], jnp.asarray(True)

    def ours() -> None:
        batch = problem.gather(made.sample(0, int(state[0].step)))
        state[0] = jax.block_until_ready(update(state[0], gradient(state[0], batch), alive)[0])

    kept = np.asarray(diffusion.schedule_of("scaled_linear", TIMESTEPS).alpha_bar)
    trainer = peer_unet.Trainer(
        peer_unet.weights(random_params(size)[1]), kept, 1e-3, sizes_of(size)
    )
    train = problem.data.train
    x, y = nchw(train.images[: size.batch]), torch.tensor(train.labels[: size.batch]).long()

    def theirs() -> None:
        trainer.step(x, y, CLASSES)
        peers.wait()

    times = take_turns({"jdd": ours, "torch": theirs}, bench.repeats)
    report_times(
        bench, f"unet_step-{name}", size._asdict(), times,
        jdd_temporaries_mb=gradient.temporaries / 1e6, float64_difference=agreed, peer=peer,
    )  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_sampling(bench: Bench, name: str) -> None:
    """Images of all classes by DDIM with guidance, as one program."""
    peer, size = peers.prepare(), SIZES[name]
    if bench.quick:
        size = size._replace(images=4, steps=2)
    net, params = random_params(size)
    schedule = diffusion.schedule_of("scaled_linear", TIMESTEPS)
    z = jax.random.normal(jax.random.key(0), (size.images, *size.shape))
    labels = jnp.arange(size.images) % CLASSES

    @jax.jit
    def draw(params: Any, z: jax.Array) -> jax.Array:
        def predict(z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
            return net.apply(params, z, t, labels)

        return diffusion.sample(predict, schedule, z, labels, size.steps, GUIDANCE)

    def ours() -> Any:
        return jax.block_until_ready(draw(params, z))

    w, own = peer_unet.weights(params), torch.tensor(np.asarray(labels)).long()
    kept, times = np.asarray(schedule.alpha_bar), diffusion.timesteps(schedule, size.steps)

    def theirs() -> torch.Tensor:
        found = peer_unet.sample(w, kept, times, nchw(z), own, CLASSES, GUIDANCE, sizes_of(size))
        peers.wait()
        return found

    first, other = np.asarray(ours()).transpose(0, 3, 1, 2), theirs().numpy()
    apart = float(np.abs(first - other).max() / np.abs(other).max())
    assert apart < 1e-2, apart
    found = take_turns({"jdd": ours, "torch": theirs}, bench.repeats)
    report_times(
        bench, f"unet_sampling-{name}", size._asdict() | {"guidance": GUIDANCE}, found,
        float32_difference=apart, peer=peer,
    )  # fmt: skip
