"""Datasets: reading images, splitting, normalising and sampling them."""

from __future__ import annotations

from jdd.data.catalogue import CATALOGUE, Facts, lookup
from jdd.data.dataset import Dataset, Split, load, load_raw
from jdd.data.placeholder import absent, placeholder
from jdd.data.relabel import class_of, relabelled
from jdd.data.rows import Rows
from jdd.data.sampler import class_indices, draw_per_class, lacking, validate_ipc
from jdd.data.source_domain import origin
from jdd.data.sources.request import DEFAULTS, SOURCES, source_of
from jdd.data.streamed import Streamed
from jdd.data.transform import (
    Transform,
    fit_frepo_zca,
    fit_kip_zca,
    fit_zca,
    normalisation,
    whitening,
)

__all__ = [
    "DEFAULTS",
    "CATALOGUE",
    "SOURCES",
    "Dataset",
    "Facts",
    "Rows",
    "Split",
    "Streamed",
    "Transform",
    "absent",
    "class_indices",
    "class_of",
    "draw_per_class",
    "fit_frepo_zca",
    "fit_kip_zca",
    "fit_zca",
    "lacking",
    "load",
    "load_raw",
    "lookup",
    "normalisation",
    "origin",
    "placeholder",
    "relabelled",
    "source_of",
    "validate_ipc",
    "whitening",
]
