"""Several finished runs on one page: images, accuracy, time and memory side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from jdd import __version__
from jdd.product import preview
from jdd.product.distilled_set import DistilledSet
from jdd.report import pictures, results, training, use
from jdd.report.evidence import Score, mapping
from jdd.report.html import DASH, THIN, Html, duration, join, mean_std, percent, plural, tag
from jdd.report.html import size as in_bytes
from jdd.report.page import document
from jdd.report.runs import Found, Group, Run, Unlike
from jdd.stages import registry

CLASSES, EACH = 10, 3  # images of a run that the eye can take in: classes, and images of each


def render(found: Found) -> str:
    """Return the page as text."""
    count = sum(len(group.runs) for group in found.groups)
    title = f"{plural(count, 'run')} compared {DASH} jdd"
    room = pictures.BUDGET // max(1, count)
    sections = [
        _headline(found, count),
        _left_out(found),
        *(_section(group, room) for group in found.groups),
        _makings(found),
    ]
    return document(title, sections, use.made_by(__version__))


def _headline(found: Found, count: int) -> Html:
    group = found.groups[0]
    if len(found.groups) == 1 and count > 1:
        best = group.runs[0]
        score = best.score(group.net)
        reached = tag("b", percent(score.mean), cls="ours") if score else DASH
        sentence = join(
            f"Of {plural(count, 'run')} on {group.title}, ", tag("b", called(best)),
            f" comes first: {reached_by(best, group.net)} trained on its set reaches ", reached,
        )  # fmt: skip
    else:
        sentence = join(tag("b", plural(count, "finished run")), f" on {_listed(found)}")
    return tag("header", tag("p", "Runs side by side", cls="eyebrow"), tag("h1", sentence))


def reached_by(run: Run, net: str) -> str:
    """Name the net of a run's figure with its article."""
    name = net if net in run.evidence.scores else run.evidence.net
    return f"{'an' if name[:1] in 'AEIOU' or name.startswith('MLP') else 'a'} {name}"


def _listed(found: Found) -> str:
    titles = [group.title for group in found.groups]
    return " · ".join(titles) if len(titles) < 4 else f"{len(titles)} datasets or sizes"


def called(run: Run) -> str:
    """Return a run's method, or that there is none."""
    return results.method(run.evidence) or "a set"


def _left_out(found: Found) -> Html | None:
    lines = [
        tag("p", tag("b", run.name), f", not finished ({run.reached}): ", _why(run))
        for run in found.unfinished
    ]
    if len(found.groups) > 1:
        lines.append(
            tag(
                "p",
                "Accuracies are compared within each part below, and not between them: these are "
                "other datasets, other numbers of images, or other aims.",
            )
        )
    if found.passed:
        lines.append(tag("p", f"Matched and no runs: {', '.join(found.passed)}."))
    return tag("aside", *lines, cls="missing") if lines else None


def _why(run: Run) -> str:
    return " ".join(run.evidence.missing) or "There is no accuracy in its result.json."


def _section(group: Group, room: int) -> Html:
    return tag(
        "section",
        tag("h2", group.title),
        _note(group),
        _bars(group),
        _nets(group),
        _unlike(group),
        _images(group, room),
        _cost(group),
    )


def _note(group: Group) -> Html:
    words = (
        f"Test accuracy in percent of nets trained on each set by its own recipe: last iterate, "
        f"mean{THIN}±{THIN}population standard deviation over n nets. Bars: {group.net}."
    )
    if any(run.evidence.known("dataset") and "attack" in group.title for run in group.runs):
        words += " How often an attack succeeds is in each run's own report."
    if taught(group):
        words += f" {taught(group)}"
    if group.unlike:
        words += f" These runs differ in {', '.join(one.what for one in group.unlike)}: see below."
    return tag("p", words, cls="note")


def taught(group: Group) -> str:
    """Say whose random images have labels of teachers, '' where none have."""
    names = [run.name for run in group.runs if run.evidence.taught]
    if not names:
        return ""
    return f"In {', '.join(names)} the set and the random images have labels by the same teachers."


