"""How fast is jdd next to PyTorch, on one device, for the same gradients and the same training?

    python -m pytest benchmarks/test_speed.py -s                 # all; -k evaluation: one question
    python -m pytest benchmarks/test_speed.py -s --quick         # does it run?

Both sides run in one process, in turns. Before a timing the two are compared in float64 on the same
weights, images and augmentation draws: unless they agree nothing is timed. Speed is reported and
never asserted. ``torch bare`` is what the peer's forward and backward passes cost alone. Needs
PyTorch, and a machine with nothing else to do: eager PyTorch loses far more to a busy neighbour.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch", reason="the speed benchmarks need PyTorch: pip install 'jdd[bench]'")

import jax
import jax.numpy as jnp
import torch

from benchmarks import agreement, meta_step, peers, replay
from benchmarks.meta_step import Size
from benchmarks.peers import bare, convnet, dsa, mtt, tesla, training
from benchmarks.timing import Bench, report_times, take_turns
from jdd.evaluation import train_eval
from jdd.pretrained import train as experts
from jdd.training import trainer
from jdd.training.recipe import Recipe

pytestmark = pytest.mark.slow

META = {
    "cifar10-ipc1": Size("cifar10", 128, 1, 50),
    "cifar10-ipc10": Size("cifar10", 128, 10, 30),
    "digits-ipc1": Size("digits", 32, 1, 20),
}
EVALUATED = {"cifar10": Size("cifar10", 128, 10), "digits": Size("digits", 32, 10)}
NETS, EPOCHS, PUBLISHED_EPOCHS = 5, 20, 1001
EXPERTS, BATCH = 5, 256  # jdd's default group, the published batch


@pytest.fixture(autouse=True)
def peer(bench: Bench) -> str:
    """How PyTorch is set up."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bench.tf32
    return peers.prepare()


@pytest.mark.parametrize("name", META)
def test_meta_step(bench: Bench, peer: str, name: str) -> None:
    """One MTT outer step: loss, and its exact gradients in images and rate."""
    outer_step(bench, peer, f"meta_step-{name}", META[name], "exact", mtt)


def test_tesla_step(bench: Bench, peer: str) -> None:
    """One TESLA outer step."""
    outer_step(bench, peer, "tesla_step-cifar10-ipc1", META["cifar10-ipc1"], "tesla", tesla)


def outer_step(
    bench: Bench, peer: str, name: str, size: Size, estimator: str, theirs: ModuleType
) -> None:
    """Compare jdd's outer step with ``theirs.meta_gradient``."""
    published = size.steps
    size = size._replace(steps=bench.few(published, 3))
    if theirs is mtt:
        size = size._replace(steps=min(size.steps, peers.steps_that_fit(size.images, size.width)))
    agreed = agreement.outer_step(size, estimator, theirs)
    step = meta_step.make(size, estimator=estimator)
    gradient, args = step.gradient()
    segment = replay.segment(step.variables, step.batch, step.labels)

    def ours() -> Any:
        return jax.block_until_ready(gradient(*args))

    def torch_step() -> None:
        draws = [dsa.draw(step.strategy, segment.images) for _ in range(size.steps)]
        theirs.meta_gradient(segment, draws)
        peers.wait()

    def torch_bare() -> None:
        bare.meta(segment, size.steps, second_order=theirs is mtt)
        peers.wait()

    times = take_turns({"jdd": ours, "torch": torch_step, "torch bare": torch_bare}, bench.repeats)
    report_times(
        bench,
        name,
        size._asdict() | {"published_steps": published, "estimator": estimator},
        times,
        torch_over_bare=times.median("torch") / times.median("torch bare"),
        jdd_temporaries_mb=gradient.temporaries / 1e6,
        float64_difference=agreed,
        peer=peer,
    )


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluation(bench: Bench, peer: str, name: str) -> None:
    """Five fresh nets trained on a set of 10 images a class; 20 epochs of the published 1001."""
    size, epochs = EVALUATED[name], bench.few(EPOCHS, 2)
    step = meta_step.make(size)
    trained(
        bench,
        peer,
        f"evaluation-{name}-ipc10",
        size,
        Recipe(strategy=step.strategy, classes=size.classes),
        NETS,
        size.images,
        epochs,
        train_eval.compiled,
        ops_axis=False,
        extrapolate=PUBLISHED_EPOCHS / epochs,
    )


