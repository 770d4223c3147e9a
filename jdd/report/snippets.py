"""Code and commands of the report: load the set, train on it, reproduce it."""

from __future__ import annotations

import json
from typing import NamedTuple

from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.pairs import PairSet
from jdd.report import pair_flax, pair_torch, replay, torch_net
from jdd.report.evidence import Evidence, mapping


class Snippet(NamedTuple):
    """Code to run in the set's folder, and its description."""

    title: str
    code: str


def snippets(evidence: Evidence) -> list[Snippet]:
    """Return code that loads the set and trains on it, with this set's numbers."""
    if evidence.unfinished:
        return []
    if evidence.dataset is None:
        return _of_product(evidence)
    blocks: list[tuple[str, str | None]] = [
        ("NumPy: the arrays, and test images in their space", numpy(evidence)),
        ("jdd: evaluate it again", _jdd(evidence)),
    ]
    own = torch_net.net(evidence), torch_net.test(evidence)
    if evidence.stored:
        blocks.append(("NumPy: what nets see and learn in an epoch", replay.numpy(evidence)))
        blocks.append(("PyTorch: train any net on it", replay.torch(evidence, *own)))
    elif mapping(evidence.recipe, "objective").get("kind", "distill") == "distill":
        blocks.append(("PyTorch: train any net on it", replay.plain(evidence, *own)))
    else:
        title = "PyTorch: the steps, on one of the pretrained nets"
        blocks.append((title, replay.plain(evidence)))
    return [Snippet(title, code) for title, code in blocks if code]


def _of_product(evidence: Evidence) -> list[Snippet]:
    """Return code for a product other than a fixed set of images."""
    product = evidence.product
    if product is None:
        return []
    found = [_product(product)]
    if isinstance(product, PairSet):
        programs = {"Flax": pair_flax.program(evidence), "PyTorch": pair_torch.program(evidence)}
        found += [
            Snippet(f"{name}: train two towers on it", code)
            for name, code in programs.items()
            if code
        ]
    return found


def _product(product: AnyProduct) -> Snippet:
    """Return code that loads a product other than a fixed set of images."""
    lines = ["import jdd", 'product = jdd.load("distilled.npz")']
    if isinstance(product, PairSet):
        h, w, c = product.images.shape[1:]
        lines += [
            f"x = product.images  # float32 ({product.size}, {h}, {w}, {c}), normalised",
            f"e = product.text  # float32 ({product.size}, {product.text.shape[1]}), text vectors",
            "product.captions  # the training captions nearest to e",
            "product.similarity  # S = diag(w) + alpha / r L R^T, or None",
            "product.rates  # learned, by tower, or {}",
            'jdd.evaluate("distilled.npz")  # by the whole recipe',
        ]
    else:
        lines += [
            "from jdd import rng",
            'x = product.images(rng.key(0, "mine", 3))  # the images of epoch 3',
            "y = product.labels  # int32, the same in every epoch",
        ]
    return Snippet("jdd: load it", "\n".join(lines))


def settings(evidence: Evidence) -> str:
    """Return every setting of the run as JSON, '' if config.json is missing."""
    return json.dumps(evidence.config, indent=2, default=str) if evidence.config else ""


def version(evidence: Evidence) -> str:
    """Return the version of jdd that made the run, '' if unknown."""
    found = mapping(evidence.result, "versions").get("jdd") or evidence.recipe.get("jdd_version")
    return str(found or "")


def numpy(evidence: Evidence) -> str:
    """Return NumPy code that loads the arrays and moves test images into their space."""
    dataset = evidence.dataset
    assert dataset is not None
    labels = "int32" if dataset.label_kind == "hard" else f"float32, {dataset.label_kind}"
    labels = "int32: the classes" if evidence.stored else labels
    lines = [
        "import json",
        "import numpy as np",
        'z = np.load("distilled.npz")  # no pickle in it',
        f'x = z["images"]  # float32 {tuple(dataset.images.shape)}',
        f'y = z["labels"]  # {labels}',
        'recipe = json.loads(str(z["recipe"]))',
        "# pixels: your images, (n, h, w, c) in [0, 1]",
        *_transform(dataset),
    ]
    return "\n".join(lines)


def _transform(dataset: DistilledSet) -> list[str]:
    """Return the lines that normalise, or whiten, pixels."""
    if not dataset.transform.whitens:
        return ['x_test = (pixels - z["mean"]) / z["std"]']
    whiten = 'x_test = (flat @ z["zca_matrix"]).reshape(pixels.shape)'
    if dataset.transform.kind == "kip":
        return [
            "flat = pixels.reshape(len(pixels), -1)",
            "flat = flat - flat.mean(1, keepdims=True)",
            "flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)",
            whiten,
        ]
    mean = 'flat = pixels.reshape(len(pixels), -1) - z["zca_mean"]'
    first = ['pixels = (pixels - z["mean"]) / z["std"]'] * (dataset.transform.kind == "frepo")
    return [*first, mean, whiten]


def _jdd(evidence: Evidence) -> str:
    kind = mapping(evidence.recipe, "objective").get("kind", "distill")
    others = " --config.nets=ConvNet,VGG11" if kind == "distill" else ""
    lines = [
        "python -m jdd.main --mode=evaluate \\",
        f"    --set=distilled.npz{others}",
        *([f"# {_folders(evidence)} to stay next to the set"] * evidence.stored),
        "",
        "# or from Python",
        "import jdd",
        's = jdd.load("distilled.npz")',
        "s.images, s.labels, s.recipe",
        *(['jdd.evaluate("distilled.npz")  # the path, for its labels'] * evidence.stored),
    ]
    return "\n".join(lines)


def _folders(evidence: Evidence) -> str:
    online = mapping(evidence.recipe, "labels").get("mode") == "online"
    return "the folders labels/ and squeeze/ have" if online else "the folder labels/ has"
