"""By which statistics the batch norms of a trained net normalise when it is tested.

``running``  the running averages of its training;
``batch``    those of every 200 test images (``accuracy.by_batch``);
``set``      recalibrated: the weights stay, the statistics are those of the set's images;
``real``     recalibrated on real training images, whose labels are not read.

Recalibrated statistics are the mean and the biased variance of each layer's inputs over all images,
without augmentation, in batches whose own statistics the layers before normalise by. Of a
generator, the images are those of the last epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import parallel, rng
from jdd.evaluation.accuracy import BATCH, by_batch
from jdd.nets import Net
from jdd.nets.moments import Moments, of_batch, over_batches, with_statistics
from jdd.nets.order import order
from jdd.run.session import Session
from jdd.training import trainer
from jdd.training.recipe import Recipe

Tree = Any
MOST = 10_000  # real images that statistics are taken of
_BYTES = 1 << 30  # of these images, at most


def ways(net: Net, recipe: Recipe) -> tuple[str, ...]:
    """Return the recipe's ways of testing batch norm, the first one that counts.

    () for a net without batch norm, where all ways are equal, unless the only one is running or
    batch.
    """
    found = tuple(recipe.test_norm.split(","))
    # Without statistics to replace, or to take of test batches, any net is tested as it is.
    simple = found in (("running",), ("batch",))
    return found if simple or order(net, ["batch"]) else ()


def columns(net: Net, recipe: Recipe) -> list[str]:
    """Return the names of a result's further accuracies, one for each of several ways."""
    found = ways(net, recipe) if "," in recipe.test_norm else ()
    return [f"bn_{way}" for way in found]


def real_rows(seed: int, n: int, image_bytes: int) -> np.ndarray:
    """Return the rows of the real images that statistics are taken of, in random order."""
    most = min(MOST, max(BATCH, _BYTES // max(image_bytes, 1)))
    return rng.host(seed, "evaluate/statistics").permutation(n)[:most]


@lru_cache(maxsize=64)
def _measure(net: Net, shared: bool) -> Any:
    names = order(net, ["batch"])

    def one(variables: Tree, images: jax.Array) -> Moments:
        return of_batch(net, names, variables, images, jnp.ones((len(images), 1)))

    together = trainer.light(net, BATCH)
    devices = jax.local_devices()[:1]
    return parallel.spread(one, (0, None if shared else 0), devices, together)


def recalibrated(
    net: Net, variables: Tree, images: Any, seed: int, session: Session | None = None
) -> Tree:
    """Return nets whose running statistics are those of ``images``.

    Args:
      variables: of the nets, stacked on axis 0.
      images: ``[n, h, w, c]`` for all nets, or ``[nets, n, h, w, c]``, in their input space.
      seed: of the order in which images are cut into batches.

    Raises:
      Interrupted: with a session, when a signal arrives.
    """
    shared = images.ndim == 4
    n = images.shape[0 if shared else 1]
    rows = rng.host(seed, "evaluate/batches").permutation(n)

    def read(some: np.ndarray) -> Moments:
        if session is not None:
            session.check()
        x = images[some] if shared else images[:, some]
        moments: Moments = _measure(net, shared)(variables, x)
        return moments

    found = over_batches(read, rows, BATCH)
    layers = {name: {key: value[:, 0] for key, value in own.items()} for name, own in found.items()}
    return with_statistics(variables, layers)


def tested(
    test: Callable[[Net, Tree, Session], np.ndarray],
    net: Net,
    recipe: Recipe,
    variables: Tree,
    images: Any,
    real: np.ndarray | None,
    seed: int,
    session: Session,
) -> np.ndarray:
    """Return the metrics of ``test`` by the first way, and the primary one by each of several.

    Args:
      test: ``(net, variables, session) -> [nets, metrics]``.
      variables: of the nets, stacked on axis 0.
      images: the set's, ``[nets, n, h, w, c]``.
      real: real images ``[n, h, w, c]``; read by way ``real`` alone.

    Returns:
      ``[nets, metrics + columns]``.
    """

    def by(way: str) -> np.ndarray:
        if way == "batch":
            return test(by_batch(net), variables, session)
        if way == "running":
            return test(net, variables, session)
        of = images if way == "set" else real
        assert of is not None
        return test(net, recalibrated(net, variables, of, seed, session), session)

    found = [by(way) for way in ways(net, recipe)] or [test(net, variables, session)]
    if len(found) == 1:
        return found[0]
    return np.concatenate([found[0], *(one[:, :1] for one in found)], axis=1)
