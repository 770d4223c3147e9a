"""What a student is taught in a step whose view is stored: labels stored with it, or made of it.

The images of the set are cropped, mirrored and mixed as the store says. The labels are what the
teachers said of just these views, or of the images, or say now (``soft_labels/modes.py``).
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
    """How labels are read, and what is lost on them; hashable.

    ``mode`` and ``form`` are the store's (``soft_labels/modes.py``, ``soft_labels/codec.py``);
    ``teachers``, ``bn`` and ``combine`` say who labels in mode online, and how
    (``teacher.answer``). ``recipe`` is that of the training (its options ``loss``, ``temperature``
    and ``ce_weight``). Its ``loss`` is

    ``kl``          mean KL(softmax(z_T / T) || softmax(z_S / T)), T = ``temperature``
    ``kl_squared``  T^2 times that
    ``mse_gt``      mean (z_S - z_T)^2 + ``ce_weight`` CE(z_S, the image's own class)
    ``hard``        CE with the classes of the image and of what is mixed into it, by their shares:
                    the same views without the teachers

    In modes static and map an image of logits z' that is mixed into one of z by 1 - s, s =
    ``views.own_share``, makes s softmax(z / T) + (1 - s) softmax(z' / T) the label, and for mse_gt
    s z + (1 - s) z': with either the gradient is that of the two images' losses mixed by s.

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
        """Whether teachers run in the student's step."""
        return self.mode == "online" and self.recipe.loss != "hard"

    def view(self, images: jax.Array, labels: Mapping[str, Tree], step: Tree) -> tuple[Tree, Tree]:
        """Return the images of a step as they are shown, and what is to be learned of them.

        Args:
          images: the set, ``[n, h, w, c]``.
          labels: ``first``, the step that the rest begins with; ``classes``, int ``[n]``; of every
            step, ``[steps, b, ...]``: ``index``, ``views`` and ``soft``, as the store has them; of
            every image, ``[n, ...]``: ``each``, as it has them; in mode online ``teachers``, the
            variables of each.
        """
        at = step - labels["first"]
        row = jax.tree.map(lambda a: a[at], {k: labels[k] for k in ("index", "views", "soft")})
        view = views.unpack(row["views"])
        x = views.apply(images[row["index"]], view)
        own = labels["classes"][row["index"]]
        share = views.own_share(view, images.shape[1:3])[:, None]
        one = jax.nn.one_hot(own, self.classes)
        mixed = share * one + (1 - share) * one[view.partner]
        if self.recipe.loss == "hard":
            return x, {"mixed": mixed}
        return x, {"soft": self._soft(labels, row, view, x, share), "own": own}

    def _soft(
        self, labels: Mapping[str, Tree], row: Tree, view: views.View, x: jax.Array, share: Tree
    ) -> jax.Array:
        """Return what the teachers say of the views, ``[b, classes]``, of the kind ``_said``."""
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
    def _said(self) -> str:
        direct = self.mode in ("views", "online") or self.recipe.loss == "mse_gt"
        return "logits" if self.form == "logits" and direct else "probabilities"

    def loss(self, logits: jax.Array, target: Mapping[str, Tree]) -> jax.Array:
        """Return the mean loss over the rows ``[b, classes]``."""
        if self.recipe.loss == "hard":
            return jnp.mean(-jnp.sum(target["mixed"] * jax.nn.log_softmax(logits), axis=-1))
        if self.recipe.loss == "mse_gt":
            return targets.mse_gt(logits, target["soft"], target["own"], self.recipe.ce_weight)
        squared = self.recipe.loss == "kl_squared"
        return targets.kl(
            target["soft"], logits, self.recipe.temperature, self._said, squared=squared
        )
