"""Every text of a set, a result, a config and metrics is text on the pages, whatever it holds."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from jdd.product.pairs import PairSet
from jdd.report import comparison_json
from tests.test_compare import fabricate
from tests.test_report import RESULT, Page, _rows, _score, _write
from tests.tiny_distilled import make

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;</style>"


def poisoned(value: Any, name: str = "") -> Any:
    """Return a JSON value with every free text in it replaced."""
    if isinstance(value, dict):
        return {key: poisoned(child, key) for key, child in value.items()}
    if isinstance(value, list):
        return [poisoned(child, name) for child in value]
    return EVIL if isinstance(value, str) else value


def harmless(page: Page, text: str) -> None:
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form"}
    assert not any(key.startswith("on") for _, a in page.tags for key in a)
    assert all(a["src"].startswith("data:image/png") for n, a in page.tags if n == "img")
    assert "<script" not in text.lower()


@pytest.mark.parametrize("where", ["dataset", "command", "method", "notes", "device", "versions"])
def test_texts_of_a_result(tmp_path, where):
    result = copy.deepcopy(RESULT)
    result[where] = poisoned(result[where])
    page = _write(tmp_path, result, _rows(), make(names=("a", "b", "c")))
    harmless(page, (tmp_path / "report.html").read_text())


def test_names_of_classes_data_and_nets(tmp_path):
    evil = make(names=(EVIL, EVIL + "2", "&"), dataset=EVIL)
    recipe = evil.recipe | {"command": EVIL, "method": EVIL, "title": EVIL, "fingerprint": EVIL}
    result = RESULT | {"accuracy": {EVIL: _score(0.5)}, "dataset": EVIL, "method": EVIL}
    rows = [row | {"net": EVIL} for row in _rows()]
    page = _write(tmp_path, result, rows, evil._replace(recipe=recipe), {"method": EVIL})
    harmless(page, (tmp_path / "report.html").read_text())
    assert "<script>alert(1)</script>" in page.words  # as text


def test_captions(tmp_path):
    from tests.tiny_pairs import chosen

    found = chosen()
    assert isinstance(found, PairSet)
    captions = [f"{EVIL} {i}" for i in range(found.size)]
    found.with_recipe(found.recipe | {"captions": captions, "dataset": EVIL}).save(
        tmp_path / "distilled.npz"
    )
    page = _write(tmp_path)
    text = (tmp_path / "report.html").read_text()
    harmless(page, text)
    assert "alert(1)" in page.words


def test_comparisons(tmp_path):
    for name in "ab":
        place = fabricate(
            tmp_path / name, {"ConvNet": _score(0.8)}, {"dataset": EVIL}, command=EVIL, notes=[EVIL]
        )
        result = json.loads((place / "result.json").read_text()) | {"dataset": EVIL}
        (place / "result.json").write_text(json.dumps(result))
    comparison_json.write(f"{tmp_path}/[ab]", tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text()
    harmless(Page(text), text)
