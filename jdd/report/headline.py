"""The headline of the report: one sentence on the result, and its numbers in boxes."""

from __future__ import annotations

from typing import NamedTuple

from jdd import specs
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.report import before_after
from jdd.report.accuracy import nets
from jdd.report.evidence import Evidence
from jdd.report.html import DASH, THIN, duration, mean_std, percent, plural
from jdd.report.html import size as in_bytes
from jdd.report.training import total_seconds

_WORDS = "no one two three four five six seven eight nine ten".split()


class Text(NamedTuple):
    """A part of a sentence: plain, ``strong`` or, as ``ours``, in the colour of this set."""

    words: str
    strong: bool = False
    ours: bool = False


class Box(NamedTuple):
    """A number and its label."""

    value: str
    what: str


class Headline(NamedTuple):
    """The top of a page."""

    eyebrow: str
    sentence: list[Text]
    boxes: list[Box]


def title(evidence: Evidence) -> str:
    """Return the page's title: method, dataset, images per class."""
    return f"{_what(evidence)} {DASH} jdd" if _what(evidence) else "jdd"


def headline(evidence: Evidence) -> Headline:
    """Return one sentence on the result, and its numbers."""
    seed = evidence.known("seed")
    eyebrow = (_what(evidence) or "an unnamed run") + (f" · seed {seed}" if seed else "")
    boxes = _boxes(evidence)
    return Headline(eyebrow, _sentence(evidence), boxes if len(boxes) > 1 else [])


def method(evidence: Evidence) -> str:
    """Return the method's name as papers write it."""
    own = evidence.result.get("title")  # for a method outside the package
    return str(own) if own else specs.title(evidence.known("method"))


def article(net: str) -> str:
    """Return the name of a net with its article: 'a ConvNet', 'an MLP'."""
    return f"{'an' if net[:1] in 'AEIOU' or net.startswith('MLP') else 'a'} {net}"


def _what(evidence: Evidence) -> str:
    ipc = evidence.known("ipc")
    parts = [
        method(evidence),
        evidence.known("dataset"),
        _size(evidence, ipc),
    ]
    return " · ".join(part for part in parts if part)


def _size(evidence: Evidence, ipc: str) -> str:
    if isinstance(evidence.product, PairSet):
        return plural(evidence.product.size, "pair")
    return f"{plural(int(ipc), 'image')} per class" if ipc.isdigit() else ""


def _sentence(evidence: Evidence) -> list[Text]:
    scores, dataset, product = evidence.scores, evidence.dataset, evidence.product
    if isinstance(product, PairSet):
        pairs = Text(plural(product.size, "pair"), strong=True)
        what = " of image and text train towers: " if scores else " of image and text"
        return [pairs, Text(what), *(_recalled(evidence) if scores else [])]
    if isinstance(product, GeneratorSet):
        kind = Text("A generator", strong=True)
        size = in_bytes(product.stored_bytes)
        equal = product.equal_images // product.classes
        alike = plural(equal, "image") if equal else "less than one image"
        words = f" of {size}, the size of {alike} per class,"
        return [kind, Text(words + " trains "), *_reached(evidence)] if scores else [kind]
    if dataset is None:
        if scores:
            return [Text("The set trains "), *_reached(evidence)]
        return [Text(f"Distilling {_source(evidence)}: not finished yet")]
    count = Text(plural(len(dataset.images), "image"), strong=True)
    per = len(dataset.images) / max(dataset.classes, 1)
    each = f", {_word(int(per))} per class," if per == int(per) else ","
    if not scores:
        if evidence.unfinished:
            return [count, Text(f"{each} while distilling {_source(evidence)}: not finished yet")]
        verb = "chosen" if evidence.chosen else "distilled"
        return [count, Text(f"{each} {verb} from {_source(evidence)}")]
    if before_after.attacks(evidence):
        before, reached, after = before_after.sentence(evidence)
        made = Text(reached, strong=True, ours=True)
        return [count, Text(f"{each} and {before}"), made, Text(after)]
    verb = " trains " if len(dataset.images) == 1 else " train "
    return [count, Text(each + verb), *_reached(evidence), Text(_against(evidence))]


def _source(evidence: Evidence) -> str:
    return evidence.known("dataset") or "a dataset"


def _reached(evidence: Evidence) -> list[Text]:
    net = evidence.net
    made = Text(percent(evidence.scores[net].mean), strong=True, ours=True)
    return [Text(f"{article(net)} to "), made]


def _recalled(evidence: Evidence) -> list[Text]:
    made = Text(percent(evidence.scores[evidence.net].mean), strong=True, ours=True)
    return [Text("a mean recall of "), made, Text(_against(evidence))]


def _whole(evidence: Evidence) -> str:
    if evidence.retrieval:
        return "the mean recall of all pairs"
    return "the accuracy of the whole training set"


def _against(evidence: Evidence) -> str:
    """Return what the same net reaches on random images and on the whole set; '' if unknown."""
    net = evidence.net
    random, full = evidence.baseline("random", net), evidence.baseline("full", net)
    parts = []
    if random:
        alike = " with the same labels" if evidence.teacher_labelled else ""
        parts.append(f"{percent(random.mean)} on random {evidence.examples}{alike}")
    if full:
        every = "all pairs" if evidence.retrieval else "the whole training set"
        parts.append(f"{percent(full.mean)} on {every}")
    return f" \u2014 the same net reaches {', '.join(parts)}" if parts else ""


def _boxes(evidence: Evidence) -> list[Box]:
    boxes = _accuracies(evidence)
    if evidence.share:
        ratio = f"{1 / evidence.share:.0f}" if evidence.share < 0.1 else f"{1 / evidence.share:.1f}"
        what = "chosen to all training" if evidence.chosen else "synthetic to real training"
        boxes.append(Box(f"1{THIN}:{THIN}{ratio}", f"{what} {evidence.examples}"))
    seconds = total_seconds(evidence)
    if seconds and len(boxes) < 4:
        apart = ", the whole training set apart" if evidence.baseline("full") else ""
        boxes.append(Box(duration(seconds), f"for the run{apart}"))
    return boxes


def _accuracies(evidence: Evidence) -> list[Box]:
    if before_after.attacks(evidence):
        return [Box(value, what) for value, what in before_after.boxes(evidence)]
    if not evidence.scores:
        return []
    score = evidence.scores[evidence.net]
    net = evidence.net
    random, full = evidence.baseline("random", net), evidence.baseline("full", net)
    recall = "mean recall, " * evidence.retrieval
    boxes = [Box(mean_std(score.mean, score.std, score.n), recall + nets(score, evidence.net))]
    if random:
        gain = 100 * (score.mean - random.mean)
        alike = " with the same labels" if evidence.teacher_labelled else ""
        value = f"{'+' if gain >= 0 else '−'}{abs(gain):.1f}"
        words = f"points {'over' if gain >= 0 else 'against'} random real {evidence.examples}"
        boxes.append(Box(value, f"{words}{alike}, {net}"))
    if full and full.mean > 0:
        value = f"{100 * score.mean / full.mean:.0f}{THIN}%"
        boxes.append(Box(value, f"of {_whole(evidence)}, {net}"))
    return boxes


def _word(count: int) -> str:
    return _WORDS[count] if 0 < count < len(_WORDS) else str(count)
