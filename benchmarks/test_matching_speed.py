"""How fast is a step of DC, DSA and DM next to PyTorch, and what memory does it take?

    python -m pytest benchmarks/test_matching_speed.py -s              # -k dc: one method
    python -m pytest benchmarks/test_matching_speed.py -s --quick      # does it run?

MNIST's shape (the images are noise), ten classes of 256 real images, ConvNet D3 W128. As in
``test_speed.py`` both sides run in one process, in turns, and only after their gradients were found
equal; memory is measured in a process of its own for each side. FRePo has no peer: its step is
timed alone, at three sizes of the set.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch", reason="the speed benchmarks need PyTorch: pip install 'jdd[bench]'")

import jax
import torch

from benchmarks import agreement, matching_step, peers, replay
from benchmarks.matching_step import Size
from benchmarks.peers import bare, convnet, distribution_matching, gradient_matching, training
from benchmarks.peers import dsa as peer_dsa
from benchmarks.peers.gradient_matching import Classes, ImageSGD
from benchmarks.test_memory import process
from benchmarks.timing import Bench, report, report_times, take_turns

pytestmark = pytest.mark.slow

DEPTH = 3


class Peer(NamedTuple):
    """A method's counterpart and what it cannot do without."""

    module: ModuleType
    bare: Any


PEERS = {
    "dc": Peer(gradient_matching, bare.gradient_matching),
    "dsa": Peer(gradient_matching, bare.gradient_matching),
    "dm": Peer(distribution_matching, bare.distribution_matching),
}
IPCS = (1, 10)
FREPO_IPCS = (1, 10, 50)


@pytest.fixture(autouse=True)
def peer(bench: Bench) -> str:
    """How PyTorch is set up."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bench.tf32
    return peers.prepare().replace("channels_last", "NCHW") + ", few heaps (jdd's)"


def sized(bench: Bench, ipc: int) -> Size:
    """Return a step's size."""
    return Size("mnist", bench.few(128, 16), ipc, bench.few(256, 16))


def drawn(strategy: str, classes: Classes) -> list[peer_dsa.Draw]:
    """Draw each class's augmentation."""
    return [gradient_matching.siamese(strategy, real) for real in classes.real]


@pytest.mark.parametrize("ipc", IPCS)
@pytest.mark.parametrize("method", PEERS)
def test_matching_step(bench: Bench, peer: str, method: str, ipc: int) -> None:
    """The loss of a step and its gradient in the images, without the update."""
    size, theirs = sized(bench, ipc), PEERS[method]
    agreed = agreement.matching(method, size, theirs.module)
    step = matching_step.make(method, size)
    classes, _ = replay.classes(step)

    def ours() -> None:
        jax.block_until_ready(step.gradient(step.carry, step.batch))

    def torch_step() -> None:
        theirs.module.match(classes, drawn(step.strategy, classes))
        peers.wait()

    def torch_bare() -> None:
        theirs.bare(classes)
        peers.wait()

    times = take_turns({"jdd": ours, "torch": torch_step, "torch bare": torch_bare}, bench.repeats)
    report_times(
        bench,
        f"matching_step-{method}-ipc{ipc}",
        size._asdict() | {"method": method},
        times,
        torch_over_bare=times.median("torch") / times.median("torch bare"),
        jdd_temporaries_mb=step.gradient.temporaries / 1e6,
        difference=agreed,
        peer=peer,
    )


