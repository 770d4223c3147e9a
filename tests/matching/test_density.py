"""G-VBSM's density against a NumPy formula, and where eigenvalues meet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.matching.density import density


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def by_hand(rows, tau):
    """``rows``: [classes, n, d]."""
    total = 0.0
    for own in rows:
        values = np.linalg.svd(own, compute_uv=False) ** 2 / own.shape[1]
        values = np.concatenate([values, np.zeros(len(own) - len(values))])
        p, q = softmax(values / tau), softmax(values)
        total += np.sum(p * np.log(p / q))
    return total


def test_it_is_the_divergence_of_the_spectra():
    images = 2 * draw(3, 4, 5, 6, 2)
    with jax.enable_x64(True):
        wanted = by_hand(images.reshape(3, 4, -1), 4.0)
        np.testing.assert_allclose(density(jnp.asarray(images)), wanted, rtol=1e-10)
        wanted = by_hand(images.reshape(3, 4, -1), 2.0)
        np.testing.assert_allclose(density(jnp.asarray(images), 2.0), wanted, rtol=1e-10)


def test_large_images_are_pooled():
    images = draw(2, 3, 6, 3, 1)
    rows = images.reshape(2, 3, 3, 2, 3, 1).mean(3)  # 6 to 3 rows; 3 columns stay
    uneven = draw(2, 3, 5, 3, 1)
    # Thirds of 5 pixels touch 0-1, 1-3 and 3-4.
    parts = [uneven[:, :, lo:hi].mean(2) for lo, hi in ((0, 2), (1, 4), (3, 5))]
    with jax.enable_x64(True):
        wanted = by_hand(rows.reshape(2, 3, -1), 4.0)
        np.testing.assert_allclose(density(jnp.asarray(images), size=3), wanted, rtol=1e-10)
        wanted = by_hand(np.stack(parts, 2).reshape(2, 3, -1), 4.0)
        np.testing.assert_allclose(density(jnp.asarray(uneven), size=3), wanted, rtol=1e-10)
        turned = jnp.asarray(images).swapaxes(2, 3)  # columns are pooled as rows are
        np.testing.assert_allclose(density(turned, size=3), density(jnp.asarray(images), size=3))


@pytest.mark.parametrize("alike", [False, True])
def test_its_derivative_agrees_with_differences(alike):
    images = 2 * draw(2, 4, 3, 3, 1)
    if alike:  # one image three times: the eigenvalue 0 twice
        images[0, 1:3] = images[0, 0]
    direction = np.random.default_rng(1).standard_normal(images.shape)
    with jax.enable_x64(True):
        # The target is held fixed, so that differences are of the divergence from it alone.
        def held(x, target):
            values = jnp.linalg.eigvalsh(jnp.einsum("cid,cjd->cij", x, x) / x.shape[-1])
            return jnp.sum(target * (jnp.log(target) - jax.nn.log_softmax(values)))

        x, v = jnp.asarray(images), jnp.asarray(direction)
        flat = x.reshape(2, 4, -1)
        values = jnp.linalg.eigvalsh(jnp.einsum("cid,cjd->cij", flat, flat) / 9)
        target = jax.nn.softmax(values / 4.0)
        value, slope = jax.jit(jax.value_and_grad(density))(x)
        np.testing.assert_allclose(value, held(flat, target), rtol=1e-12)
        h = 1e-5
        ends = [held((x + s * h * v).reshape(2, 4, -1), target) for s in (1, -1)]
        assert np.all(np.isfinite(slope))
        np.testing.assert_allclose(jnp.vdot(slope, v), (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


def test_images_without_a_difference_have_a_finite_derivative():
    same = np.repeat(draw(2, 1, 3, 3, 1), 3, axis=1)
    for images in (same, np.zeros_like(same)):
        value, slope = jax.value_and_grad(density)(jnp.asarray(images, jnp.float32))
        assert np.isfinite(value) and np.all(np.isfinite(slope))


def test_one_image_has_nothing_to_spread():
    value, slope = jax.value_and_grad(density)(jnp.asarray(draw(3, 1, 4, 4, 1), jnp.float32))
    assert float(value) == 0.0
    np.testing.assert_array_equal(slope, 0)


def test_falling_it_flattens_the_spectrum():
    images = jnp.asarray(2 * draw(1, 4, 3, 3, 1), jnp.float32)

    def largest(x):
        values = np.linalg.svd(np.asarray(x).reshape(4, -1), compute_uv=False) ** 2
        return values[0] / values.sum()

    step = jax.jit(lambda x: x - 0.5 * jax.grad(density)(x))
    moved = images
    for _ in range(20):
        moved = step(moved)
    assert density(moved) < density(images)
    assert largest(moved) < largest(images)
