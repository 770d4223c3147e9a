"""The schema for evaluating a saved set: its method's keys and their effect on its recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdd import config as configs
from jdd import specs
from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.schema.common import Common
from jdd.schema.key import checked, unknown
from jdd.specs import Spec
from jdd.specs.base import STAGES
from jdd.storage import json_files

# Keys for training students on stored labels, with their entries in ``recipe["train"]``.
_LEARNING = {
    "post.optimizer": "optimizer",
    "post.momentum": "momentum",
    "post.weight_decay": "weight_decay",
    "post.decay": "decay",
    "post.loss": "loss",
    "post.temperature": "temperature",
    "post.ce_weight": "ce_weight",
    "post.accumulate": "parts",
    "post.irg_edges": "irg_edges",
    "post.irg_transformations": "irg_transformations",
    "post.irg_vertices": "irg_vertices",
    "post.ref_bugs": "irg_half",
    "post.stretch": "schedule.stretch",
    "post.warmup": "schedule.warmup",
}
# Keys of the labels themselves, with their entries in ``recipe["labels"]``.
_LABELS = {"relabel.mode": "mode", "relabel.form": "form", "relabel.k": "k"}


def of_set(dset: AnyProduct, own: Spec | None, directory: Path) -> Spec:
    """Return the spec that defines the keys of a set's evaluation.

    This is the spec of the set's method without its published settings: an evaluation does not
    guess how a set was made. MTT's evaluations include the settings, for compatibility. A directory
    that already contains an evaluation keeps its schema.

    Args:
      own: the spec of the named config file; used if the set is of its method, or of no method.
      directory: the working directory of the evaluation.
    """
    begun = _begun(directory)
    method = str(dset.recipe.get("method") or "") if begun is None else begun
    if own is not None and method in ("", own.name) and begun is None:
        spec = own
    elif method in specs.names():
        spec = specs.get(method)
    elif own is not None and own.name == method:
        spec = own
    else:
        spec = Spec(name=method, make="", config=Common)
    if spec.name == "mtt":
        return spec
    # Nets are trained and compared, whichever stages made the set.
    bare: dict[str, Any] = {name: {} for name in ("defaults", "published", "starts", "derived")}
    return dataclasses.replace(spec, stages=STAGES, validate=None, validate_data=None, **bare)


def _begun(directory: Path) -> str | None:
    """Return the method of the evaluation in a directory; None if there is none."""
    found = json_files.recall(directory / "config.json") or {}
    return str(found["method"]) if "method" in found else None


def typed(
    loaded: configs.Loaded, spec: Spec, dset: DistilledSet, directory: Path
) -> dict[str, Any]:
    """Return the values given for keys that only the set's method has, by dotted name.

    Values from a config file of another method are omitted.

    Raises:
      BadInput: the method has no such key; other methods that have it are named.
    """
    other = loaded.spec is not None and loaded.config.method != spec.name
    found: dict[str, Any] = {}
    for name, value in loaded.apart.items():
        if name in spec.keys:
            found[name] = checked(name, value, spec.keys)
        elif not (other and name in loaded.config.spec.keys):
            raise _unknown(name, spec, dset, directory)
    return {name: value for name, value in found.items() if value != configs.AUTO}


def _unknown(name: str, spec: Spec, dset: DistilledSet, directory: Path) -> BadInput:
    having = [specs.get(method).title for method in specs.names() if name in specs.get(method).keys]
    if not having:
        return unknown(name, spec.keys)
    made_by = str(dset.recipe.get("method") or "")
    if made_by in specs.names() and name in specs.get(made_by).keys:
        found = f"no key of the evaluation that {directory} holds, begun with {spec.title}'s keys"
        return BadInput(f"config.{name}", found, "give --workdir=OTHER")
    found = (
        f"no key of {specs.title(made_by)}, which made the set"
        if made_by
        else ("not a key that every method has, and the set names no method")
    )
    allowed = f"leave it out (methods that have it: {', '.join(having)})"
    return BadInput(f"config.{name}", found, allowed)


def learning(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the training keys of a set with stored labels, by dotted name."""
    found = {}
    for table, section in ((_LEARNING, "train"), (_LABELS, "labels")):
        for key, entry in table.items():
            at: Any = recipe[section]
            for part in entry.split("."):
                at = (at or {}).get(part)
            if at is not None:
                found[key] = at
    return found


def retrained(dset: DistilledSet, given: Mapping[str, Any]) -> DistilledSet:
    """Return the set with the ``given`` training keys in its recipe."""
    train = dict(dset.recipe["train"])
    for key, entry in _LEARNING.items():
        if key in given and dset.recipe["train"]["order"] == "stored":
            group, _, leaf = entry.rpartition(".")
            if group:
                train[group] = {**(train.get(group) or {}), leaf: given[key]}
            else:
                train[leaf] = given[key]
    return dset._replace(recipe={**dset.recipe, "train": train})
