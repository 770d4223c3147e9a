"""Protocols by which nets are trained on a set, whatever made it: one table for each kind of set.

``PAIRS`` are entries of a pair set's ``recipe["train"]``, by ``config.protocol``. ``COMMON`` are
whole evaluations of classification sets and generators, by ``config.eval.protocol``
(docs/protocol.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OWN = "own"  # by the recipe of each set

#   vl    Wu et al., TMLR 2024: both towers at the rate learned for the image tower; the drop of
#         the rate comes after the last epoch.
#   lors  Xu et al., ICML 2024: ceil(n / b) batches an epoch, each drawn anew.
# Both say one epoch less than they train.
PAIRS: dict[str, dict[str, Any]] = {
    OWN: {},
    "vl": {
        "epochs": 51, "passes": 51, "batch": 64, "momentum": 0.9, "weight_decay": 5e-4,
        "drop": None, "loss": "nce", "order": "shuffled", "rates": "image", "test_every": 0,
    },
    "lors": {
        "epochs": 101, "passes": 101, "batch": 128, "momentum": 0.9, "weight_decay": 5e-4,
        "drop": {"after_epoch": 51, "factor": 0.1, "reset_momentum": True},
        "loss": "wbce", "order": "drawn", "rates": "own", "test_every": 10,
    },
}  # fmt: skip


def of_pairs(name: str, epochs: int = 0, batch: int = 0) -> dict[str, Any]:
    """Return a protocol's entries of ``recipe["train"]``, at another length or batch if given.

    The rate drops after epoch E // 2 + 1 of E, as published for 101.
    """
    found = dict(PAIRS[name])
    if found and epochs:
        found |= {"epochs": epochs, "passes": epochs}
        if found["drop"]:
            found["drop"] = found["drop"] | {"after_epoch": epochs // 2 + 1}
    return found | ({"batch": batch} if found and batch else {})


@dataclass(frozen=True)
class Protocol:
    """One evaluation for all sets. Students and teacher are nets of one kind.

    Attributes:
      net, large: the net of images below 128 pixels a side, and of larger ones.
      width: its width; 0 for the net's own.
      epochs, batch, optimizer, lr, weight_decay, stretch: of a student; the rate follows
        ``schedules.Cosine`` with this stretch.
      temperature: T of KL(softmax(z_T / T) || softmax(z_S / T)), the loss of the column 'soft'.
      crop, min_scale, flip, mix, alpha: of a view, as ``augment.views.Spec`` has them. ``flip`` is
        0 for datasets that forbid it.
      teacher_epochs, teacher_lr, teacher_batch, teacher_decay: of the teacher, by SGD with momentum
        0.9, a cosine to 0, and a padded crop with the flip of the views.
      early: epochs of the second net, whose errors EL2N orders real images by.
    """

    net: str
    large: str
    width: int = 0
    epochs: int = 400
    batch: int = 50
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    stretch: float = 1.0
    temperature: float = 20.0
    crop: str = "resized"
    min_scale: float = 0.08
    flip: float = 0.5
    mix: str = "cutmix"
    alpha: float = 1.0
    teacher_epochs: int = 200
    teacher_lr: float = 0.1
    teacher_batch: int = 128
    teacher_decay: float = 5e-4
    early: int = 20

    def net_for(self, shape: tuple[int, ...]) -> str:
        """Return the name of the net for images of this shape."""
        return self.large if min(shape[:2]) >= 128 else self.net


#   common        RD3 (ICLR 2026, arXiv:2509.19743): 400 epochs, batches of 50, Adam at 1e-3, a
#                 cosine stretched by 1 for ResNet18 and by 2 for other nets, CutMix, resized crop
#                 and flip, one ResNet18 teacher, KL. Temperature and the teacher's training are
#                 jdd's: those of SRe2L's students and of its teachers for CIFAR.
#   common-small  the same with ConvNetBN of width 32, for a CPU; its crops are shifts of padded
#                 images, since a resized crop of 8 x 8 pixels may show 2 x 2 of them.
COMMON: dict[str, Protocol] = {
    "common": Protocol("ResNet18BN", "ResNet18BN_IN"),
    "common-small": Protocol(
        "ConvNetBN", "ConvNetBN", width=32, stretch=2.0, crop="padded", teacher_epochs=30,
        teacher_lr=0.01, teacher_batch=64, early=3,
    ),
}  # fmt: skip
