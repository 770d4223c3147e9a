"""Every form against its definition, in NumPy and inside jit, and the bytes told beforehand."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.special import softmax

from jdd.errors import BadInput
from jdd.soft_labels import codec

C, K, T = 11, 3, 4.0
# Float16 has 11 bits: a value is off by at most this part of itself.
HALF = 2.0**-11


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 6, (2, 5, C)).astype(np.float32)


def wanted(z: np.ndarray, form: str) -> np.ndarray:
    """The label of one view, entry by entry."""
    p = softmax(z.astype(float) / T)
    order = sorted(range(C), key=lambda c: -p[c])
    k = {"smoothing": 1, "hard": 1}.get(form, K)
    kept = order[:k]
    out = np.zeros(C)
    for c in range(C):
        if form == "hard":
            out[c] = c == order[0]
        elif form == "topk_renormalised":
            out[c] = p[c] / p[kept].sum() if c in kept else 0
        else:
            out[c] = p[c] if c in kept else (1 - p[kept].sum()) / (C - k)
    return out


@pytest.mark.parametrize("form", codec.FORMS[1:])
def test_a_form_is_what_it_says(logits, form):
    stored = codec.encode(logits, form, K, T)
    kind, found = codec.decode(stored, form, C)
    assert kind == "probabilities" and found.dtype == np.float32 and isinstance(found, np.ndarray)
    expected = np.asarray([[wanted(z, form) for z in row] for row in logits])
    np.testing.assert_allclose(found, expected, rtol=2 * HALF, atol=HALF)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    traced = jax.jit(lambda s: codec.decode(s, form, C)[1])(stored)
    np.testing.assert_allclose(traced, found, rtol=1e-6)


def test_logits_come_back_to_the_bit(logits):
    z = logits.astype(np.float16)
    z[0, 0, :3] = -0.0, 65504, -6e-8
    stored = codec.encode(z, "logits")
    assert stored["logits"].tobytes() == z.tobytes()
    kind, found = codec.decode(stored, "logits", C)
    assert kind == "logits"
    np.testing.assert_array_equal(found, z.astype(np.float32))
    traced = jax.jit(lambda s: codec.decode(s, "logits", C)[1])(stored)
    np.testing.assert_array_equal(traced, found)


def test_smoothing_is_marginal_with_one(logits):
    one, two = (codec.encode(logits, form, 1, T) for form in ("smoothing", "topk_marginal"))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_of_equal_logits_the_lower_class_comes_first():
    stored = codec.encode(np.asarray([0.0, 2.0, 1.0, 2.0, 1.0]), "topk_marginal", 3, 1.0)
    assert list(stored["indices"]) == [1, 3, 2]


def test_sums_beyond_one_leave_no_negative_rest():
    # Of these the two largest round up, to a sum of more than 1.
    draw = np.random.default_rng(1)
    z = np.log(np.stack([draw.uniform(0.3, 0.7, 400), np.full(400, 0.3), np.full(400, 1e-7)], -1))
    stored = codec.encode(z, "topk_marginal", 2, 1.0)
    assert (stored["values"].astype(np.float32).sum(-1) > 1).any()
    found = codec.decode(stored, "topk_marginal", 3)[1]
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("form", ["topk_marginal", "topk_renormalised"])
def test_all_classes_kept_is_the_softmax(logits, form):
    found = codec.decode(codec.encode(logits, form, C, T), form, C)[1]
    np.testing.assert_allclose(found, softmax(logits / T, axis=-1), rtol=2 * HALF, atol=1e-7)


def test_indices_are_as_wide_as_the_classes_need():
    assert codec.index_dtype(1 << 15) == np.int16 and codec.index_dtype((1 << 15) + 1) == np.int32
    z = np.zeros((1, 40000), np.float32)
    z[0, 39999] = 5
    found = codec.decode(codec.encode(z, "hard"), "hard", 40000)[1]
    assert found[0, 39999] == 1 and found.sum() == 1


@pytest.mark.parametrize("form", codec.FORMS)
def test_bytes_are_those_of_the_arrays(logits, form):
    stored = codec.encode(logits, form, K, T)
    told = codec.layout(form, C, K)
    assert {n: (a.shape[2:], a.dtype) for n, a in stored.items()} == told
    assert sum(a.nbytes for a in stored.values()) == 10 * codec.label_bytes(form, C, K)


def test_bytes_of_published_stores():
    # 6 GB: ImageNet-1K, IPC 10, 300 epochs of float16 logits, as SRe2L's authors say.
    assert codec.label_bytes("logits", 1000) * 10_000 * 300 == 6_000_000_000
    assert codec.bytes_per_view("topk_marginal", 1000, 5, 20) == 4 + 20 + 5 * (2 + 2)
    # 7 images in steps of 3: three steps, two rows of padding.
    assert codec.expected_bytes(7, 2, 10, "hard", 0, 9, 3, 16) == 2 * 3 * (3 * (4 + 9 + 2) + 16)
    assert codec.expected_bytes(7, 2, 10, "hard") == 2 * 7 * 6


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("soft", 10), "one of logits"),
        (("logits", 1), "2 or more"),
        (("topk_marginal", 10, 0), "1 to 10"),
        (("topk_renormalised", 10, 11), "1 to 10"),
        (("smoothing", 10, 0, 0.0), "above 0"),
        (("smoothing", 10, 0, float("nan")), "above 0"),
    ],
)
def test_forms_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        codec.validate(*arguments)
    with pytest.raises(BadInput, match="one of"):
        codec.decode({}, "soft", 10)


@pytest.mark.parametrize("value", [np.nan, np.inf, 65505.0, -1e6])
def test_logits_that_float16_cannot_hold_are_refused(value):
    z = np.zeros((2, 3), np.float32)
    z[1, 1] = value
    with pytest.raises(BadInput, match="65504"):
        codec.encode(z, "logits")
    if np.isfinite(value):  # of these the softmax is what it is
        codec.encode(z, "hard")
    else:
        with pytest.raises(BadInput, match="NaN or infinity"):
            codec.encode(z, "smoothing")
