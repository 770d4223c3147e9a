"""Herding: real images whose mean feature approximates their class's (Welling 2009, iCaRL)."""

from __future__ import annotations

import dataclasses

from jdd.specs import random
from jdd.specs.base import STAGES

_AP = "Herding, as AutoPalette's Table 1 quotes it; whether with DSA it does not say"
_OLD = "Herding, quoted from memory and not checked"

PUBLISHED = {
    ("cifar10", 1): random.row(0.215, 0.013, _AP),
    ("cifar10", 10): random.row(0.316, 0.007, _AP),
    ("cifar10", 50): random.row(0.404, 0.006, _AP),
    ("cifar100", 1): random.row(0.084, 0.003, _AP),
    ("cifar100", 10): random.row(0.173, 0.003, _AP),
    ("cifar100", 50): random.row(0.337, 0.005, _AP),
    ("tiny_imagenet", 1): random.row(0.028, 0.002, _OLD),
    ("tiny_imagenet", 10): random.row(0.063, 0.002, _OLD),
    ("tiny_imagenet", 50): random.row(0.167, 0.003, _OLD),
    ("mnist", 1): random.row(0.892, 0.016, _OLD),
    ("mnist", 10): random.row(0.937, 0.003, _OLD),
    ("mnist", 50): random.row(0.948, 0.002, _OLD),
    ("fashion_mnist", 1): random.row(0.670, 0.019, _OLD),
    ("fashion_mnist", 10): random.row(0.711, 0.007, _OLD),
    ("fashion_mnist", 50): random.row(0.719, 0.008, _OLD),
    ("svhn", 1): random.row(0.209, 0.013, _OLD),
    ("svhn", 10): random.row(0.505, 0.033, _OLD),
    ("svhn", 50): random.row(0.726, 0.008, _OLD),
}


SPEC = dataclasses.replace(
    random.SPEC,
    name="herding",
    make="jdd.methods.herding:make",
    title="Herding",
    published=PUBLISHED,
    stages=STAGES,
)
