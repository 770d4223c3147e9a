"""Trees of arrays on disk: the only file that imports Orbax."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdd.errors import BadInput

Tree = Any


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


def save(path: str | os.PathLike[str], tree: Tree) -> None:
    """Write ``tree`` to ``path`` atomically (Orbax renames a finished directory into place)."""
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(Path(path).absolute(), args=ocp.args.StandardSave(nested(tree)), force=True)


@contextlib.contextmanager
def _readable(where: Path) -> Iterator[None]:
    """Turn what Orbax raises for a damaged checkpoint into one line."""
    try:
        yield
    except (
        *(ValueError, KeyError, TypeError, OSError, AttributeError, NotImplementedError),
    ) as error:
        reason = str(error).split("\n")[0][:200]
        raise BadInput(str(where), f"unreadable checkpoint ({reason})", "delete it") from error


def restore(path: str | os.PathLike[str], like: Tree) -> Tree:
    """Read the tree at ``path`` as NumPy arrays; structure, shapes and dtypes must be ``like``'s.

    Raises:
      BadInput: unreadable, or another structure, shape or dtype than ``like``.
    """
    import orbax.checkpoint as ocp

    where = Path(path).absolute()
    wanted = _nest(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        with _readable(where):
            # The handler's metadata: the reader's own looks for a file one folder above the step.
            stored = reader.handler.metadata(where).tree
            found = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), stored)
            _validate(found, wanted, where)
            target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), wanted)
            tree = reader.restore(where, args=ocp.args.StandardRestore(target))
    paths = jax.tree_util.tree_flatten_with_path(like)[0]
    leaves = [_lookup(tree, where) for where, _ in paths]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _lookup(nested: dict[str, Any], where: Any) -> Any:
    at: Any = nested
    for entry in where:
        at = at[_name(entry)]
    return at


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the tree at ``path`` in its stored form: nested dicts of NumPy arrays.

    Empty subtrees are not stored.

    Raises:
      BadInput: the checkpoint cannot be read.
    """
    import orbax.checkpoint as ocp

    where = Path(path).absolute()
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader, _readable(where):
        stored = reader.handler.metadata(where).tree
        target = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), stored)
        return dict(reader.restore(where, args=ocp.args.StandardRestore(target)))


def latest(directory: str | os.PathLike[str]) -> int | None:
    """Return the newest step saved in a directory of ``Steps``, or None; opens no checkpoint."""
    found = Path(directory).glob("[0-9]*")
    return max((int(p.name) for p in found if p.name.isdigit()), default=None)


class Steps:
    """Checkpoints of one run by step number, the latest ``keep`` of them."""

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2):
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(
            max_to_keep=max(1, keep), create=True, enable_async_checkpointing=False
        )
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest(self) -> int | None:
        """Return the newest saved step, or None."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, tree: Tree) -> None:
        """Save ``tree`` as ``step``, once."""
        import orbax.checkpoint as ocp

        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(nested(tree)))

    def restore(self, step: int, like: Tree) -> Tree:
        """Return the tree of ``step``; shapes and dtypes must be those of ``like``."""
        return restore(self.directory / str(step) / "default", like)

    def close(self) -> None:
        """Release the manager's threads."""
        self._manager.close()
