"""What limits a result, in sentences: what was measured, what it means, what to try.

A sentence is written where a figure passes its threshold below; a healthy run has none. Figures
that need the data are measured by ``stages/limits.py`` and stored as ``limits`` in result.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jdd import specs
from jdd.data.catalogue import lookup
from jdd.data.transform import MOST
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.headline import article
from jdd.report.training import scalars
from jdd.schema.key import AUTO
from jdd.schema.values import flat
from jdd.specs.base import Spec

# Thresholds, each named in the sentence that it decides.
NEAR_CHANCE = 1.5  # accuracy of experts and teachers, in multiples of chance, and
NEAR_GAIN = 0.1  # what it is above chance, in parts of what is left to 100 %
FAR_BELOW = 0.5  # their gain over chance, in parts of that of the whole-set baseline
FELL, GREW = 0.01, 10.0  # a learned rate, in multiples of its start
IMBALANCE = 10  # images of the largest class over those of the smallest
# A set is clipped if most values are further beyond black or white than the range between them. Of
# 41 sets of 15 methods at jdd's own settings (37 of digits, 4 of CIFAR-10), 8 had most values
# beyond black or white, up to 0.89, but at most 0.38 that far; at a far too large rate all are. The
# probe leaves out rates by the same line (``stages/probe.py``).
CLIPPED = 1.0  # distance from [0, 1]
MIRRORED = 0.5  # gain over chance of mirrored images, in parts of that of upright ones
TRIED = 3  # values of a probe, at least, for one of them to be an end
STANDARD_ERRORS = 2  # by which mirrored images are worse, at least
FALLING = 0.95  # last losses over those in the middle of a run: below, it is still falling

ANEW = "with a new --workdir"
_USUAL = 3.0  # a rate is off if it is by more than this factor


def sentences(evidence: Evidence) -> list[str]:
    """Return the sentences on a finished run; [] where nothing limits it, or nothing is known."""
    if not evidence.scores:
        return []
    return [words for rule in RULES for words in [rule(evidence)] if words]


def mirroring(values: Mapping[str, Any], dsa: str) -> dict[str, str]:
    """Return the keys by which a run mirrors images, with their values for not doing so.

    Args:
      values: the config by dotted name.
      dsa: the dataset's resolved DSA strategy, for ``data.dsa=auto``.
    """
    found = {}
    lists = {"data.dsa": dsa, "squeeze.augment": values.get("squeeze.augment")}
    lists["augment"] = values.get("augment")
    for name, given in lists.items():
        if name == "data.dsa" and "squeeze.augment" in values:  # its views have keys of their own
            continue
        ops = given.split("_") if isinstance(given, str) else []
        if "flip" in ops and name in values:
            found[name] = "_".join(op for op in ops if op != "flip") or "none"
    for name, value in values.items():
        if name.rpartition(".")[2] == "flip" and isinstance(value, bool | int | float) and value:
            found[name] = "false" if isinstance(value, bool) else "0"
    return found


def _experts(evidence: Evidence) -> str:
    """Experts at chance, or far below the whole-set baseline of the same net."""
    own = real(mapping(evidence.result, "limits").get("experts"))
    if own is None or not (against := _weak(evidence, own)):
        return ""
    means = "a set learns no more than they know"
    return f"The experts are weak: {_percent(own)} on the test images, {against}; {means}" + _try(
        _training(evidence, "experts")
    )


def _teachers(evidence: Evidence) -> str:
    """Teachers at chance, or far below the whole-set baseline."""
    known = {name: real(value) for name, value in mapping(evidence.result, "teachers").items()}
    weak = {name: a for name, a in known.items() if a is not None and _weak(evidence, a)}
    if not weak:
        return ""
    name, own = min(weak.items(), key=lambda item: item[1])
    means = "their labels are no better, whatever the images"
    return (
        f"Teacher {name} is weak: {_percent(own)} on the test images, {_weak(evidence, own)}; "
        f"{means}" + _try(_training(evidence, "squeeze"))
    )


def _weak(evidence: Evidence, accuracy: float) -> str:
    """Return what a trained net's accuracy falls short of, in words; '' if it does not."""
    chance = real(mapping(evidence.result, "limits").get("chance"))
    if chance is None:
        return ""
    near = min(NEAR_CHANCE * chance, chance + NEAR_GAIN * (1 - chance))
    net = str(_value(evidence, "net.name") or "")
    full = evidence.baseline("full", net)
    if full and full.mean > near and accuracy - chance < FAR_BELOW * (full.mean - chance):
        reaches = f"{article(net)} trained on the whole set reaches {_percent(full.mean)}"
        return f"where {reaches}"
    return f"near chance ({_percent(chance)})" if accuracy <= near else ""


