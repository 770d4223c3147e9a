"""How much memory does one MTT step plan, against plain reverse mode, and how does it grow?

    python -m pytest benchmarks/test_memory.py -s

XLA's own analysis of the compiled programs: nothing is run, the figures do not depend on noise.
"""

from __future__ import annotations

import jax
import pytest

from benchmarks.meta_step import meta_gradient
from jdd.parallel import temporaries


def planned(how: str, steps: int) -> int:
    """Return XLA's temporaries in bytes for one step, ConvNet D3 W128, IPC 1."""
    step, args = meta_gradient(how, steps)
    return temporaries(step.lower(*args).compile())


@pytest.mark.slow
def test_mixed_mode_is_flat() -> None:
    """Issue's measure: a tenth of plain reverse at N = 50; a step more costs at most 3 |theta|."""
    theta = 4 * sum(x.size for x in jax.tree.leaves(meta_gradient("mixed", 1)[1][2]))
    mixed, longer, plain = planned("mixed", 50), planned("mixed", 100), planned("reverse", 50)
    growth = (longer - mixed) / 50
    print(
        f"\nN = 50: mixed {mixed / 1e6:.0f} MB, reverse {plain / 1e6:.0f} MB, ratio "
        f"{plain / mixed:.1f}; a step more: {growth / theta:.2f} times the parameters' "
        f"{theta / 1e6:.2f} MB"
    )
    assert mixed <= plain / 10
    assert growth <= 3 * theta
