"""Captions derived from pixels, and text as vectors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from jdd.data import pairs, text
from jdd.data.sources import digits_captions
from jdd.errors import BadInput
from jdd.schema.pairs import PairData, Text


@pytest.fixture(scope="module")
def found():
    return pairs.load(PairData(name="digits_captions"), Text(size=128))


def test_the_triple_of_an_image_is_in_its_captions(found):
    split = found.train
    assert split.images.shape == (1442, 8, 8, 1) and len(split.captions) == 5 * 1442
    np.testing.assert_array_equal(split.image_of, np.repeat(np.arange(1442), 5))
    for row in (0, 500, 1441):
        own = split.captions[5 * row : 5 * row + 5]
        assert len(set(own)) == 5
        for words in (digits_captions.WORDS, digits_captions.STROKES):
            used = {word for word in words for caption in own if word in caption.split()}
            used |= {word for word in words for c in own if f"{word}," in c.split()}
            assert len(used) == 1, own
    assert split.captions[::5].count(split.captions[0]) == (split.meaning == split.meaning[0]).sum()


def test_terciles_are_of_ink_and_its_centre():
    images = np.zeros((3, 4, 4, 1))
    images[0, :, 0], images[1, :, 1:3], images[2, :, 3] = 1, 2, 9
    cuts = digits_captions.terciles(images)
    triples = digits_captions.triples(images, np.array([7, 8, 9]), cuts)
    np.testing.assert_array_equal(triples, [[0, 7, 0], [1, 8, 1], [2, 9, 2]])
    assert digits_captions.caption(triples[0]) == "a thin digit seven leaning left"


def test_vectors_are_unit_and_alike_where_words_are(found):
    np.testing.assert_allclose(np.linalg.norm(found.train.text, axis=1), 1, rtol=1e-5)
    encode = text.fit(found.train.captions, 512)
    a, b, c = encode(
        ["a thin digit three leaning left", "a thin digit three leaning right", "bold nine"]
    )
    assert a @ b > 0.5 > a @ c


def test_vectors_of_length_root_are_the_unit_ones_times_it():
    texts = ["red cat", "red dog runs", "fox"]
    unit, root = (text.fit(texts, 64, scale)(texts) for scale in ("unit", "root"))
    np.testing.assert_allclose(root, 8 * unit, rtol=1e-6)
    entry = json.loads(json.dumps(text.fit(texts, 64, "root").to_json()))
    np.testing.assert_array_equal(text.from_json(entry)(texts), root)
    assert "scale" not in text.fit(texts, 64).to_json()
    for asked, there in (("auto", True), ("root", True), ("unit", False)):
        assert (text.of_set(entry, Text(size=64, scale=asked)) is not None) is there
    with pytest.raises(BadInput, match=r"config.text.scale: root with text.encoder=bert.*; auto"):
        text.make(Text(encoder="bert", scale="root"), texts)


def test_rare_words_weigh_more():
    texts = ["red cat", "red dog", "red fox"]
    idf = text.fit(texts, 4096).idf
    cells = {w: np.flatnonzero(text._hashed([w], 4096).toarray()[0])[0] for w in ("red", "fox")}
    assert idf[cells["red"]] == pytest.approx(math.log(4 / 4) + 1)
    assert idf[cells["fox"]] == pytest.approx(math.log(4 / 2) + 1)


def test_text_without_words_is_the_zero_vector():
    assert not text.fit(["red cat"], 64)(["", "!"]).any()


def test_an_unknown_set_is_refused():
    with pytest.raises(BadInput, match="digits_captions"):
        pairs.load(PairData(name="digit_captions"), Text(size=64))
