"""DM's step: the mean features of real and of synthetic images under one net, class by class.

    L = sum_c || mean_{x in R_c} psi(A_c(x)) - mean_{s in S_c} psi(A_c(s)) ||^2;   dL/dS

psi is what the net's linear layer reads, the net fresh in every step and never trained. Real images
need no graph; the synthetic ones of all classes go through the net together.

Source: Zhao & Bilen, WACV 2023, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.peers import convnet, dsa
from benchmarks.peers.gradient_matching import Classes, Gradient, alike


def match(classes: Classes, draws: Sequence[dsa.Draw]) -> Gradient:
    """Return loss and gradient of a step; ``draws`` holds a class's draw, of one image, each."""
    weights = [w.detach() for w in classes.weights]
    with torch.no_grad():
        means = [
            convnet.features(weights, dsa.apply(alike(drawn, x), x)).mean(0)
            for drawn, x in zip(draws, classes.real, strict=True)
        ]
    images = classes.images.detach().requires_grad_()
    own = [
        dsa.apply(alike(drawn, x), x)
        for drawn, x in zip(draws, images.split(classes.ipc), strict=True)
    ]
    found = convnet.features(weights, torch.cat(own)).unflatten(0, (-1, classes.ipc)).mean(1)
    loss = (torch.stack(means) - found).square().sum()
    return Gradient(loss.detach(), torch.autograd.grad(loss, images)[0])
