"""CutMix: the box, the partner and the share of the labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jdd.augment import cutmix


def test_a_box_of_a_partner_and_labels_by_its_area():
    # Image i is filled with i, and its label is i: both say who the partner is.
    images = jnp.broadcast_to(jnp.arange(5.0)[:, None, None, None], (5, 8, 8, 1))
    shares = []
    for seed in range(20):
        shown, targets = cutmix.mixed(jax.random.key(seed), images, jnp.eye(5), 1.0)
        own = np.asarray(shown[..., 0] == images[..., 0])
        moved = [i for i in range(5) if not own[i].all()]
        for i in moved:
            (partner,) = set(np.unique(shown[i])) - {float(i)}
            share = 1 - own[i].mean()
            rows, cols = np.nonzero(~own[i])
            area = (rows.max() - rows.min() + 1) * (cols.max() - cols.min() + 1)
            assert area == len(rows)  # one box
            np.testing.assert_allclose(targets[i, int(partner)], share, atol=1e-6)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        shares += [1 - own[i].mean() for i in moved[:1]]
    assert len(shares) > 10 and len(set(shares)) > 5


def test_the_chance_of_a_step():
    images, mixed = jax.random.normal(jax.random.key(0), (6, 8, 8, 1)), 0
    for seed in range(60):
        shown, targets = cutmix.mixed(jax.random.key(seed), images, jnp.eye(6), 0.5)
        mixed += bool(jnp.any(shown != images))
        assert bool(jnp.any(shown != images)) or bool(jnp.all(targets == jnp.eye(6)))
    assert 12 <= mixed <= 40  # of 60 with chance 1/2, some with an empty box
    never = cutmix.mixed(jax.random.key(0), images, jnp.eye(6), 0.0)
    np.testing.assert_array_equal(never[0], images)
