"""Runs of a comparison: finding them, grouping comparable ones, listing their differences."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet
from jdd.product.pairs import PairSet
from jdd.report import own_keys, recipe
from jdd.report.evidence import Evidence, Score, gather, mapping, real
from jdd.report.html import number
from jdd.run import metrics
from jdd.stages.registry import MAKERS

_FILES = ("config.json", "result.json", "distilled.npz")  # any of them makes a folder a run
_ALLOWED = "the working directories of two or more runs, separated by commas; globs are fine"


class Run(NamedTuple):
    """A run and the shortest end of its path that distinguishes it from the others."""

    name: str
    evidence: Evidence

    def score(self, net: str) -> Score | None:
        """Return the accuracy on ``net``, or else on the net the set was made with."""
        scores = self.evidence.scores
        return scores.get(net) or scores.get(self.evidence.net)

    @property
    def late(self) -> str:
        """Return the steps of the result in words if the config requests more; else ''.

        A run that ended early by its own rule (``stop``) requests no more.
        """
        if self.evidence.result.get("stopped"):
            return ""
        done, configured = (
            real(at.get("steps")) for at in (self.evidence.result, self.evidence.config)
        )
        if done is None or configured is None or configured <= done:
            return ""
        return f"measured after step {number(done)} of {number(configured)}"

    @property
    def diverged(self) -> str:
        """Return in words where an unfinished run diverged; '' if it did not."""
        return metrics.divergence(self.evidence.rows)

    @property
    def evaluates(self) -> bool:
        """Return whether the directory is the evaluation of a set that another one made."""
        return (self.evidence.workdir / "checkpoints" / "set.json").exists()

    @property
    def reached(self) -> str:
        """Return the progress of an unfinished run, in words."""
        if self.diverged:
            return self.diverged
        if self.evaluates:
            return "the evaluation of a set"
        made: dict[str, float] = {}
        for row in self.evidence.rows:
            name, step = str(row["stage"]), real(row["step"])
            if name.startswith(MAKERS) and step is not None:
                made[name] = max(step, made.get(name, 0.0))
        configured = real(self.evidence.config.get("steps"))
        if self.evidence.stored and not self.evidence.unfinished:
            return "its images are made"
        if not made:
            return "no distillation step yet"
        last, parts = list(made)[-1], [name for name in made if metrics.stage_of_part(name) != name]
        step, where = max(made.values()), ""
        if parts:
            step, where = made[last], f" in part {len(parts)}"
        return f"step {number(step)}" + (f" of {number(configured)}" if configured else "") + where


class Unlike(NamedTuple):
    """One setting in which runs differ; ``values`` are the runs' names by its value."""

    what: str
    values: dict[str, tuple[str, ...]]


class Group(NamedTuple):
    """Finished runs with the same dataset, IPC and objective, the most accurate on ``net`` first.

    ``unlike`` are differences that affect accuracies, ``slower`` those that affect cost.
    """

    title: str
    net: str
    runs: tuple[Run, ...]
    unlike: tuple[Unlike, ...]
    slower: tuple[Unlike, ...]

    @property
    def nets(self) -> list[str]:
        """Every net that some run was tested on, the common one first."""
        names = dict.fromkeys(net for run in self.runs for net in run.evidence.scores)
        return sorted(names, key=lambda net: net != self.net)


class Found(NamedTuple):
    """Groups of finished runs, unfinished runs, and folders of a glob that are not runs."""

    groups: tuple[Group, ...]
    unfinished: tuple[Run, ...]
    passed: tuple[str, ...]


