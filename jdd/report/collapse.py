"""Collapse of distilled pairs, by name: towers find nothing although the matching loss fell.

Pairs can also fail without such a fall. Of LoRS on digits_captions at lr_sim=1 and lr_lr=0.01 one
seed of four was at chance (6.2 against 8.7 %): the learned rates sank to their floor, the loss
stayed at 2 and rose in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jdd.report.evidence import Evidence, real
from jdd.report.html import THIN, number, percent
from jdd.report.training import scalars

# Towers that ignore their inputs give every query one ranking: their recall is chance on average
# over rankings, and 0 where ties count against them. Twenty random real pairs of digits_captions
# reach 2.2 to 2.4 times chance; 1.5 is halfway on a log scale, and leaves room for the sampling
# error of one ranking. (With one caption an image they reach 3.8 times chance.)
LIMIT = 1.5
FALLEN = 0.9  # of the first losses: noise of single steps moves the mean of a tenth by less
# Rates whose decrease prevents collapse, the most effective first (measured on digits_captions).
KEYS = ("lr_sim", "lr_img")


def sentence(
    losses: Sequence[float], recall: float, chance: float, rates: Mapping[str, float]
) -> str:
    """Return one sentence on pairs whose recall is at chance, recall <= 1.5 chance; '' for others.

    Collapsed: the mean loss of the last tenth of the logged steps is at most 0.9 times that of the
    first tenth. Otherwise they failed, and a loss that rose in that proportion is advised on too.

    Args:
      losses: of distilling, in the order of the steps.
      recall: mean recall of towers trained on the pairs, a fraction.
      chance: that of a random ranking.
      rates: values of the method's keys in ``KEYS``; others are not named.
    """
    finite = [loss for loss in losses if np.isfinite(loss)]
    if len(finite) < 2 or recall > LIMIT * chance:
        return ""
    tenth = max(1, len(finite) // 10)
    first, last = float(np.mean(finite[:tenth])), float(np.mean(finite[-tenth:]))
    fell, rose = last <= FALLEN * first, first <= FALLEN * last
    moved = f"from {number(first)} to {number(last)}"
    course = "rose" if rose else "hardly moved,"
    course = "although the matching loss fell" if fell else f"and the matching loss {course}"
    found = (
        f"{'collapsed' if fell else 'failed'}: recall is at chance ({percent(recall)} against "
        f"{percent(chance)}) {course} {moved}"
    ).replace(THIN, " ")
    if not fell and not rose:
        return found
    keys = [f"{key}{{}} (now {number(rates[key])})" for key in KEYS if rates.get(key, 0) > 0]
    advice = ", then ".join(key.format("" if at else " first") for at, key in enumerate(keys))
    return f"{found}; lower {advice}" if advice else found


def sentences(evidence: Evidence) -> list[str]:
    """Return a full sentence on each synthesis seed whose pairs have collapsed or failed."""
    chance = real(evidence.chance.get("recall"))
    if chance is None or not evidence.scores:
        return []
    score = evidence.scores[evidence.net]
    rates = {key: rate for key in KEYS if (rate := real(evidence.config.get(key))) is not None}
    recalls = {name: one.mean for name, one in score.seeds} if len(score.seeds) > 1 else {}
    found = []
    for seed, points in scalars(evidence, "loss").items():
        recall = recalls.get(seed or evidence.known("seed") or "0", score.mean)
        losses = [value for _, value in sorted(points)]
        if words := sentence(losses, recall, chance, rates):
            named = f"Seed {seed or evidence.known('seed')} {words}" if recalls else words
            found.append(f"{named[:1].upper()}{named[1:]}.")
    return found
