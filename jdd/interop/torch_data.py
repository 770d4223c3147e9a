"""A distilled set as a ``torch.utils.data.Dataset``: images in the net's space, labels, views."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import augment, rng
from jdd.errors import BadInput
from jdd.evaluation import rules, train_eval
from jdd.matching import losses
from jdd.product import distilled_set
from jdd.product.distilled_set import DistilledSet
from jdd.soft_labels.store import LabelStore, digest


class Examples:
    """The examples of one epoch at a time; ``set_epoch`` chooses the epoch.

    Item i is (image, label) as tensors: the image float32 [c, h, w] in the space of the nets; the
    label int64 for hard labels, else float32 [classes], of kind ``label_kind``. Without stored
    labels items are in the order of the set. With stored labels they are the views of the epoch in
    the stored order, whole: cropped, mirrored and mixed, with the teachers' labels. Batches of
    ``batch`` items in this order are those of the students. Weights of images, if the set has them,
    are factors of the labels, which are 'probabilities' then: cross entropy is linear in them.

    Augmentations run in JAX: read the items in the process itself (``num_workers=0``).

    Attributes:
      batch: images per step of the set's recipe.
      epochs: epochs of stored labels; None without them: any number.
      label_kind: 'hard', 'probabilities', 'logits' or 'centred'.
      shuffle: whether the set's recipe shuffles; stored views come in their own order.
    """

    def __init__(self, dset: DistilledSet, store: LabelStore | None, seed: int, augmented: bool):
        self._torch = importlib.import_module("torch")
        self._store, self._seed, self._augmented = store, seed, augmented
        dset = distilled_set.validate(dset, "torch_dataset")
        self._dset = dset = train_eval.formed(_weighted(dset))
        if rules.rate(dset) is None:  # of no account here, but a plan needs one
            dset = dset.with_recipe(dset.recipe | {"train": dset.recipe["train"] | {"lr": 0.01}})
        self._recipe = train_eval.plan(dset).recipe
        self.batch = min(self._recipe.batch, len(dset.images))
        self.epochs = None if store is None else store.epochs()
        loss = self._recipe.distillation
        mixed = loss is not None and loss.recipe.loss == "hard"
        own = dset.label_kind if loss is None else loss.kind
        self.label_kind = "probabilities" if mixed else own
        self.shuffle = store is None and self._recipe.order == "shuffled"
        self._step = functools.lru_cache(maxsize=2)(self._made)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose views and labels are read.

        Raises:
          BadInput: there are no stored labels of this epoch.
        """
        if epoch < 0 or self.epochs is not None and epoch >= self.epochs:
            allowed = f"0 to {self.epochs - 1}" if self.epochs else "0 or more"
            raise BadInput("epoch", str(epoch), allowed)
        self._epoch = epoch
        if self._store is not None:
            self._piece = self._read(epoch)

    def __len__(self) -> int:
        if self._store is None:
            return len(self._dset.images)
        return int((self._piece["index"] >= 0).sum())  # the rest is padding, at the end

    def __getitem__(self, item: int) -> tuple[Any, Any]:
        if not -len(self) <= item < len(self):
            raise IndexError(item)
        step, row = divmod(item % len(self), self.batch)
        x, y = self._step(self._epoch, step)
        image = self._torch.from_numpy(np.ascontiguousarray(x[row].transpose(2, 0, 1)))
        if self.label_kind == "hard":
            return image, self._torch.tensor(int(y[row]))
        return image, self._torch.from_numpy(np.array(y[row], np.float32))

    def _read(self, epoch: int) -> dict[str, Any]:
        assert self._store is not None
        index, views, soft = self._store.read(epoch)
        self.batch = index.shape[1]
        return {
            "index": index, "views": views, "soft": soft, "each": self._store.read_images(),
            "first": 0, "classes": self._dset.classes_of_images,
        }  # fmt: skip

    def _made(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images [b, h, w, c] and labels of a step of an epoch, as NumPy arrays."""
        if self._store is not None:
            x, target = self._view(self._dset.images, self._piece, step)
            found = target["mixed"] if "mixed" in target else target["soft"]
            return np.asarray(x), np.asarray(found)
        rows = slice(step * self.batch, (step + 1) * self.batch)
        x, y = self._dset.images[rows], self._dset.labels[rows]
        if self._augmented and self._recipe.strategy not in ("", "none"):
            key = rng.key(self._seed, "torch", epoch * len(self._dset.images) + step)
            x = self._augment(key, x)
        return np.asarray(x), y

    @functools.cached_property
    def _view(self) -> Any:
        assert self._recipe.distillation is not None
        return jax.jit(self._recipe.distillation.view)

    @functools.cached_property
    def _augment(self) -> Any:
        recipe, kind = self._recipe, augment.kind(self._recipe.augment)

        def one(key: jax.Array, images: jax.Array) -> jax.Array:
            chosen, own = jax.random.split(key)
            op = kind.draw_op(chosen, recipe.strategy)
            found: jax.Array = kind.apply(
                op, own, jnp.asarray(images), recipe.strategy, align_corners=recipe.align_corners
            )
            return found

        return jax.jit(one)


def torch_dataset(
    dset: DistilledSet, folder: Path | None, seed: int = 0, augmented: bool = True
) -> Examples:
    """Return a set as a PyTorch dataset (``Examples``, a subclass of torch.utils.data.Dataset).

    Args:
      dset: the set.
      folder: where it lies, with its stored labels; None: in memory alone.
      seed: of the augmentation's draws.
      augmented: whether items show the augmentation of the set's recipe, drawn anew every epoch;
        one operation for each step's images, as students see it.

    Raises:
      BadInput: PyTorch is missing; stored labels are missing, of other images, given online or of a
        set whose images have weights.
    """
    try:
        data = importlib.import_module("torch.utils.data")
    except ImportError as error:
        raise BadInput("torch_dataset", "PyTorch is missing", "pip install 'jdd[torch]'") from error
    store = _store(dset, folder) if dset.recipe["train"]["order"] == "stored" else None
    made: Examples = type("TorchDataset", (Examples, data.Dataset), {})(
        dset, store, seed, augmented
    )
    return made


def _weighted(dset: DistilledSet) -> DistilledSet:
    """Return a set without weights, its labels scaled by them."""
    if dset.weights is None:
        return dset
    rows = np.asarray(losses.targets(jnp.asarray(dset.labels), dset.label_kind, dset.classes))
    labels = rows * dset.weights[:, None]
    return dset._replace(labels=labels, label_kind="probabilities", weights=None)


def _store(dset: DistilledSet, folder: Path | None) -> LabelStore:
    """Return the stored labels of a set."""
    if dset.weights is not None:
        found = "stored labels of a set whose images have weights, which are factors of the loss"
        raise BadInput("dset", found, "jdd.evaluate, or a set without weights")
    if folder is None:
        raise BadInput("dset", "a set of stored labels", "its path: labels/ lies next to it")
    directory = folder / str(dset.recipe["labels"]["store"])
    if not directory.is_dir():
        allowed = "the folder labels/ of its run, next to the set"
        raise BadInput("the set's labels", f"not in {directory}", allowed)
    store = LabelStore.open(directory)
    if store.mode == "online" and dset.recipe["train"]["loss"] != "hard":
        found = "labels given online, by teachers in the student's step"
        raise BadInput("the set's labels", found, "a set with relabel.mode=views, static or map")
    if store.settings["images"] != digest(dset.images):
        allowed = "the folder labels/ of the same run"
        raise BadInput(str(directory), "labels of other images", allowed)
    return store
