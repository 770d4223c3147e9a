"""What was reached: the headline, the comparison with the baselines, the table of nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jdd.report import steps
from jdd.report.evidence import Evidence, Score, mapping, real, score
from jdd.report.html import DASH, THIN, Html, duration, join, mean_std, percent, plural, tag
from jdd.report.training import total_seconds

_RATIO = "synthetic to real training images"
WORDS = "no one two three four five six seven eight nine ten".split()


def title(evidence: Evidence) -> str:
    """Return the page's title: dataset, images per class, method."""
    return f"{_what(evidence)} {DASH} jdd" if _what(evidence) else "jdd"


def headline(evidence: Evidence) -> Html:
    """Say in one sentence what was reached, and the numbers behind it in four boxes."""
    seed = evidence.known("seed")
    eyebrow = join(_what(evidence) or "an unnamed run", f" · seed {seed}" if seed else None)
    sentence = tag("h1", _sentence(evidence))
    return tag("header", tag("p", eyebrow, cls="eyebrow"), sentence, _boxes(evidence))


def comparison(evidence: Evidence) -> Html | None:
    """Draw the accuracy beside random images, the whole set and the published number."""
    scores = evidence.scores
    if not scores or steps.attacks(evidence):
        return None
    net, score = evidence.net, scores[evidence.net]
    rows = [bar("This set", _nets(score, net), score, "ours")]
    kinds = (
        ("random", "Random real images", "draws", "other"),
        ("full", "Whole training set", "nets", "other"),
        ("published", "Published", "", "paper"),
    )
    for name, label, unit, css in kinds:
        found = evidence.baseline(name)
        if found is not None:
            rows.append(bar(label, _about(name, found, unit), found, css))
        elif name != "published":
            rows.append(_no_bar(label))
    note = (
        f"Test accuracy in percent of {_tested(score)} trained by the recipe below: last iterate, "
        f"mean{THIN}±{THIN}population standard deviation. Random images are as many, drawn from "
        "the training set, and train nets by the same recipe."
    )
    told = evidence.result.get("notes")
    if isinstance(told, list) and told:
        note += f" The data: {'; '.join(map(str, told))}."
    return tag(
        "section",
        tag("h2", "Accuracy"),
        tag("p", note, cls="note"),
        tag("div", *rows, ticks(), cls="bars"),
        _differs(evidence),
    )


def nets(evidence: Evidence) -> Html | None:
    """Tabulate every net the set was tried on, each single accuracy as a dot."""
    scores = evidence.scores
    if not scores or steps.attacks(evidence):
        return None
    drawn = any(one.values for one in scores.values())
    costs = mapping(evidence.result, "nets")
    paper = mapping(evidence.result, "published_nets")
    printed = mapping(paper, "values")
    heads = ("Accuracy", "n", *["Published"] * bool(printed), *["Parameters", "Time"] * bool(costs))
    head = tag(
        "tr",
        tag("th", "Net"),
        *(tag("th", word, cls="num") for word in heads),
        tag("th", "Each net, 0 to 100 %", cls="strip") if drawn else None,
    )
    rows = []
    for name, about, found, css in _tried(evidence):
        figures = [mean_std(found.mean, found.std, found.n), str(found.n or DASH)]
        figures += [_printed(score(printed.get(name)))] * bool(printed)
        figures += _costs(mapping(costs, name)) if costs else []
        label = join(name, tag("small", f" {about}") if about else None)
        cells = [tag("td", label), *(tag("td", figure, cls="num") for figure in figures)]
        strip = tag("td", _strip(found), cls="strip") if drawn else None
        rows.append(tag("tr", *cells, strip, cls=css))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    heading = "Across architectures" if len(scores) > 1 else "Net by net"
    note = f"Published: {paper.get('source')}." if printed else None
    return tag(
        "section",
        tag("h2", heading),
        tag("div", table, cls="scroll"),
        tag("p", note, cls="note after") if note else None,
        _by_seed(evidence),
    )


def _tried(evidence: Evidence) -> list[tuple[str, str, Score, str | None]]:
    """Return the rows of the table of nets: name, about it, accuracy, class."""
    made = mapping(evidence.recipe, "net").get("name")
    made_with = "" if evidence.chosen else "distilled with it"
    rows: list[tuple[str, str, Score, str | None]] = [
        (name, made_with if name == made else "", one, "ours" if name == made else None)
        for name, one in evidence.scores.items()
    ]
    for name, label in (("random", "Random real images"), ("full", "Whole training set")):
        found = evidence.baseline(name)
        if found is not None:
            rows.append((label, str(found.about.get("net") or ""), found, "base"))
    return rows


