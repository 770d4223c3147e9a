"""CDA: SRe2L whose crops go from the whole image to small ones (Yin & Shen, TMLR 2024).

The smallest area that a crop may have falls from 1 to ``min_scale`` in the first ``milestone`` of
the steps, by ``curriculum`` (``augment/crop_schedule.py``): global structure first, local
detail later. All else is SRe2L's.
"""

from __future__ import annotations

from jdd.methods import sre2l

make = sre2l.make
parts = sre2l.parts
fits = sre2l.fits
