"""Small distilled sets for the tests of the product: made up, quick, of every kind."""

from __future__ import annotations

import numpy as np

from jdd.data import transform as transforms
from jdd.data.transform import (
    fit_frepo_zca,
    fit_kip_zca,
    fit_zca,
    normalisation,
    whitening,
    whitening_kind,
)
from jdd.product.distilled_set import DistilledSet, make_recipe

NAMES = ("ant", "bee/wasp", "crow")


def make(
    ipc: int = 2,
    shape: tuple[int, int, int] = (4, 4, 3),
    names: tuple[str, ...] = NAMES,
    kind: str = "hard",
    zca: bool | str = False,
    lr: float | None = 0.0213,
    dataset: str = "insects",
) -> DistilledSet:
    """Return a set of smooth random pictures, ``ipc`` for each of ``names``."""
    draw, classes = np.random.default_rng(0), len(names)
    pixels = draw.uniform(0.1, 0.9, (classes * ipc, *shape)).astype(np.float32)
    white = whitening_kind(zca)
    if white != "none":
        real = draw.uniform(0, 1, (200, *shape)).astype(np.float32)
        if white == "kornia":
            transform = whitening(*fit_zca(real), shape[-1])
        elif white == "frepo":
            first = normalisation(np.full(shape[-1], 0.4), np.linspace(0.2, 0.3, shape[-1]))
            fitted = fit_frepo_zca(real, 1.0, first)
            transform = whitening(*fitted, shape[-1], first=first)
        else:
            mean, matrix, inverse, image = fit_kip_zca(real)
            transform = whitening(mean, matrix, inverse, shape[-1], image)
    else:
        transform = normalisation(np.full(shape[-1], 0.4), np.linspace(0.2, 0.3, shape[-1]))
    labels = np.repeat(np.arange(classes), ipc)
    if kind != "hard":
        labels = np.eye(classes)[labels] * 0.8 + 0.2 / classes
    recipe = make_recipe(
        method="mtt",
        dataset=dataset,
        class_names=names,
        ipc=ipc,
        steps=50,
        train={"lr": 0.0213},
        normalisation={"mean": transform.mean, "std": transform.std},
        whitening=transforms.NAMES[white],
        command="python -m jdd.main --config=configs/mtt.py",
    )
    return DistilledSet(transform.forward(pixels), labels, kind, lr, recipe, transform)