def _printed(found: Score | None) -> str:
    return mean_std(found.mean, found.std, 2) if found else DASH


def _costs(found: Mapping[str, Any]) -> list[str]:
    """Return a net's number of parameters, and the time that training and testing it took."""
    count, seconds = real(found.get("parameters")), real(found.get("seconds"))
    said = f"{count:,.0f}".replace(",", THIN) if count else DASH
    return [said, duration(seconds) if seconds is not None else DASH]


def method(evidence: Evidence) -> str:
    """Return the method's name as it is written: an abbreviation in capitals."""
    name = evidence.known("method")
    return name.upper() if len(name) <= 5 else name


def _what(evidence: Evidence) -> str:
    ipc = evidence.known("ipc")
    parts = [
        method(evidence),
        evidence.known("dataset"),
        f"{plural(int(ipc), 'image')} per class" if ipc.isdigit() else "",
    ]
    return " · ".join(part for part in parts if part)


def _sentence(evidence: Evidence) -> Html:
    scores, dataset = evidence.scores, evidence.dataset
    if dataset is None:
        if scores:
            return join("The set trains ", *_to(evidence))
        return join(f"Distilling {evidence.known('dataset') or 'a dataset'}: not finished yet")
    count = tag("b", plural(len(dataset.images), "image"))
    per = len(dataset.images) / max(dataset.classes, 1)
    each = f", {_word(int(per))} per class," if per == int(per) else ","
    if not scores:
        verb = "chosen" if evidence.chosen else "distilled"
        return join(count, each, f" {verb} from {evidence.known('dataset') or 'a dataset'}")
    if steps.attacks(evidence):
        return join(count, each, " and ", steps.words(evidence))
    verb = " trains " if len(dataset.images) == 1 else " train "
    return join(count, each, verb, *_to(evidence), _against(evidence))


def _to(evidence: Evidence) -> list[object]:
    net = evidence.net
    article = "an" if net[:1] in "AEIOU" or net.startswith("MLP") else "a"
    return [f"{article} {net} to ", tag("b", percent(evidence.scores[net].mean), cls="ours")]


def _against(evidence: Evidence) -> str:
    random, full = evidence.baseline("random"), evidence.baseline("full")
    told = []
    if random:
        told.append(f"random images reach {percent(random.mean)}")
    if full:
        told.append(f"the whole training set {'' if random else 'reaches '}{percent(full.mean)}")
    return f" \u2014 {', '.join(told)}" if told else ""


def _boxes(evidence: Evidence) -> Html | None:
    scores, boxes = evidence.scores, []
    full = evidence.baseline("full")
    if steps.attacks(evidence):
        boxes += steps.boxes(evidence)
    elif scores:
        score = scores[evidence.net]
        boxes.append((mean_std(score.mean, score.std, score.n), _nets(score, evidence.net)))
        random = evidence.baseline("random")
        if random:
            gain = 100 * (score.mean - random.mean)
            sign = "+" if gain >= 0 else "−"
            boxes.append((f"{sign}{abs(gain):.1f}", "points over random real images"))
        if full and full.mean > 0:
            boxes.append(
                (
                    f"{100 * score.mean / full.mean:.0f}{THIN}%",
                    "of the accuracy of the whole training set",
                )
            )
    if evidence.share:
        ratio = f"{1 / evidence.share:.0f}" if evidence.share < 0.1 else f"{1 / evidence.share:.1f}"
        what = "chosen to all training images" if evidence.chosen else _RATIO
        boxes.append((f"1{THIN}:{THIN}{ratio}", what))
    seconds = total_seconds(evidence)
    if seconds and len(boxes) < 4:
        boxes.append(
            (duration(seconds), "for the run" + (", the whole training set apart" if full else ""))
        )
    if len(boxes) < 2:
        return None
    return tag(
        "dl", *(tag("div", tag("dt", what), tag("dd", value)) for value, what in boxes), cls="boxes"
    )