def _training(evidence: Evidence, group: str) -> str:
    """Return a flag that trains experts or teachers better: rate, batch, then epochs."""
    rate, usual = _value(evidence, f"{group}.lr"), _usual(evidence, f"{group}.lr")
    if rate and usual and not 1 / _USUAL <= rate / usual <= _USUAL:
        return f"--config.{group}.lr={usual:g} (now {rate:g}), {ANEW}"
    batch = _value(evidence, f"{group}.batch")
    images = real(mapping(evidence.result, "limits").get("images"))
    if batch and images and batch > images / 10 > 1:
        few = max(2, int(images) // 10)
        return f"--config.{group}.batch={few} (now {batch:g}: few steps an epoch), {ANEW}"
    key = "max_start_epoch" if _value(evidence, "max_start_epoch") else f"{group}.epochs"
    epochs = _value(evidence, key)
    return f"--config.{key}={2 * epochs:g} (now {epochs:g}), {ANEW}" if epochs else ""


def _probed(evidence: Evidence) -> str:
    """A probe that chose the smallest or the largest rate it tried, and not the row's own."""
    found = mapping(evidence.recipe, "probe")
    listed = found.get("tried")
    for key, value in mapping(found, "chosen").items():
        rows = listed if isinstance(listed, list | tuple) else []
        values = [real(row.get(key)) for row in rows if isinstance(row, Mapping)]
        tried = sorted(v for v in values if v is not None)
        chosen = real(value)
        if chosen is None or len(tried) < TRIED:
            continue
        row = real(mapping(found, "row").get(key))
        if row is not None and math.isclose(chosen, row, rel_tol=1e-2):
            continue
        low, high = (math.isclose(chosen, end, rel_tol=1e-2) for end in (tried[0], tried[-1]))
        if not low and not high:
            continue
        ratio = tried[0] / tried[1] if low else tried[-1] / tried[-2]
        end, side = ("smallest", "below") if low else ("largest", "above")
        return (
            f"The probe chose {key}={chosen:g}, the {end} of the {len(tried)} values it tried: "
            f"the best one may lie {side}" + _try(f"--config.{key}={chosen * ratio:.3g}, {ANEW}")
        )
    return ""


def _rate(evidence: Evidence) -> str:
    """A learned rate of the students near zero, or far above its start."""
    start, learned = _value(evidence, "lr_student"), real(evidence.result.get("lr"))
    if not start or learned is None or FELL * start < learned < GREW * start:
        return ""
    moved = f"The learned rate of the students went from {start:g} to {learned:.3g}"
    if learned <= FELL * start:
        own = _value(evidence, "lr_lr")
        means = "students hardly move on this set"
        return f"{moved}: {means}" + _try(own and f"--config.lr_lr={own / 10:g}, {ANEW}")
    means = "it started far from where it belongs"
    return f"{moved}: {means}" + _try(f"--config.lr_student={learned:.2g}, {ANEW}")


def _below(evidence: Evidence) -> str:
    """A set below random real images of the same number by more than both spreads."""
    net, method = evidence.net, evidence.known("method")
    random, own = evidence.baseline("random", net), evidence.scores[net]
    if random is None or method.startswith("random"):
        return ""
    known = [s for s in (own.std, random.std) if s is not None]
    if not known or random.mean - own.mean <= (sum(known) if len(known) > 1 else 2 * known[0]):
        return ""
    return (
        f"This set is below random real {evidence.examples}: {_percent(own.mean)} against "
        f"{_percent(random.mean)}, by more than both spreads; {_why_below(evidence)}"
    )


def _why_below(evidence: Evidence) -> str:
    """Return what a set below random images means, and what to try, by the course of its loss."""
    if evidence.chosen:
        return "the choice is worse than none" + _try(f"--config=random, {ANEW}")
    steps, rate = _value(evidence, "steps"), _slower(evidence)
    losses = [v for points in scalars(evidence, "loss").values() for _, v in sorted(points)]
    tenth = max(1, len(losses) // 10)
    middle = len(losses) // 2
    if steps and len(losses) >= 20:
        last, before = np.mean(losses[-tenth:]), np.mean(losses[middle : middle + tenth])
        if last < FALLING * before:
            return "its loss was still falling" + _try(f"--config.steps={2 * steps:g}")
    if _value(evidence, "squeeze.epochs"):
        epochs = _value(evidence, "eval.epochs")
        return "students may have learned too briefly" + _try(
            epochs and f"--config.eval.epochs={2 * epochs:g}, {ANEW}"
        )
    if rate:
        return "its steps may be too long" + _try(rate)
    gan = "steps" if _value(evidence, "gan.width") else ""  # of DiM these are the net's steps
    for key in ("gan_steps", gan, "diffusion.steps", "vae.steps"):
        if count := _value(evidence, key):
            return "the generator may be trained too briefly" + _try(
                f"--config.{key}={2 * count:g}, {ANEW}"
            )
    return "distilling has lost more than it found" + _try(f"--config=random, {ANEW}")


def _imbalanced(evidence: Evidence) -> str:
    """Classes of very different sizes, where nets are trained on all images, not balanced."""
    limits = mapping(evidence.result, "limits")
    few, many = (mapping(mapping(limits, "classes"), n) for n in ("smallest", "largest"))
    least, most = real(few.get("images")), real(many.get("images"))
    if not least or not most or most < IMBALANCE * least:
        return ""
    group = next((g for g in ("squeeze", "experts") if g in _nets(evidence)), "")
    if not group or _value(evidence, f"{group}.balanced"):
        return ""
    small = mapping(limits, "small_classes")
    right = real(small.get("accuracy"))
    measured = ""
    if right is not None:
        measured = f" ({small.get('of')} gets {_percent(right)} of their test images right)"
    advice = f"--config.{group}.balanced=true, {ANEW} and no --config.{group}.dir of before"
    return (
        f"Labels are imbalanced: {most:g} training images of {many.get('name')} and {least:g} of "
        f"{few.get('name')}; nets trained on all images hardly see the small classes"
        f"{measured}" + _try(advice)
    )


def _nets(evidence: Evidence) -> list[str]:
    """Return which nets on real images a run's set depends on: experts, or squeeze's teachers."""
    found = ["squeeze"] * bool(mapping(evidence.result, "teachers"))
    return found + ["experts"] * ("experts" in mapping(evidence.result, "limits"))


def _clipped(evidence: Evidence) -> str:
    """A learned set most of whose values are far beyond black or white."""
    dataset = evidence.dataset
    if dataset is None or evidence.chosen or dataset.transform.kind == "kip":
        return ""  # kip: every image had a brightness of its own, which is not known any more
    share = dataset.transform.beyond(dataset.images, CLIPPED)
    if share <= MOST:
        return ""
    return (
        f"The images are mostly clipped: {_percent(share)} of their values are further beyond "
        "black or white than white is from black, which pictures cannot show; a little beyond is "
        "usual"
    ) + _try(_slower(evidence))


def _unsuited(evidence: Evidence) -> str:
    """Mirrored views of images whose left and right carry meaning."""
    limits = mapping(evidence.result, "limits")
    found = mapping(limits, "mirrored")
    keys = mapping(found, "without")
    upright, mirrored, n = (real(found.get(name)) for name in ("upright", "mirrored", "n"))
    if not keys or upright is None or mirrored is None or not n:
        return ""
    facts, chance = lookup(evidence.known("dataset")), real(limits.get("chance")) or 0.0
    forbidden = facts is not None and "flip" not in facts.dsa
    error = math.sqrt((upright * (1 - upright) + mirrored * (1 - mirrored)) / n)
    far = mirrored - chance < MIRRORED * (upright - chance)
    if not forbidden and not (far and upright - mirrored > STANDARD_ERRORS * error):
        return ""
    flags = " ".join(f"--config.{name}={value}" for name, value in keys.items())
    return (
        "The augmentation is unsuited: images are mirrored, but the nearest real image has the "
        f"same class for {_percent(mirrored)} of mirrored test images, for {_percent(upright)} of "
        "upright ones: left and right carry meaning here"
    ) + _try(f"{flags}, {ANEW}")


RULES: tuple[Callable[[Evidence], str], ...] = (
    _experts, _teachers, _probed, _rate, _below, _imbalanced, _clipped, _unsuited,
)  # fmt: skip


def _value(evidence: Evidence, name: str) -> Any:
    """Return a number, truth or word of the run's config; None if it has none or it is 'auto'."""
    value = flat(evidence.config).get(name)
    return None if value == AUTO else value


def _usual(evidence: Evidence, name: str) -> float | None:
    """Return the method's own value of a key: of its start for the dataset, or of its defaults."""
    method = evidence.known("method")
    if method not in specs.names():
        return None
    spec: Spec = specs.get(method)
    start = spec.starts.get(evidence.known("dataset"), {})
    key = spec.keys.get(name)
    return real(start.get(name, spec.defaults.get(name, key.default if key else None)))


def _slower(evidence: Evidence) -> str:
    """Return a flag that lowers the images' learning rate: to the method's own, else to a tenth."""
    rate, usual = _value(evidence, "lr_img"), _usual(evidence, "lr_img")
    if not rate:
        return ""
    less = usual if usual and usual < rate / _USUAL else rate / 10
    return f"--config.lr_img={less:g} (now {rate:g}), {ANEW}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _try(advice: str | None) -> str:
    return f"; try {advice}." if advice else "."