def test_experts(bench: Bench, peer: str) -> None:
    """An epoch of expert training: images a second over a group of nets."""
    size = Size("cifar10", bench.few(128, 32), 1)
    step = meta_step.make(size)
    recipe = Recipe(
        momentum=0.0, weight_decay=0.0, batch=BATCH, strategy=step.strategy, classes=size.classes
    )
    trained(
        bench,
        peer,
        "experts-cifar10",
        size,
        recipe,
        EXPERTS,
        bench.few(2, 1) * BATCH,
        1,
        _expert_trainer,
        ops_axis=True,
    )


def _expert_trainer(run: trainer.Fit, devices: tuple[jax.Device, ...]) -> tuple[Any, Any]:
    """Put the experts' ``advance`` in the form of the evaluation's: images and labels a net."""
    call = experts.advance(run, devices)

    def advance(carry: Any, own: Any, ops: Any, x: Any, y: Any, *rest: Any) -> Any:
        return call(carry, own, ops, x[0], y[0], *rest)

    return jax.jit(jax.vmap(run.init)), advance


def trained(
    bench: Bench,
    peer: str,
    name: str,
    size: Size,
    recipe: Recipe,
    nets: int,
    images: int,
    epochs: int,
    train: Callable[..., tuple[Any, Any]],
    ops_axis: bool,
    extrapolate: float | None = None,
) -> None:
    """Compare the training of ``nets`` fresh nets on ``images`` images for ``epochs`` epochs."""
    agreed = agreement.training(size, recipe, train, ops_axis)
    net = meta_step.net_of(size)
    run = trainer.make(net, recipe, images)
    init, advance = train(run, tuple(jax.devices()[:1]))
    x = jnp.asarray(meta_step.noise((images, *size.shape)))
    y = jnp.arange(images) % size.classes
    keys = jax.random.split(jax.random.key(0), nets)
    ops = keys[:1] if ops_axis else keys[0]
    many = tuple(jnp.broadcast_to(a, (nets, *a.shape)) for a in (x, y))
    steps = epochs * run.steps_per_epoch
    their_x, their_y = replay.images(x), replay.tensor(y).long()
    theirs = training.Recipe(
        0.01, recipe.momentum, recipe.weight_decay, recipe.batch, recipe.strategy
    )
    depth = (len(replay.weights(net.init(keys[0])["params"])) - 2) // 4

    def fresh() -> list[torch.Tensor]:
        return convnet.initial(size.shape, size.classes, size.width, depth, peers.device())

    def ours() -> None:
        jax.block_until_ready(advance(init(keys), keys, ops, *many, jnp.float32(0.01), 0, steps))

    def torch_nets() -> None:
        training.train_nets(fresh, nets, their_x, their_y, epochs, theirs)
        peers.wait()

    def torch_bare() -> None:
        bare.training(fresh(), their_x[: recipe.batch], their_y[: recipe.batch], nets * steps)
        peers.wait()

    times = take_turns({"jdd": ours, "torch": torch_nets, "torch bare": torch_bare}, bench.repeats)
    found: dict[str, Any] = {
        "torch_over_bare": times.median("torch") / times.median("torch bare"),
        "images_per_s": {
            side: nets * images * epochs / times.median(side) for side in ("jdd", "torch")
        },
    }
    if extrapolate:
        found["extrapolated_to_1001_epochs_s"] = {
            side: extrapolate * times.median(side) for side in ("jdd", "torch")
        }
    report_times(
        bench,
        name,
        {"dataset": size.dataset, "width": size.width, "nets": nets, "images": images}
        | {"epochs": epochs, "batch": recipe.batch},
        times,
        **found,
        float64_difference=agreed,
        peer=peer,
    )