@pytest.mark.parametrize("method", ("dc", "dsa"))
def test_outer_step(bench: Bench, peer: str, method: str) -> None:
    """All of a step at IPC 10: gradient, update of the images, 50 epochs of the net on them."""
    size = sized(bench, 10)
    step = matching_step.make(method, size, inner_epochs=bench.few(50, 2))
    config, (classes, _) = step.config, replay.classes(step)
    optimizer = ImageSGD(classes.images, float(config.lr_img), float(config.img_momentum))
    labels = torch.arange(len(classes.real), device=peers.device()).repeat_interleave(size.ipc)
    recipe = training.Recipe(
        float(config.lr_net), 0.0, 0.0, int(config.batch_net), step.strategy or "none"
    )

    def ours() -> None:
        jax.block_until_ready(step.run())

    def torch_step() -> None:
        now = classes._replace(images=optimizer.images)
        optimizer.step(gradient_matching.match(now, drawn(step.strategy, now)).images)
        theta = [w.detach().clone().requires_grad_() for w in classes.weights]
        training.train(theta, optimizer.images, labels, int(config.inner_epochs), recipe)
        peers.wait()

    times = take_turns({"jdd": ours, "torch": torch_step}, bench.repeats)
    settings = {"method": method, "inner_epochs": int(config.inner_epochs)}
    name = f"outer_step-{method}-ipc{size.ipc}"
    report_times(bench, name, size._asdict() | settings, times, peer=peer)


def test_fresh_net(bench: Bench, peer: str) -> None:
    """A step's fresh net, which no other figure holds: DM and, at IPC 1, DC draw one each."""
    size = sized(bench, 1)
    step = matching_step.make("dm", size)
    advance, shape = jax.jit(step.method.advance), matching_step.known(size.dataset).shape

    def ours() -> None:
        jax.block_until_ready(advance(step.carry.state, jax.random.key(0)))

    def torch_net() -> None:
        convnet.initial(shape, 10, size.width, DEPTH, peers.device())
        peers.wait()

    times = take_turns({"jdd": ours, "torch": torch_net}, bench.repeats)
    report_times(bench, "fresh_net", size._asdict(), times, peer=peer)


@pytest.mark.parametrize("ipc", IPCS)
@pytest.mark.parametrize("method", PEERS)
def test_process(bench: Bench, method: str, ipc: int) -> None:
    """The most resident memory of a process over what it held before the step; half is wanted."""
    size = sized(bench, ipc)
    flags = [f"--method={method}", f"--ipc={ipc}", f"--width={size.width}", f"--real={size.real}"]
    found = {side: process([side, *flags]) for side in ("jdd", "torch")}
    over = {side: values["most"] - values["idle"] for side, values in found.items()}
    print(f"\nprocess memory over idle, {method}, IPC {ipc}, width {size.width}")
    for side, values in found.items():
        told = ", ".join(f"{name} {count / 1e6:.0f} MB" for name, count in values.items())
        print(f"  {side:6}{over[side] / 1e6:8.0f} MB   ({told})")
    print(f"  jdd / torch: {over['jdd'] / over['torch']:.2f}")
    report(
        bench,
        f"matching_memory-{method}-ipc{ipc}",
        size._asdict() | {"method": method},
        bytes=found,
        over_idle_bytes=over,
        ratio_jdd_over_torch=over["jdd"] / over["torch"],
    )


@pytest.mark.parametrize("ipc", FREPO_IPCS)
def test_frepo_step(bench: Bench, ipc: int) -> None:
    """FRePo's whole step (gradient, update, the pool's training), CIFAR-10's shape, its own net."""
    size = Size("cifar10", bench.few(128, 8), ipc, bench.few(1024, 32))
    step = matching_step.make("frepo", size)

    def gradient() -> Any:
        return jax.block_until_ready(step.gradient(step.carry, step.batch))

    result = gradient()

    def update() -> None:
        jax.block_until_ready(step.update(step.carry, result, True))

    def whole() -> None:
        jax.block_until_ready(step.run())

    sides = {"jdd": whole, "gradient": gradient, "update, pool": update}
    times = take_turns(sides, bench.repeats)
    report_times(
        bench,
        f"frepo_step-{10 * ipc}",
        size._asdict() | {"synthetic images": 10 * ipc, "net": step.config.net.name},
        times,
        jdd_temporaries_mb=step.gradient.temporaries / 1e6,
    )
