"""Recall against a sorted list, and of towers that cannot tell anything apart."""

from __future__ import annotations

import numpy as np

from jdd.data.pairs import PairSplit
from jdd.tasks import retrieval

DRAW = np.random.default_rng(5)


def unit(n, size=6):
    x = DRAW.normal(size=(n, size))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_recall_is_that_of_sorted_lists():
    image, text = unit(20), unit(40)
    images, texts = DRAW.integers(0, 8, 20), DRAW.integers(0, 8, 40)
    found = retrieval.recalls(image, text, images, texts)
    wanted = []
    for queries, candidates, meant, meanings in (
        (image, text, images, texts), (text, image, texts, images),
    ):  # fmt: skip
        for k in (1, 5, 10):
            hits = [
                any(meanings[j] == meant[i] for j in np.argsort(-(candidates @ q))[:k])
                for i, q in enumerate(queries)
            ]
            wanted.append(np.mean(hits))
    np.testing.assert_allclose(found, [np.mean(wanted), *wanted])


def test_equal_embeddings_find_nothing():
    image = np.ones((12, 4)) / 2
    assert retrieval.recalls(image, image, np.arange(12), np.arange(12))[1] == 0.0


def test_right_embeddings_find_everything():
    image = unit(12)
    assert retrieval.recalls(image, image, np.arange(12), np.arange(12)) == [1.0] * 7


def test_a_query_without_a_right_candidate_misses():
    image, text = unit(3), unit(3)
    ranked = retrieval.ranks(image, text, np.array([0, 1, 9]), np.array([0, 1, 2]))
    assert ranked[2] == 3


def test_a_net_that_diverged_finds_nothing():
    text = unit(12)
    assert retrieval.recalls(np.full_like(text, np.nan), text, np.arange(12), np.arange(12))[0] == 0


def test_chance_is_the_mean_over_random_rankings():
    meaning, image_of = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 1, 2, 3, 4, 5, 5, 5])
    test = PairSplit(np.zeros((6, 1, 1, 1)), ("",) * 8, np.zeros((8, 1)), image_of, meaning)
    draw = np.random.default_rng(0)
    found = [
        retrieval.recalls(
            draw.normal(size=(6, 20)), draw.normal(size=(8, 20)), meaning, meaning[image_of]
        )
        for _ in range(3000)
    ]
    wanted = retrieval.chance(test)
    assert list(wanted) == list(retrieval.RETRIEVAL.metrics)
    np.testing.assert_allclose(np.mean(found, 0), list(wanted.values()), atol=0.015)
    assert wanted["ir10"] == 1  # fewer candidates than ranks
    # Two of the six images suit a caption of meaning 0 or 3, one suits the other two captions.
    np.testing.assert_allclose(wanted["ir1"], (6 * 2 / 6 + 2 * 1 / 6) / 8)


def test_with_fewer_candidates_than_k_all_of_them_count():
    image, text = unit(3), unit(4)
    found = retrieval.recalls(image, text, np.array([0, 1, 9]), np.array([0, 1, 1, 2]))
    # Image 9 has no caption: it misses even at 10 of 4. Caption 2 has no image.
    assert found[3] == 2 / 3 and found[6] == 3 / 4
    one = retrieval.recalls(unit(1), unit(1), np.array([0]), np.array([0]))
    assert one == [1.0] * 7