def _nets(score: Score, net: str) -> str:
    seeds = f", {len(score.seeds)} synthesis seeds" if len(score.seeds) > 1 else ""
    if score.n is None:
        return net + seeds
    fresh = "" if "before" in score.about else "fresh "
    return f"{plural(score.n, fresh + net)}{seeds}"


def _tested(score: Score) -> str:
    """Name the nets that were trained: fresh, or those that the set was made for."""
    return "nets the set was made for," if "before" in score.about else "fresh nets"


def _differs(evidence: Evidence) -> Html | None:
    """Say how far the published figure may be compared with this run's."""
    found = evidence.baseline("published")
    if found is None:
        return None
    said = str(found.about.get("source", "")).partition(";")[2].strip()
    names = found.about.get("protocol_differs")
    if isinstance(names, list) and names:
        said += "; " if said else ""
        said += f"this run differs from its protocol in {', '.join(map(str, names))}"
    return tag("p", f"Published: {said}.", cls="note") if said else None


def _about(name: str, score: Score, unit: str) -> str:
    if name == "published":
        return str(score.about.get("source", "")).split(";")[0]
    epochs = score.about.get("epochs")
    parts = [
        plural(score.n, unit.removesuffix("s")) if score.n else "",
        f"{epochs} epochs" if epochs and name == "full" else "",
        str(score.about.get("net") or ""),
    ]
    return ", ".join(part for part in parts if part)


def ticks() -> Html:
    """Return the scale below bars, in percent."""
    return tag("div", *(tag("span", f"{t}") for t in (0, 25, 50, 75, 100)), cls="ticks")


def bar(
    label: str, about: str, score: Score, css: str, marks: Sequence[tuple[str, float]] = ()
) -> Html:
    """Return one accuracy as a bar with its spread, and ``marks`` (class, value) to hold it to."""
    inner: list[object] = [tag("i", style=f"width:{_place(score.mean)}", cls="bar")]
    if score.std and (score.n is None or score.n > 1):
        low, high = max(0.0, score.mean - score.std), min(1.0, score.mean + score.std)
        inner.append(tag("i", style=f"left:{_place(low)};width:{_place(high - low)}", cls="std"))
    inner += [tag("u", style=f"left:{_place(at)}", cls=kind) for kind, at in marks]
    value = mean_std(score.mean, score.std, score.n if css != "paper" else 2)
    return tag(
        "div",
        tag("div", label, tag("small", about) if about else None, cls="label"),
        tag("div", *inner, cls="track"),
        tag("div", value, cls="value"),
        cls=f"row {css}",
    )


def _no_bar(label: str) -> Html:
    return tag(
        "div",
        tag("div", label, tag("small", "not measured in this run"), cls="label"),
        tag("div", cls="track"),
        tag("div", DASH, cls="value"),
        cls="row other",
    )


def _place(fraction: float) -> str:
    return f"{100 * min(max(fraction, 0.0), 1.0):.2f}%"


def _strip(score: Score) -> Html:
    dots = [tag("i", style=f"left:{_place(v)}", title=percent(v)) for v in score.values]
    return tag("div", tag("u", style=f"left:{_place(score.mean)}"), *dots, cls="dots")


def _by_seed(evidence: Evidence) -> Html | None:
    """Tabulate synthesis seeds apart: their spread says how repeatable the method is."""
    score = evidence.scores[evidence.net]
    if len(score.seeds) < 2:
        return None
    means = [one.mean for _, one in score.seeds]
    mean = sum(means) / len(means)
    std = (sum((m - mean) ** 2 for m in means) / len(means)) ** 0.5
    rows = [
        tag(
            "tr",
            tag("td", f"seed {name}"),
            tag("td", mean_std(*one[:3]), cls="num"),
            tag("td", one.n or DASH, cls="num"),
        )
        for name, one in score.seeds
    ]
    rows.append(
        tag(
            "tr",
            tag("td", "over seeds"),
            tag("td", mean_std(mean, std, len(means)), cls="num"),
            tag("td", len(means), cls="num"),
            cls="ours",
        )
    )
    head = tag(
        "tr",
        tag("th", f"{evidence.net}, each set {'chosen' if evidence.chosen else 'distilled'} anew"),
        tag("th", "Accuracy", cls="num"),
        tag("th", "n", cls="num"),
    )
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), cls="scroll seeds")


def _word(count: int) -> str:
    return WORDS[count] if 0 < count < len(WORDS) else str(count)
