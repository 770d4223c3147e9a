"""Final output of a run: its result in one line, and a table if there are several nets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jdd import specs
from jdd.errors import BadInput
from jdd.report import plain
from jdd.report.collapse import sentences
from jdd.report.evidence import gather
from jdd.report.nets import normed
from jdd.report.plain import plural
from jdd.run.context import RunContext
from jdd.storage import json_files


def finish(context: RunContext, fresh: bool = True) -> dict[str, Any]:
    """Return result.json, with the final line for the user as ``summary``.

    ``fresh``: whether the file reflects the run's present state.
    """
    if not (context.workdir / "result.json").exists() or not fresh:
        words = "has no result of this state yet: run without --mode for it"
        return {"summary": f"{context.workdir} {words}"}
    return read(context.workdir)


def read(directory: Path) -> dict[str, Any]:
    """Return result.json of a directory, with the final line for the user as ``summary``."""
    path = directory / "result.json"
    remedy = f"--mode=report --workdir={directory} writes it again"
    found = json_files.read(path, remedy)
    try:
        return _worded(found, directory)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        words = f"no result of a run ({type(error).__name__}: {error})"
        raise BadInput(str(path), words, remedy) from error


def _worded(found: dict[str, Any], directory: Path) -> dict[str, Any]:
    parts = [plain.protocol(found.get("protocol") or {})]
    parts += [scores(found), quality(found), normalisations(found)]
    parts += [*_collapsed(found, directory), *found.get("diagnosis", [])]
    parts.append(headline(found, directory))
    return {**found, "table": cross_table(found), "summary": "\n".join(filter(None, parts))}


def _collapsed(found: dict[str, Any], directory: Path) -> list[str]:
    """Return a line on each seed whose pairs have collapsed, as in the report."""
    if found.get("task") != "retrieval":
        return []
    return sentences(gather(directory))


def cross_table(found: dict[str, Any]) -> str:
    """Return accuracy, n, time and size of several nets as a plain table, '' for one net."""
    accuracy = found.get("metrics") or found["accuracy"]
    if len(accuracy) < 2:
        return ""
    costs = found.get("nets") or {}
    printed = (found.get("published_nets") or {}).get("values", {})
    rows, ways = [], normed(list(accuracy.values()))
    for net, score in accuracy.items():
        cost, paper = costs.get(net, {}), printed.get(net)
        row = [net, plain.accuracy(score["mean"], score["std"], score["n"]), str(score["n"])]
        by_way = (score.get(way) for way in ways)
        row += [plain.accuracy(a["mean"], a["std"], a["n"]) if a else "-" for a in by_way]
        row.append(f"{cost['seconds']:.1f}" if cost.get("seconds") is not None else "-")
        row.append(f"{cost['parameters']:,}" if cost.get("parameters") else "-")
        row += [plain.accuracy(paper["mean"], paper["std"], 2) if paper else "-"] * bool(printed)
        rows.append(row)
    metric = found.get("primary", "accuracy")
    head = [
        "net",
        f"{metric}, %",
        "n",
        *ways.values(),
        "seconds",
        "parameters",
        *["published"] * bool(printed),
    ]
    return plain.table(head, rows)


def scores(found: dict[str, Any]) -> str:
    """Return DD-Ranking's scores in percent as one line, '' if they are off."""
    known = found.get("scores")
    if not known:
        return ""
    names = [name for name in ("hlr", "slr", "ior", "lrs", "ars") if known.get(name) is not None]
    listed = ", ".join(f"{name.upper()} {100 * known[name]:.1f}" for name in names)
    return f"Scores in percent ({known['net']}): {listed}"


def normalisations(found: dict[str, Any]) -> str:
    """Return the accuracies of one net by several ways of testing batch norm, '' if none are there.

    Several nets have them in their table.
    """
    if len(found["accuracy"]) != 1:
        return ""
    ((net, score),) = found["accuracy"].items()
    ways = normed([score])
    listed = ", ".join(f"{w.partition(': ')[2]} {percent(score[name])}" for name, w in ways.items())
    return f"Batch norm of {net} by statistics: {listed}" if ways else ""


