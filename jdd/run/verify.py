"""``--mode=verify``: compare stored files with their digests, and add the digests that are missing.

Of a working directory, a store of nets or labels, a folder of the cache, or one file. Arrays in
``.npz`` have the checksums of zip; every other kind has a digest next to it or inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdd.data import cache
from jdd.data.streamed import sums_of
from jdd.errors import BadInput
from jdd.interop import safetensors_files
from jdd.run import metric_lines
from jdd.storage import (
    checkpoints,
    digest_records,
    files,
    json_files,
    npz_files,
    remote,
    tree_digests,
)

WHOLE, ADDED, BARE = "whole", "added", "bare"


class Found(NamedTuple):
    """One file or item: its path, and its state: whole, added, bare (no digest) or a sentence."""

    path: Path
    state: str

    @property
    def damaged(self) -> bool:
        """Whether the state is a sentence on damage."""
        return self.state not in (WHOLE, ADDED, BARE)


def verify(place: str | Path) -> list[Found]:
    """Return the state of everything at ``place`` that jdd stores, sorted by path.

    Of a URL that of a local copy, whose files are compared with the digests of their manifest.
    Digests are added to what has none and can be read; whether that is as it was written is not
    known.

    Raises:
      BadInput: there is nothing at ``place``, or nothing that jdd stores.
    """
    path = remote.reading(place, cache.folder(), "all")
    if not path.exists():
        raise BadInput("--path", f"{path} does not exist", "a run's directory, a store or a file")
    found = [Found(place, _state(check, place)) for place, check in _stored(path)]
    if not found:
        raise BadInput("--path", f"{path} holds nothing that jdd stores", "a run, a store, a file")
    return sorted(found)


def words(found: list[Found]) -> list[str]:
    """Return a line for each damaged file, and the counts."""
    lines = [f"damaged: {one.path}: {one.state}" for one in found if one.damaged]
    counts = [(WHOLE, "whole"), (ADDED, "given a digest"), (BARE, "without one")]
    parts = [(sum(one.state == state for one in found), text) for state, text in counts]
    parts.append((sum(one.damaged for one in found), "damaged"))
    return [*lines, ", ".join(f"{count} {text}" for count, text in parts if count)]


def _state(check: Callable[[Path], str], path: Path) -> str:
    try:
        return check(path)
    except BadInput as error:
        return error.found


def _stored(top: Path) -> Iterator[tuple[Path, Callable[[Path], str]]]:
    if top.is_file():
        if check := _CHECKS.get(top.suffix):
            yield top, check
        return
    if (top / "_METADATA").exists() or (top / "_CHECKPOINT_METADATA").exists():
        inner = top / "default"  # of a step
        yield (inner if inner.is_dir() else top), _item
        return
    for name in sorted(top.iterdir()):
        if not files.hidden(name.name) and not name.is_symlink():
            yield from _stored(name)


def _item(path: Path) -> str:
    recorded = not checkpoints.without_digest([path])
    tree = checkpoints.read(path)
    if not recorded:
        checkpoints.record_digests(path, tree)
    return WHOLE if recorded else ADDED


def _npz(path: Path) -> str:
    npz_files.read(path, "")
    return WHOLE


def _npy(path: Path) -> str:
    digest = tree_digests.of_arrays({"images": npz_files.read_npy(path, "")})
    known = digest_records.known(path, "arrays")
    if known and digest not in known:
        raise BadInput(str(path), "its arrays are not those written", "")
    if not known:
        digest_records.record(path, "arrays", digest)
    return WHOLE if known else ADDED


def _json(path: Path) -> str:
    known = digest_records.known(path, "file")
    text = json_files.text(path, "")
    json_files.parse(text, str(path), "")
    if not known:
        digest_records.record(path, "file", digest_records.of_bytes(text.encode()))
    return WHOLE if known else ADDED


def _lines(path: Path) -> str:
    if note := metric_lines.read(path).note:
        raise BadInput(str(path), note.removeprefix(f"{path}: "), "")
    return ADDED if metric_lines.record_digests(path) else WHOLE


def _safetensors(path: Path) -> str:
    return WHOLE if safetensors_files.whole(path) else BARE


def _pixels(path: Path) -> str:
    about = npz_files.read(path.with_name("about.npz"), "")
    shape = tuple(map(int, about["shape"]))
    if path.stat().st_size != int(np.prod(shape)):
        raise BadInput(str(path), "truncated", "")
    if "sums" not in about:
        return BARE
    wrong = np.flatnonzero(sums_of(np.memmap(path, np.uint8, "r", shape=shape)) != about["sums"])
    if len(wrong):
        raise BadInput(str(path), f"{len(wrong)} images, the first is {wrong[0]}", "")
    return WHOLE


_CHECKS: dict[str, Callable[[Path], str]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".json": _json,
    ".jsonl": _lines,
    ".safetensors": _safetensors,
    ".u8": _pixels,
}