def _bars(group: Group) -> Html:
    rows = []
    for place, run in enumerate(group.runs):
        score = run.score(group.net)
        if score is None:
            continue
        others = [(kind, run.evidence.baseline(kind)) for kind in ("random", "published")]
        marks = [(kind, other.mean) for kind, other in others if other is not None]
        net = "" if group.net in run.evidence.scores else f", on {run.evidence.net}"
        about = f"{run.name}{net}" + (f", n{THIN}={THIN}{score.n}" if score.n else "")
        css = "ours" if place == 0 and len(group.runs) > 1 else "run"
        rows.append(results.bar(called(run), about, score, css, marks))
    keys = [
        tag("li", tag("u", cls=kind), words)
        for kind, words in (
            ("random", "as many random real images, same recipe"),
            ("published", "published for this method"),
        )
        if any(run.evidence.baseline(kind) for run in group.runs)
    ]
    drawn = tag("div", *rows, results.ticks(), cls="bars")
    return join(tag("ul", *keys, cls="keys") if keys else None, drawn)


def _nets(group: Group) -> Html:
    """Tabulate a column a net, random images and the published figure."""
    first, *others = group.nets
    heads = ("Run", first, "Random images", "Published", *others)
    head = [tag("th", word, cls="num" if at else None) for at, word in enumerate(heads)]
    rows = []
    for place, run in enumerate(group.runs):
        evidence = run.evidence
        cells = [_with_n(evidence.scores.get(first))]
        cells.append(_with_n(evidence.baseline("random"), "num aside"))
        published = evidence.baseline("published")
        figure = mean_std(published.mean, published.std, 2) if published else DASH
        cells.append(tag("td", figure, cls="num aside"))
        cells += [_with_n(evidence.scores.get(net)) for net in others]
        name = tag("td", called(run), tag("small", run.name))
        rows.append(tag("tr", name, *cells, cls="ours" if place == 0 else None))
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), cls="across")
    return join(tag("h3", "Net by net"), tag("div", table, cls="scroll"), _sources(group))


def _with_n(score: Score | None, css: str = "num") -> Html:
    if score is None:
        return tag("td", DASH, cls=css)
    count = tag("small", f"n{THIN}={THIN}{score.n}") if score.n else None
    return tag("td", mean_std(score.mean, score.std, score.n), count, cls=css)


def _sources(group: Group) -> Html | None:
    """Say whose the published figures are, and which runs are not by that protocol."""
    lines = []
    for run in group.runs:
        found = run.evidence.baseline("published")
        if found is None:
            continue
        differs = found.about.get("protocol_differs")
        names = ", ".join(map(str, differs)) if isinstance(differs, list) else ""
        said = f"; {run.name} differs from its protocol in {names}" if names else ""
        lines.append(f"{called(run)}: {found.about.get('source', '')}{said}.")
    if not lines:
        return None
    return tag("p", "Published. ", " ".join(dict.fromkeys(lines)), cls="note after")


def _unlike(group: Group) -> Html | None:
    if len(group.runs) < 2:
        return None
    parts: list[Html] = []
    for title, unlike, alike in (
        (
            "Not alike: accuracies",
            group.unlike,
            "Data, recipe, nets and their number are the same in all of these runs, as far as "
            "they say.",
        ),
        (
            "Not alike: times and memory",
            group.slower,
            "Device, versions and precision are the same in all of these runs, as far as they say.",
        ),
    ):
        if unlike:
            parts.append(tag("h3", title))
            parts.append(_differences(unlike))
        else:
            parts.append(tag("p", alike, cls="note after"))
    return join(*parts)


def _differences(unlike: Sequence[Unlike]) -> Html:
    rows = []
    for one in unlike:
        cell = [
            tag("div", tag("b", value), tag("small", ", ".join(names)))
            for value, names in one.values.items()
        ]
        rows.append(tag("tr", tag("th", one.what), tag("td", *cell)))
    return tag("table", tag("tbody", *rows), cls="facts unlike")


