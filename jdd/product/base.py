"""The product of a run: one of three kinds, each with its recipe and transform.

``images``     a fixed set of labelled images (``product/distilled_set.py``);
``pairs``      images, text vectors and their target similarities (``product/pairs.py``);
``generator``  a net that samples fresh labelled images each epoch (``product/generator.py``).

All have ``kind``, ``recipe``, ``transform``, ``notes``, ``size``, ``with_recipe`` and ``save``.
Code that takes any of them is typed ``product.files.AnyProduct``.

Every product is stored in ``distilled.npz``. A fixed set of images without weights is written as
schema 1, all others as schema 2; both can be read (``product/files.py``).
"""

from __future__ import annotations

KINDS = ("images", "pairs", "generator")
