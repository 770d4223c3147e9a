import numpy as np
import pytest

from jdd.data import Transform, fit_frepo_zca, fit_kip_zca, fit_zca, normalisation, whitening
from jdd.data.transform import channel_stats

RNG = np.random.default_rng(0)


def correlated(n=300, h=5, w=4, c=3):
    """Images with strong correlations between neighbours, as real ones have."""
    noise = RNG.normal(size=(n, h * w * c)) @ RNG.normal(size=(h * w * c, h * w * c)) * 0.05
    return np.clip(0.5 + noise, 0, 1).astype(np.float32).reshape(n, h, w, c)


def zca_by_svd(pixels, eps=0.1):
    """The formula written out independently: singular values of the unbiased covariance."""
    rows = pixels.reshape(len(pixels), -1).astype(np.float64)
    u, s, _ = np.linalg.svd(np.cov(rows, rowvar=False, ddof=1))
    return (
        rows.mean(0),
        u @ np.diag(1 / np.sqrt(s + eps)) @ u.T,
        u @ np.diag(np.sqrt(s + eps)) @ u.T,
    )


def test_zca_agrees_with_an_independent_formula():
    pixels = correlated()
    mean, matrix, inverse = fit_zca(pixels)
    wanted = zca_by_svd(pixels)
    for got, want in zip((mean, matrix, inverse), wanted, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=2e-6)
    out = whitening(mean, matrix, inverse, 3).forward(pixels)
    rows = pixels.reshape(len(pixels), -1).astype(np.float64)
    np.testing.assert_allclose(
        out.reshape(len(pixels), -1), (rows - wanted[0]) @ wanted[1], atol=1e-5
    )


