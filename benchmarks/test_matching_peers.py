"""Are the PyTorch peers of gradient and distribution matching right? By themselves, in float64.

python -m pytest benchmarks/test_matching_peers.py
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch", reason="the peers need PyTorch: pip install 'jdd[bench]'")

import torch

from benchmarks.peers import convnet, distribution_matching, dsa, gradient_matching
from benchmarks.peers.gradient_matching import Classes

CLASSES, IPC, REAL, SIDE = 2, 2, 3, 8
DRAWS = {
    "none": (),
    "color": (0.2, 1.3, 0.8),
    "crop": (1, -1),
    "cutout": (3, 5),
    "flip": (True,),
    "scale": (0.9, 1.1),
    "rotate": (0.2,),
}


def classes() -> Classes:
    """Return a small problem in float64, of a net with two blocks."""
    torch.manual_seed(0)
    weights = convnet.initial((SIDE, SIDE, 1), CLASSES, 4, 2, torch.device("cpu"))
    images = torch.randn(CLASSES * IPC, 1, SIDE, SIDE, dtype=torch.float64)
    real = torch.randn(CLASSES, REAL, 1, SIDE, SIDE, dtype=torch.float64)
    return Classes([w.detach().double() for w in weights], images, list(real))


def drawn(name: str) -> dsa.Draw:
    """Return an operation with parameters of one image."""
    found = (torch.tensor([value]) for value in DRAWS[name])
    return name, tuple(p.double() if p.is_floating_point() else p for p in found)


@pytest.mark.parametrize("theirs", (gradient_matching, distribution_matching))
@pytest.mark.parametrize("name", DRAWS)
def test_gradient_is_that_of_its_loss(theirs: ModuleType, name: str) -> None:
    given, draws = classes(), [drawn(name), drawn("none")]
    found = theirs.match(given, draws)
    assert found.images.shape == given.images.shape
    step = 1e-6
    for seed in range(3):
        torch.manual_seed(seed)
        way = torch.randn_like(given.images)
        up, down = (
            theirs.match(given._replace(images=given.images + sign * step * way), draws).loss
            for sign in (1, -1)
        )
        slope = float((up - down) / (2 * step))
        assert float((found.images * way).sum()) == pytest.approx(slope, rel=1e-6)


def test_distance_is_the_papers() -> None:
    draw = np.random.default_rng(0)
    shapes = ((4, 1, 3, 3), (4, 4, 3, 3), (2, 16))
    a, b = ([draw.standard_normal(shape) for shape in shapes] for _ in range(2))
    expected = 0.0
    for x, y in zip(a, b, strict=True):
        for u, v in zip(x, y, strict=True):  # an output unit each
            lengths = np.sqrt((u * u).sum()) * np.sqrt((v * v).sum())
            expected += 1 - (u * v).sum() / (lengths + 1e-6)
    tensors = ([torch.from_numpy(x) for x in values] for values in (a, b))
    assert float(gradient_matching.distance(*tensors)) == pytest.approx(expected, rel=1e-12)


def test_losses_are_sums_over_classes() -> None:
    given, draws = classes(), [drawn("none"), drawn("rotate")]
    for theirs in (gradient_matching, distribution_matching):
        whole = theirs.match(given, draws)
        if theirs is distribution_matching:
            means = [
                convnet.features(given.weights, dsa.apply(gradient_matching.alike(d, x), x)).mean(0)
                for d, x in zip(draws * 2, [*given.real, *given.images.split(IPC)], strict=True)
            ]
            expected = sum(float((means[c] - means[2 + c]).square().sum()) for c in range(2))
            assert float(whole.loss) == pytest.approx(expected, rel=1e-12)
        # A class's gradient is its own: another's real images do not change it.
        other = theirs.match(given._replace(real=[given.real[0], given.real[1] + 1]), draws)
        torch.testing.assert_close(other.images[:IPC], whole.images[:IPC], rtol=1e-12, atol=1e-14)
        assert not torch.allclose(other.images[IPC:], whole.images[IPC:])


def test_a_class_is_augmented_alike() -> None:
    x = torch.randn(1, 1, SIDE, SIDE, dtype=torch.float64).expand(3, -1, -1, -1)
    for name in DRAWS:
        y = dsa.apply(gradient_matching.alike(drawn(name), x), x)
        torch.testing.assert_close(y[1:], y[:1].expand(2, -1, -1, -1))
        assert name == "none" or not torch.allclose(y, x)
