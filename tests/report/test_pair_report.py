"""The report of pairs: pictures with captions, similarities, recall in place of accuracy."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest

from jdd import report
from jdd.product.pairs import Similarity
from jdd.report import pairs as section
from jdd.report.evidence import gather
from tests.test_report import Page
from tests.tiny_pairs import chosen, finished, learned


def page_of(place, *args, **keys):
    text = report.write(finished(place, *args, **keys)).read_text(encoding="utf-8")
    return text, Page(text)


def test_a_page_of_pairs_has_pictures_captions_cosines_curves_and_recall(tmp_path):
    cosines = np.linspace(0.5, 0.94, 12).round(2).tolist()
    text, page = page_of(tmp_path, learned(caption_cosine=cosines))
    for words in (
        "All 12 pairs , images of 8",
        "Their cosines are 0.50 to 0.94.",
        "cosine 0.94",
        "mean recall, 3 fresh MLPs",
        "points over random real pairs, MLP",
        "of the mean recall of all pairs",
        "each of 355 test images is a query among 1 775 test captions",
        "Chance, a random ranking",
        "image→text R@1",
        "text→image R@1",
        "Mean recall of towers trained on the pairs",
        "random pairs 20.0",
        "Learned learning rates",
        "to reach its recall",
        "Flax: train two towers on it",
        "PyTorch: train two towers on it",
        "image 0.1, text 0.2 (learned)",
    ):
        wanted, got = (re.sub(r"\s+", "", part) for part in (words, page.words))
        assert wanted in got, words
    assert all(caption in page.words for caption in chosen().captions)
    assert page.count("img") == 13 and page.count("svg") == 3  # twelve pairs and S
    assert "ccuracy" not in page.words.partition("Every setting")[0]
    rates = text.partition("Learned learning rates")[2].partition("</figure>")[0]
    assert rates.count("<polyline") == 2 and "</i>image<" in rates and "</i>text<" in rates
    recall = text.partition('class="recalls')[2].partition("</table>")[0]
    assert recall.count("<tr>") == 5 and recall.count("20.0") >= 1 and "data-head" in recall


def test_pairs_that_were_chosen_have_their_own_captions(tmp_path):
    _, page = page_of(tmp_path, chosen())
    assert "Each has its own caption." in page.words and "cosine" not in page.words
    assert "S is the identity: each image is matched with its own text alone." in page.words
    assert page.count("img") == 12


def test_at_most_fifty_pairs_are_shown_and_counted(tmp_path):
    pairs = learned(rank=-1)
    rows = np.arange(60) % pairs.size
    captions = [f"{pairs.captions[i]} <{n}>" for n, i in enumerate(rows)]
    many = pairs._replace(
        images=pairs.images[rows], text=pairs.text[rows],
        recipe=pairs.recipe | {"captions": captions},
    )  # fmt: skip
    _, page = page_of(tmp_path, many)
    assert page.count("img") == 50
    assert "The first 50 pairs of 60 (all are in distilled.npz)" in page.words
    assert captions[49] in page.words and captions[50] not in page.words


@pytest.mark.parametrize(
    "w, rank, words",
    [
        (1.0, 0, "S is the identity"),
        (0.5, 0, "S is diagonal: 0.5. No image"),
        (1.0, 2, "diagonal 1, off-diagonal 0. "),
    ],
)
def test_similarities_without_off_diagonal_values_are_a_sentence(w, rank, words):
    n = 4
    zero = np.zeros((n, rank), np.float32)
    matrix = section.similarity(Similarity(np.full(n, w, np.float32), zero, zero, 1.0))
    assert matrix.tile is None
    assert matrix.note.startswith(words if rank == 0 else "S is the identity")


def test_the_picture_of_similarities_has_their_values():
    from PIL import Image

    found = Similarity(
        np.array([1.0, 0.1], np.float32), np.array([[1.0], [2.0]], np.float32),
        np.array([[0.0], [-0.2]], np.float32), 1.0,
    )  # fmt: skip
    # S = [[1, -0.2], [0, 0.1 - 0.4]]: off-diagonal -0.2 and 0, so the scale ends at 0.2.
    matrix = section.similarity(found)
    assert matrix.tile is not None and (matrix.low, matrix.high) == ("−0.2", "0.2")
    assert "diagonal −0.3 to 1, off-diagonal −0.2 to 0." in matrix.note
    assert "the diagonal lies beyond" in matrix.note
    data = base64.b64decode(matrix.tile.src.partition(",")[2])
    drawn = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert tuple(drawn[0, 0]) == section.HIGH and tuple(drawn[0, 1]) == section.LOW
    assert np.abs(drawn[1, 0].astype(int) - section.ZERO).max() <= 1  # 0 lies between two colours
    assert tuple(drawn[1, 1]) == section.LOW


def test_a_collapse_is_on_the_page(tmp_path):
    _, page = page_of(tmp_path, learned(), mean=0.09)
    words = "Collapsed: recall is at chance (9.0 % against 8.0 %) although the matching loss fell"
    assert words in page.words and "lower lr_img first (now 100)." in page.words
    _, page = page_of(tmp_path / "b", learned(), mean=0.4)
    assert "ollapsed" not in page.words


def test_a_result_without_candidates_is_an_older_one(tmp_path):
    _, page = page_of(tmp_path, learned(), candidates=None, chance=None)
    assert "Chance" not in page.words and "is a query among" not in page.words
    assert "Recall both ways" in page.words and not gather(tmp_path).chance
