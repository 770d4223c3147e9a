"""CDA: SRe2L whose crops go from the whole image to small ones (Yin & Shen, TMLR 2024).

The smallest area of a crop decreases from 1 to ``min_scale`` in the first ``milestone`` of the
steps, by ``curriculum`` (``augment/crop_schedule.py``): global structure first, local detail later.
Everything else is SRe2L's.
"""

from __future__ import annotations

from jdd.methods import sre2l

make = sre2l.make
parts = sre2l.parts
validate_teachers = sre2l.validate_teachers
