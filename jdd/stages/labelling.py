"""Labels of views by teachers: drawn, computed and written epoch by epoch into a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd import parallel, rng
from jdd.augment import randaugment, views
from jdd.nets import Net
from jdd.run.session import Session
from jdd.soft_labels import codec, maps
from jdd.soft_labels import teacher as labeller
from jdd.soft_labels.store import LabelStore
from jdd.storage import failures, remote

Tree = Any


class Rule(NamedTuple):
    """How views are drawn and labelled.

    Attributes:
      spec: the distribution of views.
      mode: one of ``modes.MODES``.
      k: logits stored at each place of a label map.
      bn, combine: as for ``teacher.answer``.
      pixels: how images stand for pixels, for views with RandAugment.
    """

    spec: views.Spec
    mode: str
    k: int = 0
    bn: str = "eval"
    combine: str = "mean"
    pixels: randaugment.Pixels | None = None


def order(seed: int, epoch: int, n: int, batch: int) -> np.ndarray:
    """Return the images of an epoch's steps, ``[steps, batch]``: each of them, once or twice."""
    rows = rng.host(seed, "relabel/order", epoch).permutation(n).astype(np.int32)
    steps = codec.steps_per_epoch(n, batch)
    return np.resize(rows, steps * batch).reshape(steps, batch)


class Labeller:
    """``f(seed, epoch, step, rows [b]) -> (view, logits [b, classes])`` over one set of images.

    Logits are None but in mode views. ``images_now`` may be replaced between epochs by others of
    the same shape.

    Args:
      rule: the views and their labels.
      teachers: nets for inference, each with its variables.
      images: ``[n, h, w, c]``.
      batch: images of a step.
      devices: share a step.
    """

    def __init__(
        self,
        rule: Rule,
        teachers: Sequence[tuple[Net, Tree]],
        images: np.ndarray,
        batch: int,
        devices: Sequence[jax.Device],
    ):
        self._rule, self.images_now = rule, jnp.asarray(images)
        self._draw = labeller.drawer(rule.spec, batch, tuple(images.shape[1:3]))
        nets, over = tuple(net for net, _ in teachers), tuple(devices)
        by_place = rule.mode == "map"
        self._teacher_logits = labeller.compiled_answer(nets, rule.bn, rule.combine, by_place, over)
        self._variables = parallel.everywhere([own for _, own in teachers], over)
        self._steps = codec.steps_per_epoch(len(images), batch)

    def __call__(self, seed: int, epoch: int, step: int, rows: np.ndarray) -> tuple[Any, Any]:
        view = self._draw(rng.key(seed, "relabel/view", epoch * self._steps + step))
        if self._rule.mode != "views":
            return jax.device_get(view), None
        x = labeller.show(self.images_now, jnp.asarray(rows), view, self._rule.pixels)
        return jax.device_get((view, self._teacher_logits(self._variables, x)))

    def images(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the label of each whole image, ``[n, ...]`` in the form of ``modes.of_image``.

        Args:
          index: the images of each step ``[steps, b]``; if an image occurs twice, its first label
            counts.
        """
        found = [self.whole(rows) for rows in index]
        _, first = np.unique(index, return_index=True)
        return {name: np.concatenate([one[name] for one in found])[first] for name in found[0]}

    def whole(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the labels of one step's images."""
        logits = jax.device_get(
            self._teacher_logits(self._variables, self.images_now[jnp.asarray(rows)])
        )
        if self._rule.mode == "static":
            return codec.encode(logits, "logits")
        values, indices = maps.compress(logits, self._rule.k)
        return {"values": values, "indices": indices}


def fill(
    store: LabelStore,
    label: Labeller,
    epochs: int,
    n: int,
    batch: int,
    seed: int,
    session: Session,
    name: str,
    fresh: Callable[[int], jax.Array] | None = None,
    before_last: Callable[[], object] = lambda: None,
) -> None:
    """Write the missing epochs of a store.

    Args:
      n, batch: images, and images of a step.
      name: what the progress bar is called.
      fresh: returns the images of an epoch, of a generator; None: the labeller's own in all.
      before_last: called before the last epoch is written, with which the store is complete.
    """
    failures.folder(store.directory, session.workdir)
    store.create()
    bar = session.bar(epochs, name, start=store.epochs())
    if not store.has_images():
        # In the first epoch's order: teachers that use batch statistics then see all classes.
        store.write_images(label.images(order(seed, 0, n, batch)))
    for epoch in range(store.epochs(), epochs):
        session.check()
        if fresh is not None:
            label.images_now = fresh(epoch)
        index = order(seed, epoch, n, batch)
        found = [label(seed, epoch, step, rows) for step, rows in enumerate(index)]
        packed = [views.pack(view) for view, _ in found]
        stacked = {field: np.stack([one[field] for one in packed]) for field in packed[0]}
        logits = np.stack([z for _, z in found]) if store.mode == "views" else None
        if epoch + 1 == epochs:
            before_last()
        store.write(epoch, index, stacked, logits)
        remote.checkpointed()
        bar.update(epoch + 1)
    bar.close()
