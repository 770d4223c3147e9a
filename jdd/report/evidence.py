"""Reads the files of a working directory for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd.data.catalogue import lookup
from jdd.errors import BadInput
from jdd.product import files
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.pairs import PairSet
from jdd.run import metric_lines, metrics
from jdd.storage import json_files


class Score(NamedTuple):
    """Accuracies of several nets, as fractions; ``values`` may be unknown."""

    mean: float
    std: float | None
    n: int | None
    values: tuple[float, ...] = ()
    seeds: tuple[tuple[str, Score], ...] = ()
    about: Mapping[str, Any] = {}


class Evidence(NamedTuple):
    """All data of the report; ``missing`` are sentences on absent data.

    ``labels`` are the settings of the stored labels of the set's views, empty if there are none.
    """

    workdir: Path
    dataset: DistilledSet | None
    rows: list[dict[str, Any]]
    result: dict[str, Any]
    config: dict[str, Any]
    missing: tuple[str, ...]
    labels: dict[str, Any] = {}
    product: AnyProduct | None = None  # ``dataset``, pairs or a generator
    unfinished: bool = False  # ``product`` is a set that is still being made

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of the set, empty if there is none."""
        return self.product.recipe if self.product else {}

    def known(self, name: str) -> str:
        """Return a fact of the run (method, dataset, ipc, seed) from the first file that has it."""
        data = mapping(self.config, "data")
        facts: tuple[Any, ...] = (
            self.result.get(name),
            self.recipe.get(name),
            data.get("name") if name == "dataset" else self.config.get(name),
        )
        if name == "method" and (self.result or self.dataset):  # a foreign set has none
            facts = facts[:2]
        found = next((f for f in facts if isinstance(f, str | int) and f != ""), "")
        return str(found)

    @property
    def retrieval(self) -> bool:
        """Whether the product is pairs, whose nets are tested by recall."""
        return self.result.get("task") == "retrieval" or isinstance(self.product, PairSet)

    @property
    def metric(self) -> str:
        """The measured quantity in one word: accuracy, or recall of pairs."""
        return "recall" if self.retrieval else "accuracy"

    @property
    def examples(self) -> str:
        """What the set consists of: images, or pairs."""
        return "pairs" if self.retrieval else "images"

    @property
    def chance(self) -> Mapping[str, Any]:
        """The recalls of a random ranking by metric; empty if unknown."""
        return mapping(self.result, "chance")

    @property
    def chosen(self) -> bool:
        """Whether the images are selected real images and nothing was distilled."""
        return bool(self.recipe.get("selected"))

    @property
    def stored(self) -> bool:
        """Whether views and their labels are in a folder next to the set."""
        return mapping(self.recipe, "labels").get("kind") == "stored"

    @property
    def teacher_labelled(self) -> bool:
        """Whether nets learn the teachers' labels of the views."""
        return self.stored and mapping(self.recipe, "train").get("loss") != "hard"

    @property
    def teachers(self) -> dict[str, float | None]:
        """Test accuracy of each teacher that labelled the views, None where unknown."""
        listed = mapping(self.recipe, "labels").get("teachers")
        names = listed if isinstance(listed, list) else []
        known = mapping(self.result, "teachers")
        return {str(name): real(known.get(name)) for name in names or known}

    @property
    def net(self) -> str:
        """The net the set was made with, or the first one it was evaluated on."""
        scores, made = self.scores, str(mapping(self.recipe, "net").get("name", ""))
        return made if made in scores or not scores else next(iter(scores))

    @property
    def scores(self) -> dict[str, Score]:
        """The task's primary metric by net, the net of the recipe first."""
        rows = mapping(self.result, "accuracy") or mapping(self.result, "metrics")
        found = {str(k): score(v) for k, v in rows.items()}
        made = mapping(self.recipe, "net").get("name")
        order = sorted(found, key=lambda name: name != made)
        return {name: s for name in order if (s := found[name]) is not None}

    def baseline(self, name: str, net: str = "") -> Score | None:
        """Return the accuracy of 'random' images, of the 'full' set, or the 'published' one.

        With ``net`` it is None if the baseline was measured on other nets alone: a difference is
        of the same net.
        """
        if name == "published":
            found = mapping(self.result, "published")
            mean = real(found.get("accuracy"))
            return None if mean is None else Score(mean, real(found.get("std")), None, about=found)
        by_net = mapping(self.result, "baselines_by_net")
        one = score((mapping(by_net, net) or mapping(self.result, "baselines")).get(name))
        other = one is not None and str(one.about.get("net") or net) != net
        return None if net and other else one

    @property
    def baseline_nets(self) -> tuple[str, ...]:
        """The nets that have baselines of their own; ('',) for the one set of most runs."""
        return tuple(mapping(self.result, "baselines_by_net")) or ("",)

    @property
    def seeds(self) -> str:
        """The synthesis seeds of the result, in words."""
        score = self.scores.get(self.net)
        several = [name for name, _ in score.seeds] if score else []
        return ", ".join(several) or self.known("seed")

    @property
    def share(self) -> float | None:
        """Return synthetic images over the training images of a known dataset."""
        facts = lookup(self.known("dataset"))
        return len(self.dataset.images) / facts.sizes[0] if facts and self.dataset else None


