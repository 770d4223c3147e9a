"""Batch-norm statistics of the set as a term of MTT's loss (keys ``bn.*`` of MTT's family).

    L = bn.param |theta_N - theta*_{t+M}|^2 / |theta*_t - theta*_{t+M}|^2
      + bn.weight sum_l w_l (|mu_l(S; theta) - mu_l| + |var_l(S; theta) - var_l|)

l runs over batch norms, mu_l and var_l are mean and biased variance of each channel of their inputs
over the whole set S at once, without augmentation, every batch norm normalising by them as in
training (``jdd/nets/moments.py``); w_l is ``bn.first`` of the first layer and 1 of the others. With
``bn.targets=class`` the second term is the mean over classes of that of a class's images.

theta are the weights of the step's start or target snapshot, or of the best expert (``bn.net``).
The constants mu_l and var_l are, by ``bn.source``,

  checkpoint  the running statistics that the snapshot of ``bn.net`` was stored with; of an
              untrained one, which has none, measured as for ``target``;
  target      measured over all real images, without augmentation, with the weights of the target
              snapshot;
  best        the running statistics of the best expert at its last epoch: the one of highest
              accuracy on validation images, else on training images.

Statistics of a class are measured over its real images, with the weights of that snapshot. No paper
has this term; it is SRe2L's (Yin et al., NeurIPS 2023) in MTT's loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.data.dataset import Split
from jdd.evaluation.accuracy import accuracy
from jdd.matching.statistics import running, statistics_loss
from jdd.methods.base import Experts, Method, Problem
from jdd.nets import Net
from jdd.nets.moments import Layers, Moments, of_batch, over_batches
from jdd.nets.order import order
from jdd.specs.mtt import Config

Tree = Any
_JUDGED = 2000  # training images by which the best expert is chosen
_BEST = "bn_best"  # its variables, among the method's constants


@lru_cache(maxsize=16)
def _reader(net: Net) -> Any:
    """Return the compiled statistics of one batch of real images."""
    names = order(net, ["batch"])

    @jax.jit
    def read(variables: Tree, images: jax.Array, groups: jax.Array) -> Moments:
        return of_batch(net, names, variables, images, groups)

    return read


def measured(net: Net, variables: Tree, images: Any, groups: np.ndarray, batch: int) -> Layers:
    """Return the statistics of real images over one epoch, float32 ``[g, c]`` by layer.

    Args:
      images: ``[n, h, w, c]``.
      groups: ``[n, g]``, 1 where an image belongs to a group.
      batch: images at a time, at most; batches are of mixed classes and nearly equal sizes.
    """
    rows, read = rng.host(0, "bn/epoch").permutation(len(groups)), _reader(net)
    found = over_batches(lambda some: read(variables, images[some], groups[some]), rows, batch)
    narrow: Layers = jax.tree.map(np.float32, found)
    return narrow


class Targets:
    """The constants mu_l and var_l of a step, by expert and epochs; each is measured once."""

    def __init__(self, config: Config, problem: Problem):
        assert problem.experts is not None
        self._config, self._data, self._net = config, problem.data, problem.nets["student"]
        self._store: Experts = problem.experts
        self._names = order(self._net, ["batch"])
        self._known: dict[tuple[int, int], Layers] = {}
        self._best: tuple[int, int] | None = None

    @property
    def best(self) -> tuple[int, int]:
        """The best expert and its last epoch."""
        if self._best is None:
            self._best = self._chosen(), self._config.experts.epochs
        return self._best

    def _chosen(self) -> int:
        data, config = self._data, self._config
        if not self._store.trained or config.experts.count == 1:
            return 0
        split = data.val
        if split is None:
            rows = rng.host(0, "bn/best").permutation(len(data.train.labels))[:_JUDGED]
            split = Split(data.train.images[rows], data.train.labels[rows])
        found = []
        for expert in range(config.experts.count):
            own = self._store.read(expert, config.experts.epochs)
            found.append(accuracy(self._net, jax.tree.map(lambda a: a[None], own), split)[0])
        return int(np.argmax(found))  # the first of equal ones

    def at(self, start: tuple[int, int], target: tuple[int, int]) -> Layers:
        """Return the statistics of a step, ``[g, c]`` by layer, from its snapshots."""
        bn = self._config.bn
        if bn.source == "best":
            snapshot = self.best
        else:
            snapshot = start if (bn.source, bn.net) == ("checkpoint", "start") else target
        if snapshot not in self._known:
            self._known[snapshot] = self._of(snapshot)
        return self._known[snapshot]

    def _of(self, snapshot: tuple[int, int]) -> Layers:
        bn, variables = self._config.bn, self._store.read(*snapshot)
        data, labels = self._data, self._data.train.labels
        groups = classes_of(labels, data.classes) if bn.targets == "class" else classes_of(labels)
        stored = bn.source != "target" and bn.targets == "global" and snapshot[1] > 0
        if stored or not self._store.trained:
            shape = (groups.shape[1], 1)
            found = running(variables["batch_stats"], self._names)
            return jax.tree.map(lambda a: np.tile(np.asarray(a, np.float32), shape), found)
        images, batch = data.train.images, self._config.experts.batch
        return measured(self._net, variables, images, groups, batch)


def classes_of(labels: np.ndarray, classes: int = 0) -> np.ndarray:
    """Return the groups of images: one for each class, or one of all, float32 ``[n, g]``."""
    if not classes:
        return np.ones((len(labels), 1), np.float32)
    return np.asarray(labels[:, None] == np.arange(classes), np.float32)


def statistics_term(
    net: Net, first: float, groups: np.ndarray
) -> Callable[[jax.Array, Tree, Layers], jax.Array]:
    """Return ``(images, variables, targets) -> sum_l w_l (...)``, the mean over groups.

    Args:
      net: a net with batch norm.
      first: w of its first batch norm.
      groups: of the set's images, ``[n, g]``; ``targets`` are of the same groups.
    """
    names = order(net, ["batch"])

    def term(images: jax.Array, variables: Tree, targets: Layers) -> jax.Array:
        of = jnp.asarray(groups, images.dtype)
        found = of_batch(net, names, variables, images, of).layers

        def one(ours: Layers, wanted: Layers) -> jax.Array:
            return statistics_loss(ours, wanted, names, first)[0]

        return jnp.mean(jax.vmap(one)(found, targets))

    return term


def added(method: Method, config: Config, problem: Problem, hard: np.ndarray) -> Method:
    """Return a trajectory-matching method with the statistics' term in its loss.

    Args:
      method: one of ``mtt.build``; unchanged if ``bn.weight`` is 0.
      hard: the class of each synthetic image.
    """
    bn, data = config.bn, problem.data
    if not bn.weight:
        return method
    targets = Targets(config, problem)
    groups = classes_of(hard, data.classes if bn.targets == "class" else 0)
    term = statistics_term(problem.nets["student"], bn.first, groups)
    objective = cast(Callable[..., Any], method.objective)

    def both(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        trajectory, (new, metrics) = objective(variables, aux, item, key)
        theta = aux[_BEST] if bn.net == "best" else item[bn.net]
        statistics = term(variables["images"], theta, item["bn"])
        loss, metrics = bn.weight * statistics, {**metrics, "bn": statistics}
        if bn.param:  # else the student is trained for nothing, and the compiler leaves it out
            loss, metrics = bn.param * trajectory + loss, {**metrics, "trajectory": trajectory}
        return loss, (new, metrics)

    def sample(seed: int, step: int) -> dict[str, Any]:
        indices = method.sample(seed, step)
        pairs = zip(*(indices["snapshots"][name] for name in ("start", "target")), strict=True)
        found = [targets.at(*((int(e), int(t)) for e, t in pair)) for pair in pairs]
        return indices | {"bn": jax.tree.map(lambda *x: np.stack(x), *found)}

    best = {}
    if bn.net == "best":
        assert problem.experts is not None
        best = {_BEST: problem.experts.read(*targets.best)}
    return method._replace(objective=both, sample=sample, constants={**method.constants, **best})
