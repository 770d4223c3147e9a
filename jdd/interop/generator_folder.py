"""A generator as a folder for other programs: safetensors, config.json and a page with code.

    generator.safetensors   params/* and the transform (mean, std, whitening)
    config.json             kind, schema version, architecture, recipe
    example.safetensors     latents z, labels, and jdd's images of them
    README.md               PyTorch and Flax programs that draw the same images

``jdd.load`` reads the folder again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.errors import BadInput
from jdd.interop import class_folders, generator_code
from jdd.product import generator
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import WEIGHTS
from jdd.product.generator import GeneratorSet
from jdd.storage import json_files, regular, tree_digests
from jdd.storage.files import new_folder
from jdd.storage.tensors import import_package

CONFIG, EXAMPLE, PAGE = "config.json", "example.safetensors", "README.md"
FORMATS = ("npz", "png", "weights")
_WORDS = ("schema_version", "kind", "generator", "recipe")  # of the arrays: in config.json
_NEEDED = "a folder that jdd has exported with --format=weights"


def export(product: GeneratorSet, path: Path, fmt: str, images: int | None = None) -> Path:
    """Write a generator as one of ``FORMATS``.

    Args:
      images: of 'png': images of each class; None for as many as an epoch has.

    Raises:
      BadInput: another format, or ``path`` cannot be written.
    """
    if fmt not in FORMATS:
        found = f"a product of kind {product.kind!r} as {fmt}"
        raise BadInput("format", found, f"one of {', '.join(FORMATS)}")
    if images is not None and fmt != "png":
        raise BadInput("--images", f"given with the format {fmt}", "--format=png draws them")
    if fmt == "npz":
        return product.save(path)
    if fmt == "png":
        return class_folders.write(drawn(product, images or product.per_class), path)
    return write(product, path)


def drawn(product: GeneratorSet, per_class: int) -> DistilledSet:
    """Return ``per_class`` images of each class as a fixed set, the same ones every time."""
    labels = np.repeat(np.arange(product.classes, dtype=np.int32), per_class)
    images = product.drawn(rng.key(0, "export"), labels)
    recipe = product.recipe | {"ipc": per_class}
    return DistilledSet(images, labels, "hard", None, recipe, product.transform)


def write(product: GeneratorSet, path: Path) -> Path:
    """Write the folder, all or nothing.

    Raises:
      BadInput: safetensors is missing; ``path`` is not empty or cannot be written.
    """
    save = import_package("--format=weights").numpy.save  # save_file: readable by the owner alone
    arrays = generator.to_arrays(generator.validate(product, str(path)))
    words = {name: str(arrays.pop(name)) for name in _WORDS}
    described = {
        "kind": words["kind"],
        "schema_version": int(words["schema_version"]),
        "generator": json.loads(words["generator"]),
        "recipe": json.loads(words["recipe"]),
    }
    with new_folder(path) as part:
        found = {n: np.array(a, order="C") for n, a in arrays.items()}
        described["digest"] = _digest(described, found)
        (part / WEIGHTS).write_bytes(save(found))
        (part / EXAMPLE).write_bytes(save(example(product)))
        (part / CONFIG).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        (part / PAGE).write_text(page(product), encoding="utf-8")
    return path


def example(product: GeneratorSet) -> dict[str, np.ndarray]:
    """Return latents, labels and images: one of each class, at most ten."""
    labels = np.arange(min(10, product.classes), dtype=np.int32)
    draw = rng.host(0, "export/example")
    z = draw.standard_normal((len(labels), product.architecture["latent"])).astype(np.float32)
    images = np.asarray(product.apply(jnp.asarray(z), jnp.asarray(labels)))
    return {"z": z, "labels": labels, "images": np.ascontiguousarray(images)}


def read(path: Path) -> GeneratorSet:
    """Read a folder that ``write`` wrote; nothing in it is executed.

    Raises:
      BadInput: a file is missing or damaged, or the weights are not those of the architecture.
    """
    where, package = str(path), import_package(str(path))
    try:
        described = json_files.parse(regular.read_bytes(path / CONFIG), str(path / CONFIG), _NEEDED)
        words = {name: described[name] for name in _WORDS}
    except (OSError, KeyError) as error:
        raise BadInput(f"{path / CONFIG}", f"no description ({error})", _NEEDED) from error
    regular.validate(path / WEIGHTS)
    try:
        arrays: dict[str, Any] = package.numpy.load_file(path / WEIGHTS)
    except (package.SafetensorError, OSError, ValueError, TypeError) as error:
        found = f"not a whole safetensors file ({error})"
        raise BadInput(f"{path / WEIGHTS}", found, _NEEDED) from error
    product = generator.from_arrays(_as_arrays(words, where) | arrays, where)
    if "digest" in described and described.pop("digest") != _digest(described, arrays):
        edited = f"export it again; if {CONFIG} was edited, delete its digest"
        raise BadInput(where, "damaged: not what was written", edited)
    return product


def _digest(described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return the hash of a description and of the weights: the formats have no checksums."""
    words = np.frombuffer(json_files.digest(described).encode(), np.uint8)
    return tree_digests.of_arrays({"words": words, "tensors": dict(arrays)})


def _as_arrays(words: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    if words["kind"] != "generator" or not isinstance(words["schema_version"], int):
        raise BadInput(where, f"a product of kind {words['kind']!r}", _NEEDED)
    texts = {name: np.asarray(json.dumps(words[name])) for name in ("generator", "recipe")}
    version = np.asarray(words["schema_version"], np.int32)
    return {"schema_version": version, "kind": np.asarray("generator"), **texts}


def page(product: GeneratorSet) -> str:
    """Return the text of README.md: what the generator is, and both programs."""
    recipe, (h, w, c) = product.recipe, product.shape
    name, latent = product.architecture["name"], product.architecture["latent"]
    per_class = product.equal_images // product.classes
    lines = [
        f"# A generator of {recipe['dataset'] or 'a dataset'}",
        f"Architecture `{name}` of jdd, a library of dataset distillation, trained by the method "
        f"{recipe['method'] or '(not named)'}: {product.parameters:,} parameters, "
        f"{product.stored_bytes:,} bytes in float32, as many as {per_class} images of each of "
        f"{product.classes} classes. `{WEIGHTS}` holds them under `params/`, and the mean and "
        "deviation of the images.",
        f"It maps latents z `[n, {latent}]` of N(0, 1) and labels `[n]` to images "
        f"`[n, {h}, {w}, {c}]`, normalised. Classes in label order: "
        f"{', '.join(product.class_names)}.",
        '```python\nimport jdd\n\ngenerator = jdd.load("FOLDER")  # architecture, params, recipe\n'
        "images = generator.apply(z, labels)\n```",
    ]
    found = generator_code.programs(product.architecture, product.transform.whitens)
    if found is None:
        lines.append(
            'This architecture is of a method outside jdd: `jdd.load("FOLDER", '
            'config="my_method.py")` with the method\'s file.'
        )
    else:
        lines += [
            "Without jdd, in this folder. Each program ends with the largest difference from jdd's "
            f"images of the latents in `{EXAMPLE}`.",
            f"## PyTorch\n\n`pip install torch numpy safetensors`\n\n```python\n{found.torch}\n```",
            f"## Flax\n\n`pip install flax safetensors`\n\n```python\n{found.flax}\n```",
        ]
    lines.append("The licence of the source images applies; add it above before you publish this.")
    return "\n\n".join(lines) + "\n"
