"""Prototypes: running means of k-means, buffers, remainders, cluster sizes and weights."""

from __future__ import annotations

import numpy as np
import pytest

from jdd.generative import prototypes


def blobs(n: int, seed: int = 0, k: int = 3) -> np.ndarray:
    """Return latents [n, 2, 2, 2] around k distant points, each point from the start on."""
    draw = np.random.default_rng(seed)
    centres = 20 * draw.standard_normal((k, 2, 2, 2))
    return (centres[np.arange(n) % k] + draw.standard_normal((n, 2, 2, 2))).astype(np.float32)


def running_means(latents: np.ndarray, first: np.ndarray, size: int) -> np.ndarray:
    """Return centres after buffers of ``size``, one latent at a time, from the ``first``."""
    centres, counts = first.reshape(len(first), -1).astype(np.float64), np.zeros(len(first))
    rows = latents.reshape(len(latents), -1).astype(np.float64)
    for lo in range(0, len(rows), size):
        buffer = rows[lo : lo + size]
        distances = ((buffer[:, None] - centres[None]) ** 2).sum(-1)
        for row, own in zip(buffer, distances.argmin(1), strict=True):
            counts[own] += 1
            centres[own] += (row - centres[own]) / counts[own]
    return centres.reshape(first.shape)


@pytest.mark.parametrize("count", [60, 65])
def test_centres_are_the_running_means_of_what_was_assigned_to_them(count):
    latents = blobs(count)
    found = prototypes.fit(np.array_split(latents, 7), 3, 2, seed=1, label=0)
    assert found.fitted == count and found.centres.dtype == np.float32
    # Distant blobs: k-means++ takes a latent of each, whichever it is.
    wanted = running_means(latents, latents[:3], 6)
    order = ((found.centres[:, None] - wanted[None]) ** 2).sum((2, 3, 4)).argmin(1)
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(found.centres, wanted[order], rtol=1e-5, atol=1e-5)
    means = np.stack([latents[i::3].mean(0) for i in range(3)])
    np.testing.assert_allclose(found.centres, means[order], rtol=1e-4, atol=1e-4)


def test_one_latent_a_buffer_makes_the_first_ones_the_centres():
    latents = blobs(3, k=3)
    found = prototypes.fit([latents], 3, 1, seed=0, label=0).centres
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(latents, axis=0))


def test_a_remainder_is_fitted_unless_it_is_dropped():
    latents = blobs(50)
    whole = prototypes.fit([latents], 3, 8, seed=0, label=0)
    dropped = prototypes.fit([latents], 3, 8, seed=0, label=0, remainder=False)
    again = prototypes.fit([latents[:48]], 3, 8, seed=0, label=0)
    assert (whole.fitted, dropped.fitted) == (50, 48)
    np.testing.assert_array_equal(dropped.centres, again.centres)
    assert not np.array_equal(whole.centres, dropped.centres)
    # A class smaller than a buffer has only a remainder.
    small = prototypes.fit([latents[:5]], 3, 8, seed=0, label=0)
    assert small.fitted == 5 and small.centres.shape == (3, 2, 2, 2)
    with pytest.raises(ValueError, match="no buffer of 24 latents"):
        prototypes.fit([latents[:5]], 3, 8, seed=0, label=0, remainder=False)


def test_the_fit_follows_from_seed_and_class_alone():
    latents = np.random.default_rng(3).standard_normal((64, 4)).astype(np.float32)
    first, again, other, label = (
        prototypes.fit(np.array_split(latents, parts), 4, 4, seed, label).centres
        for parts, seed, label in ((1, 0, 0), (5, 0, 0), (1, 1, 0), (1, 0, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first, label)


def test_sizes_count_the_nearest_latents_and_weights_average_to_one_in_each_class():
    latents, centres = blobs(90), blobs(3)
    counts = prototypes.sizes(np.array_split(latents[:80], 3), centres)
    assert counts.tolist() == [27, 27, 26]
    both = np.array([[27, 27, 26], [2, 8, 0]])
    found = prototypes.weights(both, 2)
    np.testing.assert_allclose(found[:6], np.repeat(3 * both[0] / 80, 2), rtol=1e-6)
    np.testing.assert_allclose(found[6:], [0.6, 0.6, 2.4, 2.4, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.reshape(2, 6).mean(1), 1, rtol=1e-6)
