"""Several finished runs on one page: images, accuracy, time and memory of each group."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jdd import __version__
from jdd.report import comparison_protocol, comparison_quality, cost, pictures, recalls, training
from jdd.report.accuracy import Bar
from jdd.report.collapse import sentences
from jdd.report.comparison_images import Grid
from jdd.report.comparison_images import grid as images_of
from jdd.report.curves import Chart
from jdd.report.evidence import Evidence, Score, mapping
from jdd.report.headline import Headline, Text, article, method
from jdd.report.html import DASH, THIN, duration, mean_std, percent, plural
from jdd.report.html import size as in_bytes
from jdd.report.runs import Found, Group, Run, Unlike, metric
from jdd.report.templating import render as render_template
from jdd.stages import registry

_MARKS = {
    "random": "as many random real {}, same recipe",
    "published": "published for this method",
}


class Cell(NamedTuple):
    """A figure of the table of nets; ``n`` in words, '' if it has none."""

    value: str
    n: str = ""


class NetRow(NamedTuple):
    """A run's accuracies: on the common net, of random images, published, and on other nets."""

    method: str
    run: str
    accuracy: Cell
    random: Cell
    published: Cell
    others: list[Cell]


class Difference(NamedTuple):
    """Settings of one kind in which runs differ; ``alike`` is the sentence if none differ."""

    title: str
    rows: Sequence[Unlike]
    alike: str


class CostRow(NamedTuple):
    """A run's seconds as a bar, and its figures in the order of ``Costs.heads``."""

    method: str
    run: str
    bar: list[cost.Part]
    figures: list[str]


class Costs(NamedTuple):
    """Time and memory; ``keys`` are (CSS class of its colour, stage)."""

    heads: list[str]
    rows: list[CostRow]
    keys: list[tuple[str, str]]


class Section(NamedTuple):
    """One group of comparable runs."""

    title: str
    note: str
    collapsed: list[str]
    keys: list[tuple[str, str]]
    bars: list[Bar]
    net_heads: list[str]
    nets: list[NetRow]
    sources: str
    differences: list[Difference]
    images: Grid | None
    quality: comparison_quality.Qualities | None
    costs: Costs


class Origin(NamedTuple):
    """A run's directory, devices and command."""

    title: str
    about: str
    command: str


def render(found: Found, plots: Sequence[Chart] = ()) -> str:
    """Return the page as HTML text; ``plots`` come before its tables."""
    count = sum(len(group.runs) for group in found.groups)
    room = pictures.BUDGET // max(1, count + len(found.unfinished))
    return render_template(
        "comparison.html",
        title=f"{plural(count, 'run')} compared {DASH} jdd",
        headline=_headline(found, count),
        plots=plots,
        unfinished=[
            (run.name, _state(run), _why(run), images_of([run], "", room))
            for run in found.unfinished
        ],
        other_folders=found.passed,
        metric=" and ".join(sorted({_metric(group) for group in found.groups})),
        examples=" or ".join(sorted({g.runs[0].evidence.examples for g in found.groups})),
        sections=[_section(group, room) for group in found.groups],
        rankings=comparison_protocol.rankings(found),
        origins=list(_origins(found)),
        version=__version__,
    )


def called(run: Run) -> str:
    """Return a run's method, or 'a set' for a set of unknown method."""
    return method(run.evidence) or "a set"


def _metric(group: Group) -> str:
    return "recalls" if group.runs[0].evidence.retrieval else "accuracies"


def collapses(group: Group) -> list[str]:
    """Return a sentence on each run whose pairs have collapsed, with the run's name."""
    return [f"{run.name}: {words}" for run in group.runs for words in sentences(run.evidence)]


def teacher_labels_note(group: Group) -> str:
    """Name the runs whose random images are labelled by teachers, '' if there are none."""
    names = [run.name for run in group.runs if run.evidence.teacher_labelled]
    if not names:
        return ""
    return f"In {', '.join(names)} the set and the random images have labels by the same teachers."


