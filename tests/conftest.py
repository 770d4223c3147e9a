"""Strict JAX on four simulated devices, and one tiny problem that the whole suite shares."""

from __future__ import annotations

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests build the same programs again and again from new closures. One cache of compiled programs
# serves the whole run: pytest's workers and the processes that tests start inherit these variables.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.get(
    "JAX_COMPILATION_CACHE_DIR"
) or tempfile.mkdtemp(prefix="jdd-xla-")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

CLASSES, SHAPE = 3, (8, 8, 3)

# Keys that make a run tiny; a test changes what it is about.
TINY: dict[str, Any] = {
    "data.name": "toy",
    "ipc": 1,
    "steps": 6,
    "net.width": 4,
    "net.depth": 2,
    "experts.count": 2,
    "experts.group": 2,
    "experts.batch": 16,
    "experts.lr": 0.1,
    "syn_steps": 3,
    "expert_epochs": 1,
    "max_start_epoch": 2,
    "lr_img": 10.0,
    "lr_lr": 1e-4,
    "lr_student": 0.05,
    "eval.epochs": 20,
    "eval.n": 2,
    "eval.curve": 1,
    "eval.curve_n": 2,
    "baselines.random": 2,
    "baselines.full_epochs": 1,
    "checkpoint_every": 2,
    "log_every": 1,
    "devices": 1,
    "progress": False,
}


def toy_images(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images of three classes that differ in where they are bright."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    images = draw.normal(90, 25, (n, *SHAPE))
    for c in range(CLASSES):
        images[labels == c, c * 2 : c * 2 + 3, c : c + 4, c] += 90
    return images.clip(0, 255).astype(np.uint8), labels


def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete the compiled programs, unless a person named their folder."""
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    if not hasattr(config, "workerinput") and cache.name.startswith("jdd-xla-"):
        shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded datasets and baselines of tests out of the person's cache."""
    os.environ["JDD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dataset as .npz: 60 training and 30 test images."""
    path = tmp_path_factory.mktemp("toy") / "toy.npz"
    x, y = toy_images(60, 0)
    x_test, y_test = toy_images(30, 1)
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture(scope="session")
def tiny(toy: Path) -> dict[str, Any]:
    """The tiny run's keys, with its data."""
    return {**TINY, "data.path": str(toy)}
