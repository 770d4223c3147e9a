"""Distillation loss of a student's step on stored views and the teachers' labels.

The images of the set are cropped, mirrored and mixed by the stored views. The labels are those of
the views, those of the images, or computed in the step (``soft_labels/modes.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd.augment import views
from jdd.nets import Net
from jdd.soft_labels import codec, maps, targets, teacher
from jdd.training.recipe import Recipe

Tree = Any


class DistillationLoss(NamedTuple):
    """Loss on a teacher's labels, and how they are read; hashable.

    ``mode`` and ``form`` are the store's (``soft_labels/modes.py``, ``soft_labels/codec.py``);
    ``teachers``, ``bn`` and ``combine`` are the arguments of ``teacher.answer`` in mode online.
    ``recipe`` is the training recipe (its options ``loss``, ``temperature`` and ``ce_weight``).
    Its ``loss`` is

    ``kl``          mean KL(softmax(z_T / T) || softmax(z_S / T)), T = ``temperature``
    ``kl_squared``  T^2 times that
    ``mse_gt``      mean (z_S - z_T)^2 + ``ce_weight`` CE(z_S, the image's own class)
    ``hard``        CE with the classes of the image and of its partner, weighted by their shares:
                    the same views without teachers

    In modes static and map, if an image of logits z' is mixed into one of logits z with share
    1 - s, s = ``views.own_share``, the label is s softmax(z / T) + (1 - s) softmax(z' / T), and for
    mse_gt s z + (1 - s) z': the gradient is that of the two images' losses, weighted by s.

    Of a set with a weight w of each image, the mean is that of w_i' L_i: a view of an image i into
    which a share 1 - s of an image j is mixed has w_i' = s w_i + (1 - s) w_j.

    Source: SRe2L (Yin et al., NeurIPS 2023), section 3.3; G-VBSM (Shao et al., CVPR 2024),
    section 3.4 (``mse_gt``).
    """

    form: str
    classes: int
    recipe: Recipe
    mode: str = "views"
    teachers: tuple[Net, ...] = ()
    bn: str = "eval"
    combine: str = "mean"

    @property
    def online(self) -> bool:
        """True if teachers run in the student's step."""
        return self.mode == "online" and self.recipe.loss != "hard"

    def view(self, images: jax.Array, labels: Mapping[str, Tree], step: Tree) -> tuple[Tree, Tree]:
        """Return the views of a step and the targets for ``loss``.

        Args:
          images: the set, ``[n, h, w, c]``.
          labels: ``first``, the first step of the piece; ``classes``, int ``[n]``; per step,
            ``[steps, b, ...]``: ``index``, ``views`` and ``soft``, in the store's form; per image,
            ``[n, ...]``: ``each``, in the store's form, and of a set with weights ``weights``,
            ``[n]``; in mode online ``teachers``, the variables of each.
          step: the number of the step.
        """
        at = step - labels["first"]
        row = jax.tree.map(lambda a: a[at], {k: labels[k] for k in ("index", "views", "soft")})
        view = views.unpack(row["views"])
        x = views.apply(images[row["index"]], view)
        own = labels["classes"][row["index"]]
        share = views.own_share(view, images.shape[1:3])[:, None]
        one = jax.nn.one_hot(own, self.classes)
        mixed = share * one + (1 - share) * one[view.partner]
        more = {}
        if "weights" in labels:
            weight = labels["weights"][row["index"]]
            more["weight"] = share[:, 0] * weight + (1 - share[:, 0]) * weight[view.partner]
        if self.recipe.loss == "hard":
            return x, {"mixed": mixed, **more}
        return x, {"soft": self._soft(labels, row, view, x, share), "own": own, **more}

    def _soft(
        self, labels: Mapping[str, Tree], row: Tree, view: views.View, x: jax.Array, share: Tree
    ) -> jax.Array:
        """Return the teachers' labels of the views, ``[b, classes]``, of type ``kind``."""
        if self.mode == "views":
            return codec.decode(row["soft"], self.form, self.classes)[1]
        if self.mode == "online":
            return teacher.answer(self.teachers, labels["teachers"], x, self.bn, self.combine)
        each = jax.tree.map(lambda a: a[row["index"]], labels["each"])
        if self.mode == "static":
            z = each["logits"].astype(jnp.float32)
        else:
            found = maps.expand(each["values"], each["indices"], self.classes)
            z = maps.of_views(found, view, x.shape[1:3])
        own = z if self.recipe.loss == "mse_gt" else jax.nn.softmax(z / self.recipe.temperature)
        return share * own + (1 - share) * own[view.partner]

    @property
    def kind(self) -> str:
        """The kind of the labels of ``view``: "logits" or "probabilities"."""
        direct = self.mode in ("views", "online") or self.recipe.loss == "mse_gt"
        return "logits" if self.form == "logits" and direct else "probabilities"

    def loss(self, logits: jax.Array, target: Mapping[str, Tree]) -> jax.Array:
        """Return the mean loss over the rows ``[b, classes]``, weighted if the images are."""
        rows = target["weight"] / len(logits) if "weight" in target else None
        if self.recipe.loss == "hard":
            each = -jnp.sum(target["mixed"] * jax.nn.log_softmax(logits), axis=-1)
            return jnp.mean(each) if rows is None else jnp.sum(rows * each)
        if self.recipe.loss == "mse_gt":
            weight = self.recipe.ce_weight
            return targets.mse_gt(logits, target["soft"], target["own"], weight, rows)
        squared = self.recipe.loss == "kl_squared"
        return targets.kl(
            target["soft"], logits, self.recipe.temperature, self.kind, rows, squared=squared
        )