def _headline(found: Found, count: int) -> Headline:
    group = found.groups[0]
    if len(found.groups) == 1 and count > 1:
        best = group.runs[0]
        score, evidence = best.score(group.net), best.evidence
        net = group.net if group.net in evidence.scores else evidence.net
        made = Text(percent(score.mean), strong=True, ours=True) if score else Text(DASH)
        sentence = [
            Text(f"Of {plural(count, 'run')} on {group.title}, "),
            Text(called(best), strong=True),
            Text(f" comes first: {article(net)} trained on its set reaches "),
            made,
        ]
    else:
        titles = [group.title for group in found.groups]
        where = " · ".join(titles) if len(titles) < 4 else f"{len(titles)} datasets or sizes"
        sentence = [Text(plural(count, "finished run"), strong=True), Text(f" on {where}")]
    return Headline("Runs side by side", sentence, [])


def _state(run: Run) -> str:
    return run.diverged or f"not finished ({run.reached})"


def _why(run: Run) -> str:
    return " ".join(run.evidence.missing) or "There is no accuracy in its result.json."


def _section(group: Group, room: int) -> Section:
    bars = list(_bars(group))
    drawn = {kind for bar in bars for kind, _ in bar.marks}
    examples = group.runs[0].evidence.examples
    marks = [(kind, words.format(examples)) for kind, words in _MARKS.items() if kind in drawn]
    if examples == "pairs":  # of any set of pairs, whatever its loss
        marks = [(kind, words.replace("recipe", "recipe, by InfoNCE")) for kind, words in marks]
    first, *others = group.nets
    return Section(
        title=group.title,
        note=_note(group),
        collapsed=collapses(group),
        keys=marks,
        bars=bars,
        net_heads=[first, f"Random {examples}", "Published", *others],
        nets=[_net_row(group, run) for run in group.runs],
        sources=_sources(group),
        differences=_differences(group) if len(group.runs) > 1 else [],
        images=images_of(group.runs, group.net, room),
        quality=comparison_quality.section(group),
        costs=_costs(group),
    )


def _note(group: Group) -> str:
    words = (
        f"{metric(group)} in percent of nets trained on each set by its own recipe: final step, "
        f"mean{THIN}±{THIN}population standard deviation over n nets. Bars: {group.net}."
    )
    if any(run.evidence.known("dataset") and "attack" in group.title for run in group.runs):
        words += " How often an attack succeeds is in each run's own report."
    if teacher_labels_note(group):
        words += f" {teacher_labels_note(group)}"
    if group.runs[0].evidence.retrieval:
        words += f" {recalls.candidates(group.runs[0].evidence)}".rstrip()
    if group.unlike:
        words += f" These runs differ in {', '.join(one.what for one in group.unlike)}: see below."
    return words


def _bars(group: Group) -> Iterator[Bar]:
    for at, run in enumerate(group.runs):
        score = run.score(group.net)
        if score is None:
            continue
        on = group.net if group.net in run.evidence.scores else run.evidence.net
        others = [(kind, run.evidence.baseline(kind, on)) for kind in _MARKS]
        marks = tuple((kind, other.mean) for kind, other in others if other is not None)
        net = "" if group.net in run.evidence.scores else f", on {run.evidence.net}"
        about = f"{run.name}{net}" + (f", n{THIN}={THIN}{score.n}" if score.n else "")
        css = "ours" if at == 0 and len(group.runs) > 1 else "run"
        yield Bar(called(run), about, css, score, marks)


def _net_row(group: Group, run: Run) -> NetRow:
    evidence, (first, *others) = run.evidence, group.nets
    published = evidence.baseline("published")
    figure = mean_std(published.mean, published.std, 2) if published else DASH
    return NetRow(
        called(run),
        run.name,
        _cell(evidence.scores.get(first)),
        _baseline_cell(random_baseline(evidence, first), first),
        Cell(figure),
        [_cell(evidence.scores.get(net)) for net in others],
    )


