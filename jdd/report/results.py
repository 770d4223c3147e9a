"""What was reached: the headline, and the comparison with the baselines."""

from __future__ import annotations

from collections.abc import Sequence

from jdd import specs
from jdd.report import steps
from jdd.report.evidence import Evidence, Score
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
    for name, label in {**beside(evidence), "published": "Published"}.items():
        unit = "draw" if name.startswith("random") else "net"
        found = evidence.baseline(name)
        if found is not None:
            css = "paper" if name == "published" else "other"
            rows.append(bar(label, _about(name, found, unit), found, css))
        elif name in ("random", "full"):
            rows.append(_no_bar(label))
    note = (
        f"Test accuracy in percent of {_tested(score)} trained by the recipe below: last iterate, "
        f"mean{THIN}±{THIN}population standard deviation. Random images are as many, drawn from "
        f"the training set, and train nets by the same recipe.{_labelled(evidence)}"
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


def beside(evidence: Evidence) -> dict[str, str]:
    """Return what a set is held to, by its name among the baselines, in words."""
    random = "Random real images"
    found = {"random": f"{random}, same labels" if evidence.taught else random}
    if evidence.baseline("hard"):
        found["hard"] = "This set, hard labels"
    if evidence.baseline("random_hard"):
        found["random_hard"] = f"{random}, hard labels"
    return found | {"full": "Whole training set"}


def _labelled(evidence: Evidence) -> str:
    """Say what labels do beside the images, of a set whose views teachers have labelled."""
    if not evidence.taught:
        return ""
    said = (
        " Same labels: the same teachers have labelled them in the same way, in views of the same "
        "kind, so that the difference is that of the images."
    )
    if evidence.baseline("hard") or evidence.baseline("random_hard"):
        said += (
            " Hard labels: the same views, but nets learn the classes of what is in them, by their "
            "shares, and nothing of what the teachers say."
        )
    return said


def method(evidence: Evidence) -> str:
    """Return the method's name as people write it."""
    own = evidence.result.get("title")  # of a method outside the package
    return str(own) if own else specs.title(evidence.known("method"))


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
        alike = " with the same labels" if evidence.taught else ""
        told.append(f"random images{alike} reach {percent(random.mean)}")
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
            alike = " with the same labels" if evidence.taught else ""
            boxes.append((f"{sign}{abs(gain):.1f}", f"points over random real images{alike}"))
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
        plural(score.n, unit) if score.n else "",
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
    inner: list[object] = [tag("i", style=f"width:{place(score.mean)}", cls="bar")]
    if score.std and (score.n is None or score.n > 1):
        low, high = max(0.0, score.mean - score.std), min(1.0, score.mean + score.std)
        inner.append(tag("i", style=f"left:{place(low)};width:{place(high - low)}", cls="std"))
    inner += [tag("u", style=f"left:{place(at)}", cls=kind) for kind, at in marks]
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


def place(fraction: float) -> str:
    """Return where a fraction lies on a scale from 0 to 100 %."""
    return f"{100 * min(max(fraction, 0.0), 1.0):.2f}%"


def _word(count: int) -> str:
    return WORDS[count] if 0 < count < len(WORDS) else str(count)
