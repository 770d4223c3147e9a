"""Distillation loss of a student's step on stored views and the teachers' labels.

The images of the set are cropped, mirrored and mixed by the stored views. The labels are those of
the views, those of the images, or computed in the step (``soft_labels/modes.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd.augment import randaugment, views
from jdd.matching import relations
from jdd.nets import Net, Output
from jdd.soft_labels import codec, maps, targets, teacher
from jdd.soft_labels.ensemble import combine
from jdd.training.recipe import Recipe

Tree = Any


class DistillationLoss(NamedTuple):
    """Loss on a teacher's labels and relations, and how they are read; hashable.

    ``mode`` and ``form`` are the store's (``soft_labels/modes.py``, ``soft_labels/codec.py``);
    ``teachers``, ``bn`` and ``combine`` are the arguments of ``teacher.answer`` in mode online.
    ``pixels``: how the images stand for pixels, for views with RandAugment.
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

    With weights of relation graphs (``relations.Weights``), in every mode and with every loss, the
    teachers run in the student's step and ``relation_loss`` is added: it compares the graphs of the
    student's and of each teacher's features of the same views.

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
    pixels: randaugment.Pixels | None = None

    @property
    def online(self) -> bool:
        """True if teachers run in the student's step."""
        return self._labels_online or self.recipe.relates

    @property
    def _labels_online(self) -> bool:
        return self.mode == "online" and self.recipe.loss != "hard"

    @property
    def weights(self) -> relations.Weights:
        """The weights of the relation graphs' terms."""
        r = self.recipe
        return relations.Weights(r.irg_vertices, r.irg_edges, r.irg_transformations, r.irg_half)

    @property
    def taps(self) -> bool:
        """True if the outputs of the nets' blocks are compared."""
        return self.weights.transformations > 0

    def view(self, images: jax.Array, labels: Mapping[str, Tree], step: Tree) -> tuple[Tree, Tree]:
        """Return the views of a step and the targets for ``loss``.

        Args:
          images: the set, ``[n, h, w, c]``.
          labels: ``first``, the first step of the piece; ``classes``, int ``[n]``; per step,
            ``[steps, b, ...]``: ``index``, ``views`` and ``soft``, in the store's form; per image,
            ``[n, ...]``: ``each``, in the store's form, and of a set with weights ``weights``,
            ``[n]``; if ``online`` ``teachers``, the variables of each, without which there are no
            relations among the targets.
          step: the number of the step.
        """
        at = step - labels["first"]
        row = jax.tree.map(lambda a: a[at], {k: labels[k] for k in ("index", "views", "soft")})
        view = views.unpack(row["views"])
        x = views.apply(images[row["index"]], view, pixels=self.pixels)
        own = labels["classes"][row["index"]]
        share = views.own_share(view, images.shape[1:3])[:, None]
        one = jax.nn.one_hot(own, self.classes)
        mixed = share * one + (1 - share) * one[view.partner]
        more: dict[str, Tree] = {}
        seen = self._seen(labels, x)
        if seen:
            more["relations"] = tuple(relations.read(out) for out in seen)
        if "weights" in labels:
            weight = labels["weights"][row["index"]]
            more["weight"] = share[:, 0] * weight + (1 - share[:, 0]) * weight[view.partner]
        if self.recipe.loss == "hard":
            return x, {"mixed": mixed, **more}
        if seen and self._labels_online:
            logits = [out.logits for out in seen]
            soft = logits[0] if len(seen) == 1 else combine(logits, self.combine)
        else:
            soft = self._soft(labels, row, view, x, share)
        return x, {"soft": soft, "own": own, **more}

    def _seen(self, labels: Mapping[str, Tree], x: jax.Array) -> list[Output]:
        """Return the teachers' outputs for the views if their relations are compared, else []."""
        if not self.recipe.relates or "teachers" not in labels:
            return []
        pairs = zip(self.teachers, labels["teachers"], strict=True)
        return teacher.outputs(pairs, x, self.bn, self.taps)

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

    def relation_loss(self, out: Output, target: Mapping[str, Tree]) -> jax.Array:
        """Return the weighted distance of a student's relation graphs from its teachers'.

        Args:
          out: the student's output for the views, its blocks tapped if ``taps``.
          target: of ``view``, with ``relations``.
        """
        return relations.loss(target["relations"], relations.read(out), self.weights)
