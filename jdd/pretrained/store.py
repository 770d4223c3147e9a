"""Expert trajectories on disk, one Orbax item per (group, epoch).

    <store>/store.json            the settings that all its experts were made with
    <store>/g0003/e0007/          the variables of group 3's experts after epoch 7, stacked [G, ...]
    <store>/g0003/state0007/      their optimiser's state, if it has one; only the last epoch's
    <store>/g0003/.digests        digests of the group's items

A group is trained at once (on accelerators small nets in one vmap). Its bits may depend on its
size, so the size is one of the settings. The numbers of experts and of epochs are not: a store
grows in both directions. Items are written atomically (Orbax renames them into place): items that
exist are complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdd.data import Dataset
from jdd.schema.decoupled import Squeeze
from jdd.schema.experts import Experts
from jdd.storage import checkpoints, settings_files

Tree = Any

# Values of settings that older stores do not name.
_UNNAMED = {
    "sam_rho": 0.0, "sam_alpha": 0.0, "balanced": False, "schedule": "constant", "augment": "",
    "cutmix": 0.0, "epochs": 0,
}  # fmt: skip


def settings(
    data: Dataset,
    net: str,
    options: Mapping[str, Any],
    keys: Experts | Squeeze,
    group: int,
    **more: Any,
) -> dict[str, Any]:
    """Return the settings of a store, in the order in which its file lists them.

    Args:
      data: the dataset that the nets are trained on.
      net: the name of the net; ``options`` are those that differ from its defaults.
      keys: the config's values of the training: ``experts`` or ``squeeze``.
      group: the number of nets trained at once.
      **more: settings of this kind of store alone; listed before the seed.
    """
    return {
        "dataset": data.name,
        "data": data.fingerprint,
        "whitening": data.transform.kind,
        "net": net,
        "net_options": dict(options),
        "lr": keys.lr,
        "momentum": keys.momentum,
        "weight_decay": keys.weight_decay,
        "batch": keys.batch,
        **more,
        "seed": keys.seed,
        "group": group,
    }


class Store:
    """A directory of expert snapshots made with one set of settings.

    Args:
      directory: the folder of the store, which need not exist.
      settings: JSON-able; all that the experts depend on (dataset, whitening, net, recipe, group).
      like: abstract variables of one expert.
      cache_bytes: the size of the cache of read items in memory.
      key: the config key of the directory, for errors.
      verify: compare what is read with the digests of its items.

    Raises:
      BadInput: the directory holds experts made with other settings, which are named.
    """

    trained = True

    def __init__(
        self,
        directory: str | os.PathLike[str],
        settings: dict[str, Any],
        like: Tree,
        cache_bytes: int = 2 << 30,
        key: str = "experts.dir",
        verify: bool = True,
    ):
        self.key, self.verify = key, verify
        self.directory = Path(directory)
        self.settings = json.loads(json.dumps(settings))
        self.group = int(settings["group"])
        self._like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self.group, *x.shape), x.dtype), like
        )
        item = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self._like))
        self._room = max(2, cache_bytes // max(item, 1))
        self._cache: OrderedDict[tuple[int, int], Tree] = OrderedDict()
        self._digests: dict[tuple[int, int], str] = {}
        self._check()

    def _check(self) -> None:
        again = f"another --config.{self.key}, and a new --workdir"
        settings_files.validate(
            self.directory / "store.json",
            self.settings,
            _UNNAMED,
            kind="an expert store",
            what=f"store of trained nets {self.directory}",
            broken="delete it if this command made the store, and it is written again; else "
            f"{again} for a run that has begun",
            other=f"give {again} to a run that has begun",
        )

    def create(self) -> None:
        """Write the settings file, or check the existing one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._check()  # another run may have written it in the meantime
        settings_files.write(self.directory / "store.json", self.settings)

    def path(self, group: int, epoch: int) -> Path:
        """Return the path of a group's snapshot after ``epoch`` epochs."""
        return self.directory / f"g{group:04d}" / f"e{epoch:04d}"

    def epochs(self, group: int) -> int:
        """Return the last epoch of which a group has a snapshot, -1 for none."""
        found = (self.directory / f"g{group:04d}").glob("e[0-9]*")
        return max((int(p.name[1:]) for p in found if p.name[1:].isdigit()), default=-1)

    def has(self, groups: int, epochs: int) -> bool:
        """True if the first ``groups`` groups have ``epochs`` epochs."""
        return all(self.epochs(g) >= epochs for g in range(groups))

    def write(self, group: int, epoch: int, variables: Tree) -> None:
        """Write a group's stacked variables ``[G, ...]``."""
        checkpoints.save(self.path(group, epoch), variables)

    def read_group(self, group: int, epoch: int) -> Tree:
        """Return a group's stacked variables ``[G, ...]``."""
        if (group, epoch) not in self._cache:
            while len(self._cache) >= self._room:
                self._cache.popitem(last=False)
            self._cache[group, epoch] = self._restore(self.path(group, epoch), self._like)
        self._cache.move_to_end((group, epoch))
        return self._cache[group, epoch]

    def _restore(self, path: Path, like: Tree) -> Tree:
        remedy = f"delete {path.parent}, and the same command trains its nets again, to equal bits"
        return checkpoints.restore(path, like, self.verify, remedy)

    def mend(self, group: int) -> str:
        """Delete a group whose last item is damaged; return a sentence for the user, else ''.

        For nets that are a cache: they are trained again where they are needed.
        """
        try:
            if (last := self.epochs(group)) >= 0:
                self.read_group(group, last)
        except checkpoints.Damaged as error:
            shutil.rmtree(self.path(group, last).parent)
            return f"{error.where}: {error.found}; its nets are trained again"
        return ""

    def note(self) -> str:
        """Return a sentence for the user if items have no digest; else ''."""
        items = [p for p in self.directory.glob("g*/*") if p.name.startswith(("e", "state"))]
        if count := checkpoints.without_digest(items):
            found = f"{self.directory}: {count} of {len(items)} items have no digest"
            return f"{found}, so damage is not found: --mode=verify --path={self.directory} adds it"
        return ""

    def read(self, expert: int, epoch: int) -> Tree:
        """Return one expert's variables after ``epoch`` epochs, as NumPy arrays."""
        stacked = self.read_group(expert // self.group, epoch)
        return jax.tree.map(lambda x: np.asarray(x[expert % self.group]), stacked)

    def digest(self, group: int, epoch: int) -> str:
        """Return a 16-digit hex hash of a group's variables after ``epoch`` epochs."""
        if (group, epoch) not in self._digests:
            found = hashlib.sha256()
            for leaf in jax.tree.leaves(self.read_group(group, epoch)):
                found.update(np.ascontiguousarray(leaf).tobytes())
            self._digests[group, epoch] = found.hexdigest()[:16]
        return self._digests[group, epoch]

    def forget(self, group: int, before: int, snapshots: bool) -> None:
        """Delete a group's optimiser states of epochs below ``before``.

        ``snapshots``: delete the snapshots too, for training that needs only the last one.
        """
        for path in (self.directory / f"g{group:04d}").iterdir():
            kind = path.name.rstrip("0123456789")
            number = path.name.removeprefix(kind)
            old = number.isdigit() and int(number) < before
            if old and (kind == "state" or snapshots and kind == "e"):
                shutil.rmtree(path, ignore_errors=True)

    def _state(self, group: int, epoch: int) -> Path:
        return self.path(group, epoch).with_name(f"state{epoch:04d}")

    def has_state(self, group: int, epoch: int) -> bool:
        """True if the optimiser's state after ``epoch`` epochs is stored; epoch 0 needs none."""
        return epoch == 0 or self._state(group, epoch).exists()

    def write_state(self, group: int, epoch: int, state: Tree) -> None:
        """Write the stacked state of a group's optimiser ``[G, ...]``."""
        checkpoints.save(self._state(group, epoch), state)

    def read_state(self, group: int, epoch: int, like: Tree) -> Tree:
        """Return the stacked state of a group's optimiser, of the shapes of ``like``."""
        return self._restore(self._state(group, epoch), like)
