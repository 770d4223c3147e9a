"""What the nets of an evaluation start from: fresh weights, one fixed draw, or trained nets."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdd import rng
from jdd.distilled import DistilledSet
from jdd.errors import BadInput
from jdd.nets import Net

Tree = Any


def starts(work: Any, dset: DistilledSet, net: Net) -> Tree:
    """Return stacked variables that ``net`` starts from, as the set's recipe says; None for fresh.

    ``recipe["train"]["init"]`` is ``{"kind": "fresh"}``, ``{"kind": "fixed", "seed", "purpose"}``,
    one draw that is a function of both, or ``{"kind": "experts", "experts", "epoch"}``, snapshots
    of the run's expert store. Nets other than the set's own always start fresh.

    Raises:
      BadInput: an unknown kind, or the experts are not there.
    """
    init = dset.recipe["train"].get("init") or {"kind": "fresh"}
    if init["kind"] == "fresh" or net is not work.net:
        return None
    if init["kind"] == "fixed":
        drawn = net.init(rng.key(int(init["seed"]), str(init["purpose"])))
        return jax.tree.map(lambda a: np.asarray(a)[None], drawn)
    if init["kind"] != "experts":
        raise BadInput("the set's recipe", f"init {init['kind']!r}", "fresh, fixed or experts")
    missing = [e for e in init["experts"] if work.store.epochs(e // work.store.group) < 0]
    if missing:
        found = f"no experts in {work.store.directory}"
        raise BadInput("the set was made for trained nets", found, "evaluate it in its own run")
    trees = [work.store.read(int(expert), int(init["epoch"])) for expert in init["experts"]]
    return jax.tree.map(lambda *a: np.stack(a), *trees)


def kinds(start: Tree, n: int) -> int:
    """Return how many of ``n`` nets differ: a net that starts alike ends alike, step for step."""
    return n if start is None else min(n, len(jax.tree.leaves(start)[0]))