def find(
    words: str | Iterable[str | os.PathLike[str]], titles: Mapping[str, str] | None = None
) -> Found:
    """Read the runs named by ``words``: folders or globs; one text may list several.

    Args:
      titles: names of runs by folder; the default is the end of their paths.

    Raises:
      BadInput: no such folder, not a run, a duplicate, fewer than two runs, or none finished.
    """
    folders, passed = _folders(words)
    if len(folders) < 2:
        raise BadInput("--runs", f"one run ({folders[0]})" if folders else "no run", _ALLOWED)
    names = [
        (titles or {}).get(str(folder), name)
        for folder, name in zip(folders, _names(folders), strict=True)
    ]
    runs = [Run(name, gather(folder)) for name, folder in zip(names, folders, strict=True)]
    unfinished = tuple(run for run in runs if not run.evidence.scores)
    if len(unfinished) == len(runs):
        raise BadInput(
            "--runs",
            f"none of these {len(runs)} runs is finished ({', '.join(names)})",
            "let one of them come to its result.json",
        )
    together: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if run.evidence.scores:
            together.setdefault(_kind(run.evidence), []).append(run)

    def size_of(kind: tuple[str, str, str]) -> tuple[str, int, str]:
        count = kind[1].removesuffix(" pairs")
        return kind[0], int(count) if count.isdigit() else 0, kind[2]

    ordered = sorted(together, key=size_of)
    return Found(tuple(_group(kind, together[kind]) for kind in ordered), unfinished, passed)


def _folders(words: str | Iterable[str | os.PathLike[str]]) -> tuple[list[Path], tuple[str, ...]]:
    # A folder may have a comma in its name; os.path accepts a list too long to be a path.
    several = isinstance(words, str) and not os.path.isdir(words)
    given = words.split(",") if isinstance(words, str) and several else words
    parts = [given] if isinstance(given, str) else [os.fspath(word) for word in given]
    parts = [word.strip() for word in parts if word.strip()]
    found: dict[Path, Path] = {}
    named: set[Path] = set()
    passed: list[str] = []
    for word in parts:
        globbed = not Path(word).exists() and glob.has_magic(word)
        matches = [Path(at) for at in sorted(glob.glob(word))] if globbed else [Path(word)]
        if not matches:
            raise BadInput(f"--runs={word}", "nothing of that name", _ALLOWED)
        for folder in matches:
            if not any((folder / name).is_file() for name in _FILES):
                if globbed:
                    passed.append(str(folder))
                    continue
                odd = "not a run" if folder.is_dir() else "no such folder"
                raise BadInput(f"--runs={word}", odd, f"a run has one of {', '.join(_FILES)}")
            resolved = folder.resolve()
            if not globbed and resolved in named:
                raise BadInput(f"--runs={word}", "the same folder twice", "name each run once")
            if not globbed:
                named.add(resolved)
            found.setdefault(resolved, folder)
    return list(found.values()), tuple(passed)


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of each path, as many as needed to make them distinct."""
    ends = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, ends)) + 1):
        names = ["/".join(end[-count:]) for end in ends]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def metric(group: Group) -> str:
    """Return the words for the primary metric shared by the runs of a group."""
    return "Mean recall" if group.runs[0].evidence.retrieval else "Test accuracy"


def _kind(evidence: Evidence) -> tuple[str, str, str]:
    objective = mapping(evidence.result, "objective")
    kind = str(objective.get("kind") or "distill")
    attacked, target = objective.get("attack_name"), objective.get("target_name")
    words = {
        "adapt": f"adapting nets of {objective.get('source')}",
        "attack": f"attack, {attacked} to be taken for {target}",
    }
    if pairs := evidence.result.get("pairs"):
        return evidence.known("dataset"), f"{pairs} pairs", "mean recall"
    return evidence.known("dataset"), evidence.known("ipc"), words.get(kind, "")


def _group(kind: tuple[str, str, str], runs: list[Run]) -> Group:
    dataset, ipc, objective = kind
    tried = Counter(net for run in runs for net in run.evidence.scores)
    made = Counter(run.evidence.net for run in runs)
    net = max(tried, key=lambda name: (tried[name], made[name]))

    def sort_key(run: Run) -> tuple[bool, float]:
        score = run.score(net)
        return net not in run.evidence.scores, -(score.mean if score else 0.0)

    runs = sorted(runs, key=sort_key)
    title = f"{dataset or 'an unnamed dataset'}, {ipc or '?'} image{'' if ipc == '1' else 's'}"
    title += " per class"
    if ipc.endswith(" pairs"):
        title = f"{dataset}, {ipc}"
    title += f", {objective}" if objective else ""
    unlike, slower = (
        tuple(
            Unlike(what, values)
            for what, read in table.items()
            if len(values := _by_value(runs, read, net)) > 1
        )
        for table in (_ACCURACY, _COST)
    )
    own = own_keys.differing([(run.name, run.evidence.known("method"), _made(run)) for run in runs])
    unlike += tuple(Unlike(what, values) for what, values in own.items())
    return Group(title, net, tuple(runs), unlike, slower)


def _made(run: Run) -> dict[str, Any]:
    """Return the config that a run's set was made by; {} for the evaluation of a set."""
    return {} if run.evaluates else run.evidence.config