def quality(found: dict[str, Any]) -> str:
    """Return the figures of a generator's images as one line, '' if there are none."""
    known = found.get("quality")
    return plain.quality(known) if known else ""


def percent(found: dict[str, Any]) -> str:
    """Return mean ± std of accuracies as text; a single value has no std."""
    spread = f" ± {100 * found['std']:.1f}" if found.get("std") is not None else ""
    return f"{100 * found['mean']:.1f}{spread} %"


def headline(found: dict[str, Any], directory: Path) -> str:
    """Return the run's last line: its result and the path of the report."""
    objective = found.get("objective") or {"kind": "distill"}
    show = _attacked if objective["kind"] == "attack" else percent
    measured = found.get("metrics") or found["accuracy"]
    parts = [f"{net} {show(a)} (n={a['n']}){_before(a, show)}" for net, a in measured.items()]
    against = "".join(_baselines(found, at, set(measured)) for at in _by_net(found))
    method = found.get("title") or specs.title(found["method"]) or "A set"
    where = f"on {found['dataset']}"
    if objective["kind"] == "adapt":
        where = f"from {objective['source']} to {found['dataset']}"
    what = f"{method} {where}, {plural(found['ipc'], 'image')} per class"
    if found.get("task") == "retrieval":
        what = f"{method} {where}, {found['pairs']} pairs, mean recall"
    if objective["kind"] == "attack":
        what += f", to have {objective['attack_name']} taken for {objective['target_name']}"
    weight = plain.weight(found.get("bytes") or {})
    weight = f" {weight}." if weight else ""
    return f"{what}: {', '.join(parts)}{against}.{weight} Report: {directory / 'report.html'}"


def _by_net(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the baselines of every net that has its own, in their order."""
    return list((found.get("baselines_by_net") or {"": found["baselines"]}).values())


def _baselines(found: dict[str, Any], at: dict[str, Any], nets: set[str]) -> str:
    """Return the baselines ``at`` of one net in words, named with it; '' if there are none.

    They are compared with the set only if that net is among ``nets``, those trained on the set.
    """
    attack = (found.get("objective") or {}).get("kind") == "attack"
    show, pairs = _attacked if attack else percent, found.get("task") == "retrieval"
    random, whole = at["random"], at.get("full")
    rivals = []
    if random:
        alike = " with the same teachers' labels" if found.get("teachers") else ""
        rivals.append(f"random real {'pairs' if pairs else 'images'}{alike} {show(random)}")
    if of_bytes := at.get("random_bytes"):
        each = f"{of_bytes['per_class']} of each class"
        rivals.append(f"random real images of as many bytes, {each}, {show(of_bytes)}")
    if whole and not attack:
        every = "all pairs" if pairs else "the whole training set"
        after = plural(whole["epochs"], "epoch")
        rivals.append(f"{every} {percent(whole)} after {after}")
    hard, random_hard = at.get("hard"), at.get("random_hard")
    one = random or whole or hard or {}
    net = str(one.get("net") or "")
    same = not net or net in nets
    lead = ", against " if same else f"; another net, {net}: "
    named = f" ({net})" if net and same else ""
    words = lead + " and ".join(rivals) + named if rivals else ""
    if hard:
        of_random = f" (random real images {show(random_hard)})" if random_hard else ""
        words += f"; with hard labels {show(hard)}{of_random}" + named * (not rivals)
    return words


def _attacked(found: dict[str, Any]) -> str:
    return f"{percent(found['success'])} taken so, others right {percent(found['others'])}"


def _before(found: dict[str, Any], show: Callable[[dict[str, Any]], str]) -> str:
    return f" [before the steps: {show(found['before'])}]" if found.get("before") else ""
