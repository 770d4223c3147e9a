"""CDA's curriculum against the values of its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.augment.crop_schedule import crop_schedule
from jdd.errors import BadInput

STEPS = (0, 25, 50, 75, 100)


@pytest.mark.parametrize(
    ("kind", "milestone", "wanted"),
    [
        ("cosine", 1.0, (1.000, 0.865, 0.540, 0.215, 0.080)),
        ("linear", 1.0, (1.000, 0.770, 0.540, 0.310, 0.080)),
        ("step", 1.0, (1.0, 1.0, 1.0, 1.0, 0.08)),
        ("step", 0.5, (1.0, 1.0, 0.08, 0.08, 0.08)),
        ("linear", 0.5, (1.0, 0.54, 0.08, 0.08, 0.08)),
        ("cosine", 0.0, (0.08,) * 5),
        ("none", 1.0, (0.08,) * 5),
    ],
)
def test_the_least_scale_falls_to_its_end(kind, milestone, wanted):
    found = [float(crop_schedule(step, 100, kind, milestone)) for step in STEPS]
    np.testing.assert_allclose(found, wanted, atol=5e-4)
    traced = jax.jit(lambda step: crop_schedule(step, 100, kind, milestone))(jnp.asarray(STEPS))
    np.testing.assert_allclose(traced, found, rtol=1e-5)


def test_the_end_may_be_chosen():
    np.testing.assert_allclose(crop_schedule(50, 100, "linear", 1.0, low=0.5), 0.75, rtol=1e-6)
    assert float(crop_schedule(100, 100, "linear", 1.0, low=0.5)) == 0.5


def test_an_unknown_curriculum_is_refused():
    with pytest.raises(BadInput, match="one of none, step, linear, cosine"):
        crop_schedule(0, 100, "sine")
