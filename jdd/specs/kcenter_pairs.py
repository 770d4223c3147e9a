"""K-center of pairs: real pairs that cover all pairs, by greedy farthest points."""

from __future__ import annotations

import dataclasses

from jdd.specs import herding_pairs

SPEC = dataclasses.replace(
    herding_pairs.SPEC,
    name="kcenter_pairs",
    make="jdd.methods.kcenter_pairs:make",
    title="K-center of pairs",
)