def test_zca_of_bytes_equals_zca_of_fractions():
    stored = RNG.integers(0, 256, (50, 4, 4, 1), np.uint8)
    for a, b in zip(fit_zca(stored, 255.0), fit_zca(stored / np.float64(255)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_fewer_images_than_pixels_still_whiten():
    few = correlated(n=7)
    mean, matrix, inverse = fit_zca(few)
    assert np.isfinite(matrix).all()
    np.testing.assert_allclose(matrix, zca_by_svd(few)[1], atol=2e-6)


@pytest.mark.parametrize("keep_inverse", [True, False])
def test_zca_inverts(keep_inverse):
    pixels = correlated()
    mean, matrix, inverse = fit_zca(pixels)
    transform = whitening(mean, matrix, inverse if keep_inverse else None, 3)
    assert transform.whitens
    np.testing.assert_allclose(transform.inverse(transform.forward(pixels)), pixels, atol=1e-4)
    # mean and std are the identity: normalising as well would change nothing
    assert transform.mean.tolist() == [0, 0, 0] and transform.std.tolist() == [1, 1, 1]


def kip_by_svd(pixels):
    """KIP's formula image by image: singular values of the matrix of unit images."""
    q = []
    for image in pixels.astype(np.float64):
        centred = image.ravel() - image.mean()
        q.append(centred / np.sqrt((centred**2).sum()))
    q = np.stack(q)
    _, s, vt = np.linalg.svd(q, full_matrices=True)
    variances = np.zeros(q.shape[1])
    variances[: len(s)] = s**2 / len(q)
    added = variances + 0.1 * variances.mean()
    return q, vt.T @ np.diag(added**-0.5) @ vt


@pytest.mark.parametrize("n", [300, 7])
def test_kip_whitening_agrees_with_an_independent_formula(n, monkeypatch):
    monkeypatch.setattr("jdd.data.transform._ROWS", 64)
    pixels = correlated(n)
    mean, matrix, inverse, image = fit_kip_zca(pixels)
    q, wanted = kip_by_svd(pixels)
    assert matrix.dtype == np.float32 and not mean.any()
    np.testing.assert_allclose(matrix, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(matrix @ inverse, np.eye(len(matrix)), atol=1e-3)
    transform = whitening(mean, matrix, inverse, 3, image)
    assert transform.kind == "kip"
    out = transform.forward(pixels)
    np.testing.assert_allclose(out.reshape(n, -1), q @ wanted, atol=1e-4)
    np.testing.assert_allclose(transform.forward(pixels * 0.5 + 0.1), out, atol=1e-4)
    # Back: the image itself, at the training images' mean brightness and length.
    lengths = np.sqrt(((pixels - pixels.mean((1, 2, 3), keepdims=True)) ** 2).sum((1, 2, 3)))
    wanted = q * lengths.mean() + pixels.mean()
    back = transform.inverse(out)
    np.testing.assert_allclose(back.reshape(n, -1), wanted, atol=1e-4)
    np.testing.assert_allclose(transform.forward(back), out, atol=1e-4)


def frepo_by_svd(pixels, mean, std):
    """FRePo's formula: the regulariser on the diagonal, singular values of the sum."""
    q = ((pixels.astype(np.float64) - mean) / std).reshape(len(pixels), -1)
    centred, d = q - q.mean(0), q.shape[1]
    covariance = np.cov(q, rowvar=False, ddof=0)
    u, s, _ = np.linalg.svd(covariance + 0.1 * np.trace(covariance) / d * np.eye(d))
    s[len(pixels) :] = 1.0  # falling: what no image reaches comes last
    return q.mean(0), centred, u @ np.diag(s**-0.5) @ u.T


@pytest.mark.parametrize("n", [300, 40])
def test_frepo_whitening_agrees_with_an_independent_formula(n, monkeypatch):
    monkeypatch.setattr("jdd.data.transform._ROWS", 64)
    pixels = correlated(n)
    first = normalisation(np.array([0.5, 0.4, 0.45]), np.array([0.2, 0.3, 0.1]))
    mean, matrix, inverse = fit_frepo_zca(pixels, 1.0, first)
    center, centred, wanted = frepo_by_svd(pixels, first.mean, first.std)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(mean, center, atol=1e-5)
    if n > mean.size:  # otherwise any basis will do for what no image reaches
        np.testing.assert_allclose(matrix, wanted, rtol=1e-3, atol=1e-4)
    for kept in (inverse, None):
        transform = whitening(mean, matrix, kept, 3, first=first)
        assert transform.kind == "frepo" and transform.whitens
        out = transform.forward(pixels)
        np.testing.assert_allclose(out.reshape(n, -1), centred @ wanted, atol=1e-3)
        np.testing.assert_allclose(transform.inverse(out), pixels, atol=1e-4)
    stored = np.round(pixels * 255).astype(np.uint8)
    of_bytes = fit_frepo_zca(stored, 255.0, first)[0]
    np.testing.assert_allclose(of_bytes, fit_frepo_zca(stored / 255, 1.0, first)[0], atol=1e-5)


def test_kip_whitening_of_bytes_and_of_an_image_of_one_value():
    stored = RNG.integers(0, 256, (50, 4, 4, 1), np.uint8)
    stored[3] = 77
    found = fit_kip_zca(stored, 255.0)
    for a, b in zip(found, fit_kip_zca(stored / np.float64(255)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    mean, matrix, inverse, image = found
    out = whitening(mean, matrix, None, 1, image).forward(stored, 255.0)
    assert np.isfinite(out).all() and not out[3].any()


def test_normalisation_inverts_and_reads_bytes_in_chunks(monkeypatch):
    monkeypatch.setattr("jdd.data.transform._ROWS", 16)
    stored = RNG.integers(0, 256, (50, 4, 5, 3), np.uint8)
    transform = normalisation(np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.1]))
    out = transform.forward(stored, 255.0)
    want = (stored / 255.0 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.1]
    assert out.dtype == np.float32 and out.flags["C_CONTIGUOUS"] and not transform.whitens
    np.testing.assert_allclose(out, want, atol=1e-5)
    np.testing.assert_allclose(transform.inverse(out), stored / 255.0, atol=1e-4)


def test_forward_leaves_its_input_alone():
    pixels = correlated(10)
    before = pixels.copy()
    normalisation(np.array([0.5] * 3), np.array([0.2] * 3)).forward(pixels)
    assert np.array_equal(pixels, before)


def test_channel_stats():
    stored = RNG.integers(0, 256, (90, 4, 5, 3), np.uint8)
    mean, std = channel_stats(stored, 255.0)
    np.testing.assert_allclose(mean, (stored / 255.0).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, (stored / 255.0).std((0, 1, 2)), rtol=1e-6)


def test_a_constant_channel_is_centred_not_divided_by_zero():
    stored = np.full((4, 3, 3, 1), 128, np.uint8)
    out = normalisation(*channel_stats(stored, 255.0)).forward(stored, 255.0)
    assert np.isfinite(out).all() and abs(out).max() < 1e-6


def test_images_of_another_size_do_not_fit_a_whitening():
    transform = whitening(*fit_zca(correlated()), 3)
    with pytest.raises(ValueError, match="do not fit"):
        transform.forward(np.zeros((1, 6, 4, 3), np.float32))


def test_fields_have_defaults():
    assert Transform(np.zeros(1), np.ones(1)).zca_inverse is None
