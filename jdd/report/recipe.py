"""The training recipe in words: a table, and its cells for comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.data.quantise import QUALITY
from jdd.evaluation import rules
from jdd.product.pairs import PairSet
from jdd.report import steps_back, stopped
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import number, percent
from jdd.training.recipe import Recipe

# What the labels refer to, by mode (``soft_labels/modes.py``).
_LABELLED = {
    "views": "of every view",
    "static": "of every image as a whole, for all its views",
    "map": "of every view, read from a label map of its image",
    "online": "of every view, while nets learn",
}
_PIXELS = {
    "round": "8 bits a channel, rounded, before they were labelled",
    "truncate": "8 bits a channel, cut off, before they were labelled",
    "jpeg": f"as a JPEG of quality {QUALITY} holds them, before they were labelled",
}


def table(evidence: Evidence) -> list[tuple[str, str]]:
    """Return the rows (what, value) of the training recipe."""
    found = evidence.recipe
    if not found:
        return []
    train = mapping(found, "train")
    chosen = "real ones, chosen: 0 distillation steps"
    rows = [
        ("Net", named(mapping(found, "net"))),
        ("Teachers", _teachers(evidence)),
        ("Optimiser", optimiser(train)),
        ("Learning rate", rates(evidence)),
        ("Schedule", schedule(train)),
        ("Loss", loss(train) + _weighted(evidence)),
        ("Labels", _labels(evidence)),
        ("Augmentation", augmentation(evidence)),
        ("Input", _input(found)),
        ("Pixels", _PIXELS.get(str(evidence.config.get("quantise")), "")),
        ("Selection", _selected(str(found["selection"])) if found.get("selection") else ""),
        ("Distilling steps", _steps(evidence)),
        ("Probed rates", _probed(found)),
        ("Steps back", "; ".join(steps_back.sentences(evidence))),
        (evidence.examples.capitalize(), chosen if evidence.chosen else ""),
        ("Rows", "recipe['selected'], in the training split" if evidence.chosen else ""),
        ("Wrong labels", _wrong(found)),
        ("Dataset fingerprint", str(found.get("data_fingerprint", ""))),
    ]
    return [(name, value) for name, value in rows if value]


def _wrong(found: Mapping[str, Any]) -> str:
    """Return in words how many labels of the chosen images are not the dataset's own."""
    counts = mapping(found, "wrong_labels")
    return f"{counts.get('count')} of {counts.get('of')} of the chosen images" if counts else ""


STUDENT = "lr_student"  # probed at the images of step 0


def _probed(found: Mapping[str, Any]) -> str:
    """Return in words the rates that the run chose by a few steps at several, and the row's."""
    probe = mapping(found, "probe")
    row = mapping(probe, "row")
    chosen = {name: real(value) for name, value in mapping(probe, "chosen").items()}
    known = {name: value for name, value in chosen.items() if value is not None}
    listed = probe.get("tried")
    tried = [one for one in listed if isinstance(one, Mapping)] if listed else []
    words = []
    for name, rate in known.items():
        by = "the loss at the start" if name == STUDENT else f"{value(probe, 'steps')} steps"
        count = sum(name in one for one in tried)
        words.append(
            f"{name} {number(rate)}, by {by} at each of {count} rates "
            f"(the nearest row's: {value(row, name)})"
        )
    return "; ".join(words)


def named(net: Mapping[str, Any]) -> str:
    """Name a net with its options."""
    options = ", ".join(f"{k} {v}" for k, v in mapping(net, "options").items())
    return f"{net.get('name', '')}{f' ({options})' if options else ''}"


def rates(evidence: Evidence) -> str:
    """Return in words the rate for training: one, one for every step, or one for each branch."""
    recorded = mapping(evidence.recipe, "train").get("lr")
    if isinstance(evidence.product, PairSet) and evidence.product.applied_rates:
        branches = evidence.product.applied_rates
        by_name = (f"{name} {number(value)}" for name, value in branches.items())
        if mapping(evidence.recipe, "train").get("rates") == "image":
            return f"{number(branches['image'])} (learned, of the image tower)"
        return f"{', '.join(by_name)} (learned)"
    if isinstance(recorded, list):
        return f"one for each of {len(recorded)} steps"
    return f"{number(rate(evidence))}{' (learned)' if learned(evidence) else ''}"


def learned(evidence: Evidence) -> bool:
    """Return whether nets are trained at the set's learned rate or rates."""
    if isinstance(evidence.product, PairSet):
        return bool(evidence.product.applied_rates)
    return evidence.dataset is not None and evidence.dataset.lr == rate(evidence)


def rate(evidence: Evidence) -> float:
    """Return the learning rate for training: the recipe's, else the learned one."""
    stated = real(mapping(evidence.recipe, "train").get("lr"))
    learned = evidence.dataset.lr if evidence.dataset else None
    return next((rate for rate in (stated, learned) if rate is not None), 0.01)


def training(train: Mapping[str, Any]) -> Recipe | None:
    """Return a set's ``recipe["train"]`` as options; None if jdd cannot train by it."""
    return None if rules.has_invalid_entry(train) else Recipe.from_json(train)


def optimiser(train: Mapping[str, Any]) -> str:
    """Name the optimiser and its settings."""
    return _sentence(train, "optimiser")


def _selected(selection: str) -> str:
    """Return which step's images the set holds, in words."""
    return "final step" if selection == "last" else f"{selection} step"


def schedule(train: Mapping[str, Any]) -> str:
    """Return in words the length of training, the batches, the schedule of the rate, and the tested
    weights.
    """
    return _sentence(train, "schedule")