def _images(group: Group, room: int) -> Html | None:
    """Show the same classes of every run in the same columns, a few images of each."""
    shown = [(run, run.evidence.dataset) for run in group.runs]
    sets = [dataset for _, dataset in shown if dataset is not None]
    if not sets:
        return None
    tiles = max(1, room // max(dataset.images[0].size for dataset in sets))
    names = sets[0].class_names[: max(1, min(CLASSES, tiles))]
    most = max(len(one) for dataset in sets for one in preview.by_class(dataset))
    each = max(1, min(EACH, most, tiles // len(names)))
    cells: list[Html] = [tag("b", ""), *(tag("span", name, title=name) for name in names)]
    for run, dataset in shown:
        if dataset is not None:
            score = run.score(group.net)
            about = f"{run.name} {percent(score.mean) if score else ''}"
            cells += [tag("b", called(run), tag("small", about)), *_columns(dataset, names, each)]
    note = (
        f"The same classes of each set, {plural(each, 'image')} of each; normalisation and "
        "whitening undone, values beyond black and white cut off."
    )
    smooth = " smooth" if max(sets[0].images.shape[1:3]) > 64 else ""
    grid = tag("div", *cells, cls=f"wall beside{smooth}", style=f"--columns:{len(names)}")
    return join(tag("h3", "Images"), tag("p", note, cls="note"), grid)


def _columns(dataset: DistilledSet, names: Sequence[str], each: int) -> list[Html]:
    groups = dict(zip(dataset.class_names, preview.by_class(dataset), strict=True))
    if not set(names) & set(groups):  # other words for the same classes: by their order
        groups = dict(zip(names, groups.values(), strict=False))
    chosen = [groups.get(name, np.zeros(0, int))[:each] for name in names]
    index = np.concatenate(chosen).astype(int)
    few = dataset._replace(images=dataset.images[index])
    pixels = iter(preview.to_pixels(few)) if len(index) else iter(())
    return [
        tag(
            "div",
            *(pictures.tile(next(pixels), f"{name}, image {i + 1}") for i in range(len(own))),
            cls="stack",
        )
        for name, own in zip(names, chosen, strict=True)
    ]


def _cost(group: Group) -> Html:
    spent = {run.name: training.stage_seconds(run.evidence) for run in group.runs}
    names = dict.fromkeys(name for seconds in spent.values() for name in seconds)
    order = sorted(names, key=registry.place)
    whole = {run.name: training.total_seconds(run.evidence) or 0.0 for run in group.runs}
    longest = max(whole.values())
    heads = ("Run", "", "In all", *order, "Process", "XLA", "Steps", "Seeds")
    head = [tag("th", word, cls="num" if at > 1 else None) for at, word in enumerate(heads)]
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
        rows.append(
            tag(
                "tr",
                tag("td", called(run), tag("small", run.name)),
                tag("td", training.stages(own, order, longest) if own else None),
                *(tag("td", figure, cls="num") for figure in figures),
            )
        )
    keys = [
        tag("li", tag("i", cls=f"s{i % training.COLOURS}"), name) for i, name in enumerate(order)
    ]
    note = (
        "A stage without a figure was not run here (experts that are shared, say). The baseline "
        "on the whole training set, made once a dataset, is not counted in. Process: the most "
        "memory it held; XLA: the temporaries of the stage that plans most."
    )
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), cls="costs")
    return join(
        tag("h3", "Time and memory"),
        tag("p", note, cls="note"),
        tag("ul", *keys, cls="keys"),
        tag("div", table, cls="scroll"),
    )


def _makings(found: Found) -> Html:
    """Show for every run where it lies, on what it ran, and the command that makes it again."""
    parts: list[Html] = []
    for run in [*(run for group in found.groups for run in group.runs), *found.unfinished]:
        evidence = run.evidence
        told = [str(os.path.abspath(evidence.workdir)), str(evidence.result.get("device") or "")]
        versions = mapping(evidence.result, "versions")
        told.append(", ".join(f"{name}{THIN}{value}" for name, value in versions.items()))
        line = evidence.known("command")
        parts.append(tag("h3", f"{run.name}: {called(run)}"))
        parts.append(tag("p", " · ".join(word for word in told if word), cls="note"))
        parts.append(tag("pre", tag("code", line or "no command is kept"), cls="wrap"))
    return tag("section", tag("h2", "Make them again"), *parts)
