"""Accuracy of the set next to its baselines and the published figure, as bars."""

from __future__ import annotations

from typing import NamedTuple

from jdd.product.generator import GeneratorSet
from jdd.report import before_after
from jdd.report.evidence import Evidence, Score, mapping
from jdd.report.html import DASH, THIN, mean_std, plural


class Bar(NamedTuple):
    """One accuracy as a bar.

    Attributes:
      label, about: the measured quantity, and the number of nets or draws.
      css: 'ours', 'other', 'paper' (published) or 'run' (of a comparison).
      score: None if it was not measured.
      marks: (css class, fraction) of other accuracies, drawn as lines across the bar.
    """

    label: str
    about: str
    css: str
    score: Score | None
    marks: tuple[tuple[str, float], ...] = ()

    @property
    def spread(self) -> tuple[float, float] | None:
        """Mean minus and plus the standard deviation within [0, 1]; None for a single value."""
        score = self.score
        if score is None or not score.std or (score.n is not None and score.n < 2):
            return None
        return max(0.0, score.mean - score.std), min(1.0, score.mean + score.std)

    @property
    def value(self) -> str:
        """The accuracy as text; a published one has a std but no n."""
        if self.score is None:
            return DASH
        return mean_std(self.score.mean, self.score.std, 2 if self.css == "paper" else self.score.n)


class Accuracy(NamedTuple):
    """The section's values; ``differs`` states limits in comparing with the published figure."""

    note: str
    bars: list[Bar]
    differs: str


def section(evidence: Evidence) -> Accuracy | None:
    """Return the comparison with random images, the whole set and the published figure."""
    scores = evidence.scores
    if not scores or before_after.attacks(evidence):
        return None
    metric = "Mean recall" if evidence.retrieval else "Test accuracy"
    note = (
        f"{metric} in percent of {_tested(scores[evidence.net])} trained by the recipe below: "
        f"final step, mean{THIN}±{THIN}population standard deviation. {_random(evidence)}, "
        f"drawn from the training set, and train nets by the same recipe{_loss(evidence)}."
        f"{_labels(evidence)}"
    )
    notes = evidence.result.get("notes")
    if isinstance(notes, list) and notes:
        note += f" The data: {'; '.join(map(str, notes))}."
    return Accuracy(note, bars(evidence), _differs(evidence))


def _random(evidence: Evidence) -> str:
    if evidence.retrieval:
        return "Random pairs are as many"
    if isinstance(evidence.product, GeneratorSet):
        if evidence.baseline("random_bytes"):
            return "Random images are as many as an epoch's, or take as many bytes as the generator"
        return "Random images take as many bytes as the generator"
    return "Random images are as many"


def _loss(evidence: Evidence) -> str:
    """Return the loss of random pairs where it is not the set's own, with a comma before it."""
    if not evidence.retrieval or mapping(evidence.recipe, "train").get("loss") == "nce":
        return ""
    return ", but by InfoNCE"


def bars(evidence: Evidence) -> list[Bar]:
    """Return this set's bar, then those of its baselines and of the published figure.

    The baselines 'random' and 'full' have a bar even if they were not measured.
    """
    net, score = evidence.net, evidence.scores[evidence.net]
    found = [Bar("This set", nets(score, net), "ours", score)]
    for name, label in {**baselines(evidence), "published": "Published"}.items():
        other = evidence.baseline(name)
        if other is not None:
            css = "paper" if name == "published" else "other"
            found.append(Bar(label, _about(name, other), css, other))
        elif name in ("random", "full"):
            found.append(Bar(label, "not measured in this run", "other", None))
    return found


def baselines(evidence: Evidence) -> dict[str, str]:
    """Return the names of the baselines and their descriptions."""
    random = "Random real images"
    if evidence.retrieval:
        return {"random": "Random real pairs", "full": "All pairs"}
    of_bytes = evidence.baseline("random_bytes")
    if isinstance(evidence.product, GeneratorSet) and not of_bytes:
        random = "Random real images of as many bytes"
    found = {"random": f"{random}, same labels" if evidence.teacher_labelled else random}
    if evidence.baseline("hard"):
        found["hard"] = "This set, hard labels"
    if evidence.baseline("random_hard"):
        found["random_hard"] = f"{random}, hard labels"
    if of_bytes:
        each = f"{of_bytes.about.get('per_class')} of each class"
        fewer = "all there are, " if of_bytes.about.get("fewer_bytes") else ""
        found["random_bytes"] = f"Random real images of as many bytes ({fewer}{each})"
    return found | {"full": "Whole training set"}


def nets(score: Score, net: str) -> str:
    """Return the number of trained nets and of synthesis seeds, in words."""
    seeds = f", {len(score.seeds)} synthesis seeds" if len(score.seeds) > 1 else ""
    if score.n is None:
        return net + seeds
    fresh = "" if "before" in score.about else "fresh "
    return f"{plural(score.n, fresh + net)}{seeds}"


def _labels(evidence: Evidence) -> str:
    """Explain the labels' contribution, for a set whose views are labelled by teachers."""
    if not evidence.teacher_labelled:
        return ""
    words = (
        " Same labels: the same teachers have labelled them in the same way, in views of the same "
        "kind, so that the difference is that of the images."
    )
    if evidence.baseline("hard") or evidence.baseline("random_hard"):
        words += (
            " Hard labels: the same views, but nets learn the classes of what is in them, by their "
            "shares, and nothing from the teachers."
        )
    return words


def _tested(score: Score) -> str:
    """Name the trained nets: fresh ones, or those that the set was made for."""
    return "nets the set was made for," if "before" in score.about else "fresh nets"


def _differs(evidence: Evidence) -> str:
    found = evidence.baseline("published")
    if found is None:
        return ""
    words = str(found.about.get("source", "")).partition(";")[2].strip()
    names = found.about.get("protocol_differs")
    if isinstance(names, list) and names:
        words += "; " if words else ""
        words += f"this run differs from its protocol in {', '.join(map(str, names))}"
    return f"Published: {words}." if words else ""


def _about(name: str, score: Score) -> str:
    if name == "published":
        return str(score.about.get("source", "")).split(";")[0]
    epochs, unit = score.about.get("epochs"), "draw" if name.startswith("random") else "net"
    parts = [
        plural(score.n, unit) if score.n else "",
        plural(int(epochs), "epoch") if epochs and name == "full" else "",
        str(score.about.get("net") or ""),
    ]
    return ", ".join(part for part in parts if part)
