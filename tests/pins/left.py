"""What a run has left in its folder, in three forms.

``same``    what no machine changes: names, shapes, types, settings, recipes, hashes of settings
``exact``   SHA-256 of arrays and files, by path: the same on one machine with one set of packages
``floats``  the arrays of the distilled sets, for comparing within a tolerance elsewhere

Volatile is, of a set's recipe, ``jdd_version`` alone: the command and all paths are relative to the
run's folder, and learned rates are among the floats. Of other files it is what was measured: values
of ``metrics.jsonl`` and ``checkpoints/*.json``; ``result.json`` and the report as a whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ANY = "*"  # stands for a volatile value
_MEASURED = ("weights", "images")  # of a label store's settings: digests of floats


class Left(NamedTuple):
    """See the module."""

    same: dict[str, Any]
    exact: dict[str, str]
    floats: dict[str, np.ndarray]


def read(workdir: Path) -> Left:
    """Return what lies in a run's working directory."""
    left = Left({}, {}, {})
    items = sorted(path.parent for path in workdir.rglob("_METADATA"))
    orbax = {path.parent for path in workdir.rglob("_CHECKPOINT_METADATA")}
    files = [path for path in sorted(workdir.rglob("*")) if path.is_file()]
    files = [path for path in files if not orbax & set(path.parents)]
    own = [path for path in files if not path.name.startswith(".")]
    left.same["files"] = sorted(_name(path, workdir) for path in (*own, *items))
    left.same["config"] = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    left.same["metrics"] = _metrics(workdir / "metrics.jsonl")
    known: dict[str, str] = {}
    left.same["arrays"] = {}
    for item in items:
        _add(left, known, _name(item, workdir), tree(item))
    for path in own:
        name = _name(path, workdir)
        if path.match("distilled*.npz"):
            _add_set(left, path, name)
        elif path.suffix == ".npz":
            _add(left, known, name, _npz(path))
        elif path.suffix == ".npy":
            _add(left, known, name, {"": np.load(path)})
        elif path.suffix == ".json" and path.name not in ("config.json", "result.json"):
            _add_settings(left, path, name)
    left.exact["config.json"] = _sha((workdir / "config.json").read_bytes())
    return left


def _name(path: Path, workdir: Path) -> str:
    return path.relative_to(workdir).as_posix()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _add(left: Left, known: dict[str, str], name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Note the arrays' names, types and shapes, or an earlier item that has the same; and a hash.

    Stored text (settings of arrays) may hold digests of weights: it is in the hash alone.
    """
    shapes = {key: _shape(a) for key, a in arrays.items()}
    text = json.dumps(shapes)
    left.same["arrays"][name] = f"as {known[text]}" if text in known else shapes
    known.setdefault(text, name)
    found = hashlib.sha256()
    for key, array in arrays.items():
        found.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    left.exact[name] = found.hexdigest()


def _shape(array: np.ndarray) -> str:
    if array.dtype.kind == "U":
        return "text"
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def _add_set(left: Left, path: Path, name: str) -> None:
    """Note a distilled set. The hash is that of the file, had it been written by version ``*``."""
    arrays = _npz(path)
    written = path.read_bytes() == _savez(arrays)  # so that replacing one word is all that differs
    text = re.sub(r'"jdd_version": "[^"]*"', f'"jdd_version": "{ANY}"', str(arrays["recipe"]))
    arrays["recipe"] = np.asarray(text)
    left.exact[name] = _sha(_savez(arrays)) if written else "not what np.savez writes"
    recipe = json.loads(text)
    if "lr" in arrays or isinstance(recipe["train"].get("lr"), list):  # learned, as the images are
        left.floats[f"{name}/recipe/lr"] = np.asarray(recipe["train"]["lr"], np.float32)
        recipe["train"]["lr"] = ANY
    left.same.setdefault("sets", {})[name] = {
        "arrays": {key: _shape(a) for key, a in arrays.items()},
        "label_kind": str(arrays.get("label_kind", "")),  # '' of pairs and generators
        "recipe": recipe,
    }
    for key in ("images", "labels", "lr"):
        if key in arrays and arrays[key].dtype.kind == "f":
            left.floats[f"{name}/{key}"] = np.asarray(arrays[key], np.float32)


def _savez(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _add_settings(left: Left, path: Path, name: str) -> None:
    """Note the settings of a store, or what a run remembers of its stages."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if path.parent.name == "checkpoints":
        # Keys are hashes of settings; most values are measured.
        whole = path.name == "identity.json"
        left.same.setdefault("remembered", {})[name] = found if whole else sorted(found)
        return
    left.exact[name] = _sha(json.dumps(found).encode())
    left.same.setdefault("settings", {})[name] = _masked(found)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: ANY if k in _MEASURED else _masked(v) for k, v in value.items()}
    return [_masked(one) for one in value] if isinstance(value, list) else value


def _metrics(path: Path) -> dict[str, Any]:
    """Return each stage's steps and the names of its scalars."""
    found: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        own = found.setdefault(row.pop("stage"), {"steps": [], "scalars": list(row)})
        own["steps"].append(row["step"])
    return found


def tree(item: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an Orbax item by their paths in the tree, sorted."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        stored = reader.metadata(item).item_metadata.tree
        target = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), stored)
        found = reader.restore(item, args=ocp.args.StandardRestore(target))
    leaves = jax.tree_util.tree_flatten_with_path(found)[0]
    named = {"/".join(str(entry.key) for entry in where): leaf for where, leaf in leaves}
    return {name: np.asarray(named[name]) for name in sorted(named)}
