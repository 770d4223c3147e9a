"""Selection rules against the formulas, written out in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from jdd.errors import BadInput
from jdd.matching import selection


def distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def mean(rows):
    return [sum(column) / Fraction(len(rows)) for column in zip(*rows, strict=True)]


def exact_herding(rows, count):
    chosen = []
    for _ in range(count):
        left = [i for i in range(len(rows)) if i not in chosen]
        gap = {i: distance(mean([rows[j] for j in (*chosen, i)]), mean(rows)) for i in left}
        chosen.append(min(left, key=lambda i: (gap[i], i)))
    return chosen


def exact_kcenter(rows, count):
    chosen = [min(range(len(rows)), key=lambda i: (distance(rows[i], mean(rows)), i))]
    while len(chosen) < count:
        left = [i for i in range(len(rows)) if i not in chosen]
        gap = {i: min(distance(rows[i], rows[j]) for j in chosen) for i in left}
        chosen.append(max(left, key=lambda i: (gap[i], -i)))
    return chosen


RULES = [(selection.herding, exact_herding), (selection.kcenter, exact_kcenter)]


@pytest.mark.parametrize("rule, exact", RULES)
@pytest.mark.parametrize("values", [2, 1000])  # of 2 values a row has many copies: ties
def test_rules_are_the_formulas(rule, exact, values):
    draw = np.random.default_rng(values)
    features = draw.integers(0, values, (16, 3))  # the mean of 16 whole numbers is exact
    found = rule(features.astype(np.float32), 16)
    assert found.tolist() == exact([[Fraction(int(x)) for x in row] for row in features], 16)
    assert sorted(found) == list(range(16))  # nothing twice
    np.testing.assert_array_equal(rule(features.astype(np.float32), 5), found[:5])


@pytest.mark.parametrize("rule, exact", RULES)
def test_rules_do_what_they_are_for(rule, exact):
    """Herding keeps the mean, k-center covers; each better than nearly all random rows."""
    features = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    draw = np.random.default_rng(1)

    def miss(rows):
        if rule is selection.herding:
            return np.linalg.norm(features[rows].mean(0) - features.mean(0))
        return np.linalg.norm(features[:, None] - features[rows], axis=2).min(1).max()

    others = [miss(draw.choice(200, 10, replace=False)) for _ in range(100)]
    assert miss(rule(features, 10)) < np.quantile(others, 0.05)


@pytest.mark.parametrize("rule, exact", RULES)
def test_of_rows_of_one_owner_one_is_chosen(rule, exact):
    features = np.random.default_rng(2).integers(0, 50, (16, 3)).astype(np.float32)
    owners = np.arange(16) // 2
    found = rule(features, 8, owners)
    assert sorted(owners[found]) == list(range(8))
    # The first is free of owners; a rule without them chooses alike until one comes twice.
    plain = rule(features, 16)
    first = next(k for k in range(1, 16) if owners[plain[k]] in owners[plain[:k]])
    np.testing.assert_array_equal(found[:first], plain[:first])


def test_classes_are_chosen_apart_and_lie_in_order():
    draw = np.random.default_rng(0)
    features, labels = draw.standard_normal((30, 4)), draw.permutation(np.arange(30) % 3)
    rows = selection.by_class(selection.herding, features, labels, 3, 4)
    np.testing.assert_array_equal(labels[rows], np.repeat([0, 1, 2], 4))
    for c in range(3):
        group = np.flatnonzero(labels == c)
        own = group[selection.herding(features[group], 4)]
        np.testing.assert_array_equal(rows[4 * c : 4 * c + 4], own)
    with pytest.raises(BadInput, match="config.ipc: 11; 1 to 10"):
        selection.by_class(selection.kcenter, features, labels, 3, 11)


def test_errors_of_nets_are_lengths_of_probability_minus_label():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)) + 3
    found = selection.error_norms(logits, np.array([0, 1]))
    np.testing.assert_allclose(
        found, [np.sqrt(0.09 + 0.04 + 0.01), np.sqrt(0.01 + 0.81 + 0.64)], rtol=1e-6
    )
    far = selection.error_norms(np.array([[1e4, 0.0]], np.float32), np.array([1]))
    np.testing.assert_allclose(far, np.sqrt(2))


def test_a_band_is_of_neighbouring_scores_from_the_easiest_to_the_hardest():
    scores = np.array([0.5, 0.1, 0.9, 0.3, 0.1, 0.7])
    assert selection.band(scores, 2, 0.0).tolist() == [1, 4]  # of equal ones the lowest row first
    assert selection.band(scores, 2, 1.0).tolist() == [5, 2]
    assert selection.band(scores, 2, 0.5).tolist() == [3, 0]
    assert selection.band(scores, 6, 0.3).tolist() == [1, 4, 3, 0, 5, 2]
    with pytest.raises(BadInput, match="1 to 6"):
        selection.band(scores, 7, 0.0)
