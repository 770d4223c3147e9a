"""What a student is taught in a step whose view and soft labels are stored or fixed beforehand.

The images of the set are cropped, mirrored and mixed as the store says, and the labels are what the
teachers said of just these views.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd.augment import views
from jdd.labels import forms, targets

Tree = Any
LOSSES = ("kl", "kl_squared", "mse_gt", "hard")


class Lesson(NamedTuple):
    """How stored labels are read, and what is lost on them; hashable.

    ``form`` is the store's (``labels/forms.py``), ``loss`` one of

    ``kl``          mean KL(softmax(z_T / T) || softmax(z_S / T)), T = ``temperature``
    ``kl_squared``  T^2 times that
    ``mse_gt``      mean (z_S - z_T)^2 + ``weight`` CE(z_S, the image's own class)
    ``hard``        CE with the classes of the image and of what is mixed into it, by their shares:
                    the same views without the teachers

    Source: SRe2L (Yin et al., NeurIPS 2023), section 3.3; G-VBSM (Shao et al., CVPR 2024),
    section 3.4 (``mse_gt``).
    """

    form: str
    classes: int
    kind: str = "kl"
    temperature: float = 20.0
    weight: float = 0.0

    def view(self, images: jax.Array, labels: Mapping[str, Tree], step: Tree) -> tuple[Tree, Tree]:
        """Return the images of a step as they are shown, and what is to be learned of them.

        Args:
          images: the set, ``[n, h, w, c]``.
          labels: ``first``, the step that the rest begins with; ``classes``, int ``[n]``; and of
            every step, ``[steps, b, ...]``: ``index``, ``views`` and ``soft``, as the store has
            them.
        """
        at = step - labels["first"]
        row = jax.tree.map(lambda a: a[at], {k: labels[k] for k in ("index", "views", "soft")})
        view = views.unpack(row["views"])
        x = views.apply(images[row["index"]], view)
        own = labels["classes"][row["index"]]
        share = views.own_share(view, images.shape[1:3])[:, None]
        one = jax.nn.one_hot(own, self.classes)
        mixed = share * one + (1 - share) * one[view.partner]
        if self.kind == "hard":
            return x, {"mixed": mixed}
        return x, {"soft": forms.decode(row["soft"], self.form, self.classes)[1], "own": own}

    def loss(self, logits: jax.Array, target: Mapping[str, Tree]) -> jax.Array:
        """Return the mean loss over the rows ``[b, classes]``."""
        if self.kind == "hard":
            return jnp.mean(-jnp.sum(target["mixed"] * jax.nn.log_softmax(logits), axis=-1))
        if self.kind == "mse_gt":
            return targets.mse_gt(logits, target["soft"], target["own"], self.weight)
        said = "logits" if self.form == "logits" else "probabilities"
        squared = self.kind == "kl_squared"
        return targets.kl(target["soft"], logits, self.temperature, said, squared=squared)