def random_baseline(evidence: Evidence, net: str) -> Score | None:
    """Return the accuracy of random images on ``net``, or else on the net it was measured on."""
    return evidence.baseline("random", net) or evidence.baseline("random")


def other_net(score: Score | None, net: str) -> str:
    """Return the name of a baseline's net if it is not ``net``, else ''."""
    name = str(score.about.get("net") or "") if score else ""
    return "" if name == net else name


def _baseline_cell(score: Score | None, net: str) -> Cell:
    cell, other = _cell(score), other_net(score, net)
    return cell._replace(n=", ".join(filter(None, (cell.n, other))))


def _cell(score: Score | None) -> Cell:
    if score is None:
        return Cell(DASH)
    n = f"n{THIN}={THIN}{score.n}" if score.n else ""
    return Cell(mean_std(score.mean, score.std, score.n), n)


def _sources(group: Group) -> str:
    """Name the sources of published figures, and the runs that differ from their protocols."""
    lines = []
    for run in group.runs:
        found = run.evidence.baseline("published")
        if found is None:
            continue
        differs = found.about.get("protocol_differs")
        names = ", ".join(map(str, differs)) if isinstance(differs, list) else ""
        other = f"; {run.name} differs from its protocol in {names}" if names else ""
        lines.append(f"{called(run)}: {found.about.get('source', '')}{other}.")
    return f"Published. {' '.join(dict.fromkeys(lines))}" if lines else ""


def _differences(group: Group) -> list[Difference]:
    return [
        Difference(
            f"What they differ in: {_metric(group)}",
            group.unlike,
            "Data, recipe, nets and their number are the same in all of these runs, as far as "
            "their files show.",
        ),
        Difference(
            "What they differ in: times and memory",
            group.slower,
            "Device, versions and precision are the same in all of these runs, as far as their "
            "files show.",
        ),
    ]


def _costs(group: Group) -> Costs:
    spent = {run.name: training.stage_seconds(run.evidence) for run in group.runs}
    names = dict.fromkeys(name for seconds in spent.values() for name in seconds)
    order = sorted(names, key=registry.position)
    whole = {run.name: training.total_seconds(run.evidence) or 0.0 for run in group.runs}
    longest = max(whole.values())
    rows = []
    for run in group.runs:
        evidence, seconds = run.evidence, spent[run.name]
        own = {name: s for name, s in seconds.items() if name != "full"}
        process = training.process_bytes(evidence)
        planned = max(training.temporaries(evidence).values(), default=0.0)
        figures = [
            duration(whole[run.name]) if whole[run.name] else DASH,
            *(duration(seconds[name]) if name in seconds else DASH for name in order),
            in_bytes(process) if process else DASH,
            in_bytes(planned) if planned else DASH,
            evidence.known("steps") or DASH,
            evidence.seeds or DASH,
        ]
        bar = cost.bar(own, order, longest)
        rows.append(CostRow(called(run), run.name, bar, figures))
    keys = [(cost.colour(name, order), name) for name in order]
    return Costs(["In all", *order, "Process", "XLA", "Steps", "Seeds"], rows, keys)


def _origins(found: Found) -> Iterator[Origin]:
    """Return for every run its directory, its devices, and the command that reproduces it."""
    for run in [*(run for group in found.groups for run in group.runs), *found.unfinished]:
        evidence = run.evidence
        words = [str(os.path.abspath(evidence.workdir)), str(evidence.result.get("device") or "")]
        versions = mapping(evidence.result, "versions")
        words.append(", ".join(f"{name}{THIN}{value}" for name, value in versions.items()))
        about = " · ".join(word for word in words if word)
        command = evidence.known("command") or "no command is recorded"
        yield Origin(f"{run.name}: {called(run)}", about, command)
