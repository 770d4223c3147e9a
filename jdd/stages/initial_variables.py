"""Initial variables of an evaluation's nets: fresh weights, one fixed draw, or trained nets."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdd import rng, tasks
from jdd.errors import BadInput
from jdd.nets import Net
from jdd.product.files import AnyProduct
from jdd.run.context import RunContext

Tree = Any


def initial_variables(context: RunContext, dset: AnyProduct, net: Net) -> Tree:
    """Return the stacked initial variables of ``net`` by the set's recipe; None for fresh weights.

    ``recipe["train"]["init"]`` is ``{"kind": "fresh"}``, ``{"kind": "fixed", "seed", "purpose"}``,
    one draw that is a function of both, or ``{"kind": "experts", "experts", "epoch"}``, snapshots
    of an expert store, whose settings are ``"store"`` (by default the run's own). Nets other than
    the set's own always start fresh.

    Raises:
      BadInput: the experts are missing, or the set is for its own net alone.
    """
    init = dset.recipe["train"].get("init") or {"kind": "fresh"}
    if net is not context.net:
        _validate_net(dset, net, context.net)
    if init["kind"] == "fresh" or net is not context.net:
        return None
    if init["kind"] == "fixed":
        drawn = net.init(rng.key(int(init["seed"]), str(init["purpose"])))
        return jax.tree.map(lambda a: np.asarray(a)[None], drawn)
    store = context.store_of(init["store"]) if "store" in init else context.store
    missing = [e for e in init["experts"] if store.epochs(e // store.group) < int(init["epoch"])]
    if missing:
        found = f"{len(missing)} of its {len(init['experts'])} are not in {store.directory}"
        allowed = "give --config.experts.dir=..., the experts/ of the run that made it"
        allowed += "; in that run --mode=experts trains them again"
        raise BadInput("the set was made for trained nets", found, allowed)
    trees = [store.read(int(expert), int(init["epoch"])) for expert in init["experts"]]
    return jax.tree.map(lambda *a: np.stack(a), *trees)


def _validate_net(dset: AnyProduct, net: Net, own: Net) -> None:
    kind = tasks.objective(dset.recipe)["kind"]
    if kind != "distill":
        found = f"{net.name}, and the set is to {kind} trained nets"
        raise BadInput("config.nets", found, f"{own.name} alone: no other is trained")


def distinct_nets(start: Tree, n: int) -> int:
    """Return min(n, number of initial states): identical initial states train to identical nets."""
    return n if start is None else min(n, len(jax.tree.leaves(start)[0]))
