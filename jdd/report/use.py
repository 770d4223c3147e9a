"""How to use the set and how to make it again."""

from __future__ import annotations

import json

from jdd.report import replay
from jdd.report.evidence import Evidence, mapping
from jdd.report.html import Html, tag


def snippets(evidence: Evidence) -> Html | None:
    """Show how to load the set and train on it, with this set's own numbers."""
    dataset = evidence.dataset
    if dataset is None:
        return None
    blocks: list[tuple[str, str | None]] = [
        ("NumPy: the arrays, and test images in their space", _numpy(evidence)),
        ("jdd: evaluate it again", _jdd(evidence)),
    ]
    if evidence.stored:
        blocks.append(("NumPy: what nets see and learn in an epoch", replay.numpy(evidence)))
        blocks.append(("PyTorch: train any net on it", replay.torch(evidence)))
    elif mapping(evidence.recipe, "objective").get("kind", "distill") == "distill":
        blocks.append(("PyTorch: train any net on it", replay.plain(evidence)))
    else:
        title = "PyTorch: the steps, on one of the pretrained nets"
        blocks.append((title, replay.plain(evidence)))
    parts = [
        tag("figure", tag("figcaption", title), tag("pre", tag("code", code)))
        for title, code in blocks
        if code
    ]
    return tag("section", tag("h2", "Use it"), tag("div", *parts, cls="code"))


def command(evidence: Evidence) -> Html | None:
    """Show the command that makes the run again, and every setting of it."""
    parts = []
    line = evidence.known("command")
    if line:
        parts.append(tag("pre", tag("code", line), cls="wrap"))
    if evidence.config:
        text = json.dumps(evidence.config, indent=2, default=str)
        parts.append(
            tag(
                "details",
                tag("summary", "Every setting (config.json)"),
                tag("pre", tag("code", text)),
            )
        )
    return tag("section", tag("h2", "Make it again"), *parts) if parts else None


def footer(evidence: Evidence) -> Html:
    """Name the maker."""
    version = mapping(evidence.result, "versions").get("jdd") or evidence.recipe.get("jdd_version")
    return made_by(str(version or ""))


def made_by(version: str) -> Html:
    """Return the foot of a page."""
    return tag(
        "footer",
        f"Made by jdd {version}".strip(),
        " · one file, nothing loaded from elsewhere",
    )


def _numpy(evidence: Evidence) -> str:
    dataset = evidence.dataset
    assert dataset is not None
    labels = "int32" if dataset.label_kind == "hard" else f"float32, {dataset.label_kind}"
    labels = "int32: the classes" if evidence.stored else labels
    shape = tuple(dataset.images.shape)
    if dataset.transform.whitens:
        own = [
            "flat = pixels.reshape(len(pixels), -1)",
            "flat = flat - flat.mean(1, keepdims=True)",
            "flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)",
        ]
        mean = ['flat = pixels.reshape(len(pixels), -1) - z["zca_mean"]']
        if dataset.transform.kind == "frepo":
            mean = ['pixels = (pixels - z["mean"]) / z["std"]', *mean]
        move = [
            "# pixels: your images, (n, h, w, c) in [0, 1]",
            *(own if dataset.transform.kind == "kip" else mean),
            'x_test = (flat @ z["zca_matrix"]).reshape(pixels.shape)',
        ]
    else:
        move = [
            "# pixels: your images, (n, h, w, c) in [0, 1]",
            'x_test = (pixels - z["mean"]) / z["std"]',
        ]
    lines = [
        "import json",
        "import numpy as np",
        'z = np.load("distilled.npz")  # no pickle in it',
        f'x = z["images"]  # float32 {shape}',
        f'y = z["labels"]  # {labels}',
        'recipe = json.loads(str(z["recipe"]))',
        *move,
    ]
    return "\n".join(lines)


def _kept(evidence: Evidence) -> str:
    online = mapping(evidence.recipe, "labels").get("mode") == "online"
    return "the folders labels/ and squeeze/ have" if online else "the folder labels/ has"


def _jdd(evidence: Evidence) -> str:
    kind = mapping(evidence.recipe, "objective").get("kind", "distill")
    others = " --config.nets=ConvNet,VGG11" if kind == "distill" else ""
    lines = [
        "python -m jdd.main --mode=evaluate \\",
        f"    --set=distilled.npz{others}",
        *([f"# {_kept(evidence)} to stay beside the set"] * evidence.stored),
        "",
        "# or from Python",
        "import jdd",
        's = jdd.load("distilled.npz")',
        "s.images, s.labels, s.recipe",
        *(['jdd.evaluate("distilled.npz")  # the path, for its labels'] * evidence.stored),
    ]
    return "\n".join(lines)
