"""Options of the benchmarks, and the settings that both sides of a comparison share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Both frameworks share the GPU: neither may take all of it at the start.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import pytest

from benchmarks.timing import HERE, Bench


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("jdd benchmarks")
    group.addoption("--repeats", type=int, default=5, help="timed calls of each side")
    group.addoption("--quick", action="store_true", help="small sizes: does it run at all?")
    group.addoption("--json", type=Path, default=HERE / "results", help="folder of the results")
    group.addoption("--tf32", action="store_true", help="on a GPU: TF32 products on both sides")


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The run's options, with float32 products (or TF32 ones) set alike on both sides."""
    options = request.config.getoption
    tf32 = options("--tf32") and jax.default_backend() == "gpu"
    found = Bench(options("--repeats"), options("--quick"), options("--json"), tf32)
    with jax.default_matmul_precision("tensorfloat32" if tf32 else "highest"):
        yield found
