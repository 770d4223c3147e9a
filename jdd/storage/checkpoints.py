"""Trees of arrays on disk: the only file that imports Orbax.

Each item has a digest of its arrays in its folder (``digest_records.py``), compared on reading.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdd.errors import BadInput
from jdd.storage import digest_records, failures, remote, tree_digests

Tree = Any
AGAIN = "delete it, and the same command makes it again"
_ITEM = "default"  # the folder of the one item of a step


class Damaged(BadInput):
    """A stored tree that cannot be read, or whose arrays are not those that were written."""


def nested(tree: Tree) -> dict[str, Any]:
    """Return a tree in the form on disk: nested dicts of NumPy arrays on the host."""
    # Orbax takes arrays only, and a copy on the host does not depend on a device layout.
    return _nest(jax.tree.map(np.asarray, jax.device_get(tree)))


def _nest(tree: Tree) -> dict[str, Any]:
    """Return a tree as nested dicts of arrays: the form on disk, whatever the tree's own types."""
    out: dict[str, Any] = {}
    for where, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        *parents, last = [_name(entry) for entry in where]
        at = out
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = leaf
    return out


def _name(entry: Any) -> str:
    for field in ("key", "name", "idx"):
        if hasattr(entry, field):
            return str(getattr(entry, field))
    return str(entry)


def _validate(found: dict[str, Any], like: dict[str, Any], path: Path) -> None:
    """Compare structure, shapes and dtypes: Orbax itself checks only the structure."""
    if str(jax.tree.structure(found)) != str(jax.tree.structure(like)):
        raise BadInput(str(path), "its tree differs from this run's", "use another --workdir")
    for (where, a), b in zip(
        jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(like), strict=True
    ):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise BadInput(
                str(path),
                f"{jax.tree_util.keystr(where)} is {a.dtype}{list(a.shape)}",
                f"this run needs {b.dtype}{list(b.shape)}: use another --workdir",
            )


def _options() -> Any:
    """Return Orbax's options by which each process of several writes checkpoints of its own.

    Orbax lets process 0 write NumPy arrays, and the others wait for it. Here every process writes
    other checkpoints, and is process 0 to its Orbax.
    """
    import orbax.checkpoint as ocp
    from orbax.checkpoint._src.multihost import multihost

    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    multihost.process_index = lambda: 0
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})


def _checkpointer() -> Any:
    """Return a writer and reader of one checkpoint."""
    import orbax.checkpoint as ocp

    alone = _options()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def save(path: str | os.PathLike[str], tree: Tree) -> None:
    """Write ``tree`` to ``path`` atomically (Orbax renames a finished directory into place).

    The folder two levels above must exist: a store of which ``path`` is one item.

    Raises:
      StorageError: the disk failed, or that folder is gone.
    """
    import orbax.checkpoint as ocp

    _without_late_callbacks()
    stored, where = nested(tree), Path(path).absolute()
    with failures.writing(where.parents[1]):
        failures.folder(where.parent, where.parents[1])
        record_digests(where, stored)
        with _checkpointer() as writer:
            writer.save(where, args=ocp.args.StandardSave(stored), force=True)
    remote.checkpointed()


def record_digests(item: Path, stored: dict[str, Any]) -> None:
    """Record the digests of an item in its stored form."""
    place = _digest_path(item)
    digest_records.record(place, "layout", tree_digests.of_layout(stored))
    digest_records.record(place, "arrays", tree_digests.of_arrays(stored))


def _digest_path(item: Path) -> Path:
    """Return the path that an item's digests are recorded for: of a step, that of its folder."""
    return item.parent if item.name == _ITEM else item


@contextlib.contextmanager
def _readable(where: Path, remedy: str) -> Iterator[None]:
    """Turn what Orbax raises for a damaged item into one line."""
    _without_late_callbacks()
    try:
        yield
    except BadInput:
        raise
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # Orbax and its libraries raise many types for a damaged item
        reason = str(error).split("\n")[0][:200]
        raise Damaged(str(where), f"unreadable checkpoint ({reason})", remedy) from error


