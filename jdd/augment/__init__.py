"""Augmentations: differentiable ones for distillation, and those of the published evaluations.

A recipe names one and its operations, ``{"name": "dsa", "strategy": "color_crop", ...}``. Each is a
module with ``names(strategy)``, ``draw_op(key, strategy)`` and ``apply(op, key, images, strategy,
siamese, align_corners)``.
"""

from __future__ import annotations

from types import ModuleType

from jdd.augment import crops, dc, diffaug, dsa, frepo, idc
from jdd.errors import BadInput, nearest

KINDS: dict[str, ModuleType] = {
    "dsa": dsa,
    "dc": dc,
    "frepo": frepo,
    "idc": idc,
    "views": crops,
    "diffaug": diffaug,
}


def kind(name: str) -> ModuleType:
    """Return the augmentation called ``name``.

    Raises:
      BadInput: an unknown name.
    """
    if name not in KINDS:
        near = nearest(name, KINDS)
        hint = f"did you mean {near}? " if near else ""
        raise BadInput("augmentation", f"{name!r}", f"{hint}one of none, {', '.join(KINDS)}")
    return KINDS[name]
