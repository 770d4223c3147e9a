"""RDED: images tiled from the crops of lowest cross entropy to a teacher (Sun et al., CVPR 2024).

No image is optimised. For each class up to ``candidates`` real images are drawn, and ``crops``
random crops of each; the crop of lowest cross entropy to the squeezed net represents its image. The
ipc * factor^2 best crops fill ipc images, factor by factor crops each, an image's best crop in its
first cell. With factor 1 (CIFAR, Tiny-ImageNet) a crop is an image.

Differs from the authors' code: crops are resized to cells by averaging the pixels of a crop at full
size, theirs by antialiased resizing (equal for factor 1); the evaluation uses the final step, not
the best of its last fifth; a student's step updates the running statistics of batch norms once
(``ref_bugs``: twice, like theirs).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jdd.data.quantise import quantised
from jdd.methods import decoupled
from jdd.methods.base import Method, Problem, State, wrong_labels
from jdd.pretrained import patch_selection
from jdd.product.distilled_set import DistilledSet
from jdd.specs.rded import Config


def make(config: Config, problem: Problem) -> Method:
    """Build RDED for ``problem``: a method without steps."""
    data, factor, ipc = problem.data, config.factor, config.ipc
    each = ipc * factor**2
    rule = patch_selection.Rule(config.candidates, config.crops, config.min_scale, factor)

    def init(seed: int) -> State:
        found = patch_selection.select(problem.teachers[0], data, seed, each, rule)
        # The rows are of use where labels may be wrong; older checkpoints have none.
        rows = np.zeros(()) if data.clean is None else np.asarray(found.rows)
        images = []
        for c in range(data.classes):
            own, box = found.rows[c * each :][:each], found.box[c * each :][:each]
            cells = patch_selection.shrunk(patch_selection.cut(data.train.images[own], box), factor)
            images.append(tiles(np.asarray(cells), ipc, factor))
        return State(
            {"images": jnp.asarray(np.concatenate(images))}, {"rows": jnp.asarray(rows, jnp.int32)}
        )

    def sample(seed: int, step: int) -> dict[str, Any]:
        raise ValueError("images that are put together have no steps")

    def distilled(state: State, steps: int) -> DistilledSet:
        images = quantised(np.asarray(state.variables["images"]), data.transform, config.quantise)
        chosen = wrong_labels(data, np.asarray(state.aux["rows"]))
        return decoupled.dataset(problem, images, steps, **chosen)

    return Method(init, sample, None, distilled, optax.identity())


def tiles(cells: np.ndarray, ipc: int, factor: int) -> np.ndarray:
    """Tile ``ipc factor^2`` cells, the best first, into ``ipc`` images.

    Cell k of image i is crop k ipc + i, k counting row by row.
    """
    n, h, w, c = cells.shape
    grid = cells.reshape(factor, factor, ipc, h, w, c).transpose(2, 0, 3, 1, 4, 5)
    return grid.reshape(ipc, factor * h, factor * w, c)