def _without_late_callbacks() -> None:
    """Let no thread print that Orbax's event loop is closed.

    Orbax reads and writes arrays concurrently and closes the loop at the first that fails; the
    threads at work on the others then print a traceback each.
    """
    before = sys.unraisablehook
    if getattr(before, "_of_jdd", False):
        return

    def hook(found: sys.UnraisableHookArgs) -> None:
        if not (found.exc_type is RuntimeError and str(found.exc_value) == "Event loop is closed"):
            before(found)

    hook._of_jdd = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def restore(
    path: str | os.PathLike[str], like: Tree, verify: bool = True, remedy: str = AGAIN
) -> Tree:
    """Read the tree at ``path`` as NumPy arrays; structure, shapes and dtypes must be ``like``'s.

    Args:
      verify: compare the arrays with the digest of the item, if it has one.
      remedy: what to do about a damaged item, for errors.

    Raises:
      BadInput: another structure, shape or dtype than ``like``.
      Damaged: unreadable, or its arrays are not those that were written.
    """
    wanted = _nest(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like))
    tree = _read(Path(path).absolute(), verify, remedy, wanted)
    paths = jax.tree_util.tree_flatten_with_path(like)[0]
    leaves = [_lookup(tree, where) for where, _ in paths]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _read(
    where: Path, verify: bool, remedy: str, wanted: dict[str, Any] | None = None
) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    with _checkpointer() as reader, _readable(where, remedy):
        # The handler's metadata: the reader's own looks for a file one folder above the step.
        stored = reader.handler.metadata(where).tree
        found = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), stored)
        if verify and not digest_records.fits(
            _digest_path(where), "layout", tree_digests.of_layout(found)
        ):
            raise Damaged(str(where), "damaged: its shapes are not those written", remedy)
        if wanted is not None:
            _validate(found, wanted, where)
        target = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), stored)
        tree = dict(reader.restore(where, args=ocp.args.StandardRestore(target)))
    if verify and not _whole(where, tree):
        raise Damaged(str(where), "damaged: its arrays are not those written", remedy)
    return tree


def _whole(where: Path, tree: dict[str, Any]) -> bool:
    known = digest_records.known(_digest_path(where), "arrays")
    return not known or tree_digests.of_arrays(tree) in known


def _lookup(nested: dict[str, Any], where: Any) -> Any:
    at: Any = nested
    for entry in where:
        at = at[_name(entry)]
    return at


def read(path: str | os.PathLike[str], verify: bool = True, remedy: str = AGAIN) -> dict[str, Any]:
    """Return the tree at ``path`` in its stored form: nested dicts of NumPy arrays.

    Empty subtrees are not stored.

    Raises:
      Damaged: unreadable, or its arrays are not those that were written.
    """
    return _read(Path(path).absolute(), verify, remedy)


def without_digest(items: Iterable[Path]) -> int:
    """Return how many of the items at these paths have no digest."""
    return sum(not digest_records.known(_digest_path(item.absolute()), "arrays") for item in items)


def latest(directory: str | os.PathLike[str]) -> int | None:
    """Return the newest step saved in a directory of ``Steps``, or None; opens no checkpoint."""
    found = Path(directory).glob("[0-9]*")
    return max((int(p.name) for p in found if p.name.isdigit()), default=None)


class Steps:
    """Checkpoints of one run by step number, the latest ``keep`` of them.

    The folder two levels above must exist: the working directory.

    Raises:
      StorageError: that folder is gone.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2):
        import orbax.checkpoint as ocp

        _without_late_callbacks()
        self.directory = Path(directory).absolute()
        failures.folder(self.directory, self.directory.parents[1])
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max(1, keep),
            create=False,
            enable_async_checkpointing=False,
            multiprocessing_options=_options(),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest(self) -> int | None:
        """Return the newest saved step, or None."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, tree: Tree) -> None:
        """Save ``tree`` as ``step``, once.

        Raises:
          StorageError: the disk failed, or the folder is gone.
        """
        import orbax.checkpoint as ocp

        with failures.writing(self.directory):
            if step not in self._manager.all_steps():
                stored = nested(tree)
                record_digests(self.directory / str(step), stored)
                self._manager.save(step, args=ocp.args.StandardSave(stored))
        remote.checkpointed()

    def restore(self, step: int, like: Tree, verify: bool = True) -> Tree:
        """Return the tree of ``step``; shapes and dtypes must be those of ``like``."""
        remedy = f"delete {self.directory}, and the same command makes all of it again"
        return restore(self.directory / str(step) / _ITEM, like, verify, remedy)

    def newest(
        self, like: Tree, verify: bool = True, say: Callable[[str], object] = lambda line: None
    ) -> tuple[int, Tree] | None:
        """Return the newest whole step and its tree, None if no step was saved.

        Damaged steps after it are deleted, each with a line through ``say``.

        Raises:
          BadInput: as ``restore``; Damaged if no step is whole.
        """
        damaged: list[Damaged] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree = self.restore(step, like, verify)
            except Damaged as error:
                damaged.append(error)
                continue
            for one in damaged:
                say(f"{one.where}: {one.found}; goes on from step {step}")
            for after in [s for s in self._manager.all_steps() if s > step]:
                self._manager.delete(after)
            return step, tree
        if damaged:
            raise damaged[0]
        return None

    def close(self) -> None:
        """Release the manager's threads."""
        self._manager.close()