def _by_value(
    runs: Sequence[Run], read: Callable[[Run, str], str], net: str
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for run in runs:
        value = read(run, net) or "not known"
        found[value] = (*found.get(value, ()), run.name)
    return found


def _images(run: Run, net: str) -> str:
    product = run.evidence.product
    if not isinstance(product, DistilledSet | PairSet):
        return ""
    h, w, c = product.images.shape[1:]
    return f"{w} × {h}, {'grey' if c == 1 else 'colour' if c == 3 else f'{c} channels'}"


def _texts(run: Run, net: str) -> str:
    """Return the encoding of pairs' texts, and the candidates that their towers are tested on."""
    if not run.evidence.retrieval:
        return ""
    text, found = mapping(run.evidence.recipe, "text"), mapping(run.evidence.result, "candidates")
    words = [f"{text.get('encoder')}, {text.get('size')} numbers"] * bool(text)
    words += [f"{found[name]} test {name}" for name in ("images", "captions") if found.get(name)]
    return ", ".join(words)


def _tested(run: Run, net: str) -> str:
    evidence = run.evidence
    name = net if net in evidence.scores else evidence.net
    made = mapping(evidence.recipe, "net")
    return recipe.named(made) if made.get("name") == name else name


def _count(run: Run, net: str) -> str:
    score = run.score(net)
    if score is None or score.n is None:
        return ""
    return str(score.n) + (f", over {len(score.seeds)} sets" if len(score.seeds) > 1 else "")


def _rate(run: Run, net: str) -> str:
    train = _train(run)
    if isinstance(train.get("lr"), list):
        return "one for each step, learned with the set"
    if recipe.learned(run.evidence):
        return "learned with the set"
    rate = real(train.get("lr"))
    return number(rate) if rate is not None else ""


def _labels(run: Run, net: str) -> str:
    return recipe.labels(run.evidence)


def _versions(run: Run, net: str) -> str:
    found = mapping(run.evidence.result, "versions")
    return ", ".join(
        f"{name} {found[name]}" for name in ("jdd", "commit", "jax") if found.get(name)
    )


def _recorded(run: Run, name: str) -> str:
    return str(run.evidence.recipe.get(name, ""))


def _train(run: Run) -> Any:
    return mapping(run.evidence.recipe, "train")


def _start(run: Run, net: str) -> str:
    return str(mapping(_train(run), "init").get("kind", ""))


# Settings that affect an accuracy besides the method: training, testing and counting of nets.
_ACCURACY: dict[str, Callable[[Run, str], str]] = {
    "real images (fingerprint)": lambda run, _: _recorded(run, "data_fingerprint"),
    "size of the images": _images,
    "texts and candidates": _texts,
    "whitening": lambda run, _: _recorded(run, "whitening"),
    "labels": _labels,
    "net tested": _tested,
    "nets trained (n)": _count,
    "starting weights": _start,
    "training": lambda run, _: recipe.schedule(_train(run)) if _train(run) else "",
    "optimiser": lambda run, _: recipe.optimiser(_train(run)) if _train(run) else "",
    "learning rate": _rate,
    "loss": lambda run, _: recipe.loss(_train(run)),
    "augmentation": lambda run, _: recipe.augmentation(run.evidence),
    "iterate": lambda run, _: _recorded(run, "selection"),
    "asked for more steps": lambda run, _: run.late or "no",
}
_COST: dict[str, Callable[[Run, str], str]] = {
    "device": lambda run, _: str(run.evidence.result.get("device") or ""),
    "versions": _versions,
    "precision": lambda run, _: str(run.evidence.config.get("precision", "")),
}