def loss(train: Mapping[str, Any]) -> str:
    """Name the loss."""
    return _sentence(train, "loss")


def _sentence(train: Mapping[str, Any], row: str) -> str:
    found = training(train)
    return found.sentence(row) if found else ""


def _weighted(evidence: Evidence) -> str:
    """Return in words the range of the images' weights; '' without weights."""
    weights = evidence.dataset.weights if evidence.dataset else None
    if weights is None:
        return ""
    low, high = number(float(weights.min())), number(float(weights.max()))
    return f"; of each image times its weight, {low} to {high} (mean 1)"


def labels(evidence: Evidence) -> str:
    """Return the kind of the labels; for stored labels, their teachers and form."""
    if not evidence.stored:
        return evidence.dataset.label_kind if evidence.dataset else ""
    mode = str(mapping(evidence.recipe, "labels").get("mode", "views"))
    return f"{_LABELLED.get(mode, mode)}, by {_by(evidence)}; mode {mode}, {_form(evidence, mode)}"


def augmentation(evidence: Evidence) -> str:
    """Name the augmentation used in training."""
    augment = mapping(evidence.recipe, "augment")
    if evidence.stored:
        seen = ", ".join(views(evidence))
        return f"as the stored views say{f': {seen}' if seen else ''}"
    if augment.get("name") in (None, "", "none"):
        return "none"
    strategy = str(augment.get("strategy", "")).replace("_", ", ")
    return f"{str(augment.get('name')).upper()} ({strategy})"


def spec(evidence: Evidence) -> Mapping[str, Any]:
    """Return the distribution of a set's views, empty if unknown."""
    stored = mapping(evidence.labels, "view") or mapping(mapping(evidence.recipe, "labels"), "view")
    config = mapping(evidence.config, "relabel")
    if stored or not config:
        return stored
    return {**config, "scale": [config.get("min_scale"), 1.0]}


def views(evidence: Evidence) -> list[str]:
    """Return the preprocessing of an image, in order."""
    found = spec(evidence)
    strips, flip, pad = (real(found.get(name)) for name in ("shuffle", "flip", "pad"))
    scale, crop, mix = found.get("scale"), found.get("crop"), found.get("mix")
    least = real(scale[0]) if isinstance(scale, list | tuple) and scale else None
    words, operations = [], real(found.get("randaugment"))
    if operations:
        strength = value(found, "magnitude")
        words.append(f"RandAugment ({number(operations)} operations of magnitude {strength})")
    if strips and strips > 1:
        words.append(f"{number(strips)} × {number(strips)} cells shuffled")
    if crop == "resized":
        words.append("resized crop" + (f" of {number(100 * least)} to 100 %" if least else ""))
    if crop == "padded":
        words.append("shifted crop" + (f" (up to {number(pad)} px)" if pad else ""))
    if flip:
        words.append(f"mirrored with chance {number(flip)}")
    if mix in ("cutmix", "mixup"):
        words.append(f"{mix} (alpha {value(found, 'alpha')})")
    return words


def value(found: Mapping[str, Any], name: str) -> str:
    """Return a setting in its shortest form."""
    parsed = real(found.get(name))
    return number(parsed) if parsed is not None else str(found.get(name, ""))


def _teachers(evidence: Evidence) -> str:
    names = [
        name if reached is None else f"{name}, {percent(reached)}"
        for name, reached in evidence.teachers.items()
    ]
    known = any(reached is not None for reached in evidence.teachers.values())
    return "; ".join(names) + " on the test images" * known


def _by(evidence: Evidence) -> str:
    names = list(evidence.teachers)
    how = {"mean": "mean of their logits", "equal_norm": "mean of their logits at one length"}
    norms = {"eval": "batch norm as trained", "batch": "batch norm by the batch's own statistics"}
    settings = evidence.labels or mapping(evidence.config, "relabel")
    notes = [how.get(str(settings.get("combine")), "")] * (len(names) > 1)
    notes = [word for word in (*notes, norms.get(str(settings.get("bn")), "")) if word]
    about = f" ({', '.join(notes)})" if notes else ""
    return f"the teacher{'s' * (len(names) > 1)} {', '.join(names)}{about}"


def _form(evidence: Evidence, mode: str) -> str:
    settings = mapping(evidence.recipe, "labels")
    if mode == "map":
        return f"the {value(settings, 'k')} largest logits at each place"
    form, temperature = str(settings.get("form")), real(evidence.labels.get("temperature"))
    words = [f"form {form}", f"k = {value(settings, 'k')}" if form.startswith("topk") else ""]
    words.append(
        f"made at temperature {number(temperature)}" if temperature and form != "hard" else ""
    )
    return ", ".join(word for word in words if word)


def _labels(evidence: Evidence) -> str:
    folder = mapping(evidence.recipe, "labels").get("store")
    return labels(evidence) + (f"; folder {folder}" if evidence.stored else "")


def _steps(evidence: Evidence) -> str:
    found = evidence.recipe
    if not found.get("steps"):
        return ""
    if ended := mapping(found, "stopped"):
        return stopped.sentence(ended)
    return value(found, "steps") + " for each batch of images" * evidence.stored


def _input(found: Mapping[str, Any]) -> str:
    whitening = str(found.get("whitening", "none"))
    if whitening != "none":
        return f"whitened by {whitening.replace('_', ' ')}; mean and matrix are in the file"
    stats = mapping(found, "normalisation")
    mean, std = (
        ", ".join(number(v) for v in map(real, stats.get(k) or []) if v is not None)
        for k in ("mean", "std")
    )
    return f"(pixels − {mean}) / {std}, pixels in [0, 1]" if mean and std else ""
