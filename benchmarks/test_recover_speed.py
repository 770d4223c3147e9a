"""How fast are images recovered from a trained net (SRe2L's step) next to PyTorch, in what memory?

    python -m pytest benchmarks/test_recover_speed.py -s               # -k resnet: one net
    python -m pytest benchmarks/test_recover_speed.py -s --quick       # does it run?

CIFAR-100's shape and its settings (a shift of the images, no crop). A step is forward and backward
through the fixed net, Adam and clip. As in ``test_speed.py`` both sides run in one process, in
turns, and only after their gradients were found equal. jdd has a batch a core in work on a CPU, as
its runs do; PyTorch takes the same batches one after another, each on all cores. On a GPU there is
one batch, and PyTorch is timed in both of its layouts of images.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch", reason="the speed benchmarks need PyTorch: pip install 'jdd[bench]'")

import jax
import torch

from benchmarks import agreement, peers, recover_step, replay
from benchmarks.peers import bare, frozen, recover
from benchmarks.recover_step import Size
from benchmarks.test_memory import process
from benchmarks.timing import Bench, report, report_times, take_turns

pytestmark = pytest.mark.slow

SIZES = {
    "convnet": Size("ConvNetBN", 64, 100),
    "resnet": Size("ResNet18BN", 64, 20),
    "resnet-narrow": Size("ResNet18BN", 32, 100),
}
if torch.cuda.is_available():  # as many as a run has; a second and more for a step of 2 CPU cores
    SIZES["resnet-whole"] = Size("ResNet18BN", 64, 100)


@pytest.fixture(autouse=True)
def peer(bench: Bench) -> str:
    """How PyTorch is set up."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bench.tf32
    return peers.prepare() + ", few heaps (jdd's)"


def sized(bench: Bench, name: str) -> Size:
    """Return a step's size."""
    size = SIZES[name]
    return size._replace(width=bench.few(size.width, 8), batch=bench.few(size.batch, 10))


def stepper(
    net: frozen.Net, batches: list[recover.Batch], recipe: recover.Recipe
) -> Callable[[], None]:
    """Return PyTorch's step of all batches."""
    movers = [recover.ImageAdam(batch.images, recipe) for batch in batches]
    h, w = batches[0].images.shape[2:]

    def run() -> None:
        for batch, mover in zip(batches, movers, strict=True):
            now = batch._replace(images=mover.images, view=recover.draw(recipe, h, w))
            mover.step(recover.match(net, now, recipe).images)
        peers.wait()

    return run


@pytest.mark.parametrize("name", SIZES)
def test_recover_step(bench: Bench, peer: str, name: str) -> None:
    """A step of all batches in work: gradient, update, clip; images a second."""
    size = sized(bench, name)
    agreed = agreement.recovery(size)
    step = recover_step.make(size)
    net, batches, recipe = replay.recovered(step)

    def ours() -> None:
        jax.block_until_ready(step.run())

    def torch_bare() -> None:
        for batch in batches:
            bare.recovery(net, batch)
        peers.wait()

    sides = {"jdd": ours, "torch": stepper(net, batches, recipe)}
    if torch.cuda.is_available():
        plain = [batch._replace(images=batch.images.contiguous()) for batch in batches]
        sides["torch nchw"] = stepper(frozen.contiguous(net), plain, recipe)
    times = take_turns(sides | {"torch bare": torch_bare}, bench.repeats)
    images = size.batch * len(batches)
    report_times(
        bench,
        f"recover_step-{name}",
        size._asdict() | {"batches": len(batches)},
        times,
        images_per_s={side: images / times.median(side) for side in ("jdd", "torch")},
        torch_over_bare=times.median("torch") / times.median("torch bare"),
        jdd_temporaries_mb=step.gradient.temporaries / 1e6,
        difference=agreed,
        peer=peer,
    )


@pytest.mark.parametrize("name", SIZES)
def test_process(bench: Bench, name: str) -> None:
    """The most resident memory of a process over what it held before the step."""
    size = sized(bench, name)
    words = {"method": "sre2l", "net": size.net, "width": size.width, "batch": size.batch}
    flags = [f"--{key}={value}" for key, value in words.items()]
    found = {side: process([side, *flags]) for side in ("jdd", "torch")}
    over = {side: values["most"] - values["idle"] for side, values in found.items()}
    print(f"\nprocess memory over idle, {size.net}, width {size.width}, batches of {size.batch}")
    for side, values in found.items():
        told = ", ".join(f"{word} {count / 1e6:.0f} MB" for word, count in values.items())
        print(f"  {side:6}{over[side] / 1e6:8.0f} MB   ({told})")
    print(f"  jdd / torch: {over['jdd'] / over['torch']:.2f}")
    report(
        bench,
        f"recover_memory-{name}",
        size._asdict(),
        bytes=found,
        over_idle_bytes=over,
        ratio_jdd_over_torch=over["jdd"] / over["torch"],
    )
