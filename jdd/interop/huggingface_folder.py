"""A distilled set as a dataset folder of Hugging Face: Parquet with pictures, and a card."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from jdd.errors import BadInput
from jdd.product import preview
from jdd.product.distilled_set import DistilledSet
from jdd.storage.files import new_folder

_SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


def write(dataset: DistilledSet, path: Path) -> Path:
    """Write the folder, all or nothing.

    data/train-00000-of-00001.parquet: columns ``image`` (PNG, 8 bits, for viewing), ``label``
    (ClassLabel) and, of soft labels, ``soft_label`` (float32 [classes]). distilled.npz: the set
    itself, as ``jdd.load`` of the folder reads it. README.md: the card.
    ``datasets.load_dataset(folder)`` reads it, and the folder can be uploaded as it is.

    Raises:
      BadInput: pyarrow is missing; ``path`` is not empty or cannot be written.
    """
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        where = "--format=huggingface"
        raise BadInput(where, "pyarrow is missing", "pip install pyarrow") from error
    table = _table(dataset, pyarrow)
    with new_folder(path) as part:
        (part / "data").mkdir()
        parquet.write_table(table, part / "data" / "train-00000-of-00001.parquet")
        dataset.save(part / "distilled.npz")
        (part / "README.md").write_text(card(dataset), encoding="utf-8")
    return path


def _table(dataset: DistilledSet, pyarrow: Any) -> Any:
    """Return the set as a table with the features in its metadata, as ``datasets`` writes it."""
    pictures = [preview.png(image) for image in preview.to_pixels(dataset)]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    cells = [{"bytes": data, "path": f"{i:05d}.png"} for i, data in enumerate(pictures)]
    columns = {
        "image": pyarrow.array(cells, type=kind),
        "label": pyarrow.array(dataset.classes_of_images.tolist(), type=pyarrow.int64()),
    }
    if dataset.label_kind != "hard":
        kind = pyarrow.list_(pyarrow.float32())
        columns["soft_label"] = pyarrow.array(dataset.labels.tolist(), type=kind)
    info = {"info": {"features": _features(dataset)}}
    return pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(info)})


def _features(dataset: DistilledSet) -> dict[str, Any]:
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(dataset.class_names), "_type": "ClassLabel"},
    }
    if dataset.label_kind != "hard":
        features["soft_label"] = {
            "feature": {"dtype": "float32", "_type": "Value"},
            "_type": "Sequence",  # a list to datasets 4 and later, which older ones do not know
        }
    return features


def card(dataset: DistilledSet) -> str:
    """Return the text of README.md: the card's YAML, what the set is and how to train on it."""
    recipe, n = dataset.recipe, len(dataset.images)
    h, w, c = dataset.images.shape[1:]
    size = next((word for most, word in _SIZES if n < most), "n>1M")
    # JSON is YAML: names of any kind need no other quoting.
    name = json.dumps(f"{recipe['dataset']} distilled by {recipe['method']}", ensure_ascii=False)
    front = (
        f"---\npretty_name: {name}\ntask_categories:\n- image-classification\n"
        f"tags:\n- dataset-distillation\n- jdd\nsize_categories:\n- {size}\n"
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: data/train-*.parquet\n---\n"
    )
    train = recipe["train"]
    lines = [
        f"# {recipe['dataset'] or 'A dataset'}, distilled",
        f"{n} synthetic images of {h}x{w}x{c} for {dataset.classes} classes, made by the "
        f"method {recipe['method'] or '(not named)'} of jdd, a library of dataset distillation.",
        "The pictures in the Parquet file are for viewing: 8 bits, clipped to [0, 1]. The set "
        "itself is `distilled.npz`: inputs of a net in float32, normalised (whitening: "
        f"{dataset.transform.kind}), {dataset.label_kind} labels, and the recipe.",
        '```python\nimport jdd\n\ndset = jdd.load("FOLDER")  # images, labels, recipe\n'
        "x_test = dset.transform.forward(pixels)  # real images [n, h, w, c] in [0, 1]\n```",
        f"Net: {recipe['net']['name']}. Training: {train['epochs']} epochs, batches of "
        f"{train['batch']}, {_rate(dataset)}, augmentation "
        f"{recipe['augment']['strategy'] or 'none'}.",
    ]
    if train["order"] == "stored":
        lines.append(
            "Nets learn soft labels of views that are stored in the folder labels/ of the run; "
            "they are not in this folder."
        )
    if recipe["command"]:
        lines.append(f"Made by:\n\n```\n{recipe['command']}\n```")
    lines.append("The licence of the source images applies; add it above before you publish this.")
    return front + "\n" + "\n\n".join(lines) + "\n"


def _rate(dataset: DistilledSet) -> str:
    """Return the learning rate for training in words, with four significant digits."""
    rate = dataset.recipe["train"]["lr"]
    if isinstance(rate, list):
        return f"one rate for each of {len(rate)} steps"
    if rate is None:
        return f"learned rate {dataset.lr:.4g}" if dataset.lr is not None else "no rate"
    return f"{'learned ' * (dataset.lr == rate)}rate {rate:.4g}"