def gather(workdir: Path) -> Evidence:
    """Read a working directory; absent or truncated files are noted in ``missing``, not raised.

    Raises:
      BadInput: there is no such folder.
    """
    if not workdir.is_dir():
        raise BadInput(str(workdir), "no such folder", "give the --workdir of a run")
    missing: list[str] = []
    dataset = product = None
    finished, begun = workdir / "distilled.npz", workdir / "unfinished.npz"
    unfinished = not finished.exists() and begun.exists()
    if finished.exists() or unfinished:
        try:
            product = files.load(begun if unfinished else finished)
            dataset = product if isinstance(product, DistilledSet) else None
        except BadInput as error:
            missing.append(f"The distilled set cannot be read: {error}.")
    if unfinished and product is not None:
        missing.append(
            "Distilling has not finished: the images are those of its last saved step, "
            f"{begun.name}."
        )
    elif not finished.exists():
        missing.append("No distilled set yet: distilling has not finished.")
    result = _json(workdir / "result.json", missing)
    if result is None:
        missing.append("Not evaluated yet: there is no result.json.")
    rows, note = metric_lines.read(workdir / "metrics.jsonl")
    missing += [note] if note else []
    if not rows:
        missing.append("No curves: metrics.jsonl holds no lines yet.")
    if not result and (diverged := metrics.divergence(rows)):
        missing.append(f"The run has diverged: {diverged}.")
    if product is not None and not unfinished and (words := files.diverged(product.recipe)):
        missing.append(f"{finished.name}: {words}.")
    config = _json(workdir / "config.json", missing)
    labels = {} if unfinished else _labels(workdir, dataset, missing)
    known = (result or {}, config or {})
    return Evidence(workdir, dataset, rows, *known, tuple(missing), labels, product, unfinished)


def _labels(workdir: Path, dataset: DistilledSet | None, missing: list[str]) -> dict[str, Any]:
    """Return the settings of a set's stored labels; note in ``missing`` if they are absent."""
    stored = mapping(dataset.recipe, "labels") if dataset else {}
    if stored.get("kind") != "stored":
        return {}
    found = _json(workdir / str(stored.get("store")) / "labels.json", missing)
    if found is None:
        missing.append(
            f"The labels of the set's views are not here: nets learn them from the folder "
            f"{stored.get('store')} next to the set."
        )
    return dict(mapping(found or {}, "settings"))


def score(found: Any) -> Score | None:
    """Read ``{mean, std, n, values, seeds}``; None if there is no mean."""
    if not isinstance(found, Mapping):
        return None
    values = found.get("values")
    numbers = tuple(
        v for v in map(real, values if isinstance(values, list) else []) if v is not None
    )
    mean = real(found.get("mean"))
    mean = float(np.mean(numbers)) if mean is None and numbers else mean
    if mean is None:
        return None
    n = found.get("n")
    n = n if isinstance(n, int) and not isinstance(n, bool) else len(numbers) or None
    return Score(mean, real(found.get("std")), n, numbers, _seeds(found.get("seeds")), found)


def _seeds(found: Any) -> tuple[tuple[str, Score], ...]:
    """Read one score per synthesis seed: ``{"0": 0.91}`` or ``{"0": {"mean": 0.91, ...}}``."""
    if not isinstance(found, Mapping):
        return ()
    nested = found.get("values")
    out = []
    for name, value in (nested if isinstance(nested, Mapping) else found).items():
        if str(name).lstrip("-").isdigit():
            mean = real(value)
            one = score(value) if mean is None else Score(mean, None, None)
            if one is not None:
                out.append((str(name), one))
    return tuple(out)


def mapping(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a nested object, empty if it is absent or not an object."""
    inner = found.get(name)
    return inner if isinstance(inner, Mapping) else {}


def real(value: Any) -> float | None:
    """Return a finite number as float, anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _json(path: Path, missing: list[str]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json_files.read(path, "")
    except BadInput as error:
        missing.append(f"{path.name} cannot be read: {error.found}.")
        return {}
