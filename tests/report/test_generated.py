"""The report of generators: words on copies, figures, runs side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from jdd.report import comparison_quality, generated, html
from jdd.report.evidence import Evidence
from jdd.report.runs import Group, Run

NET = {"net": "ConvNetBN", "width": 32, "epochs": 20, "accuracy": 0.99, "features": 32,
       "digest": "abc"}  # fmt: skip
FOUND = {
    "frechet": 12.345, "precision": 0.9, "recall": 0.5, "density": 1.2, "coverage": 0.75,
    "agreement": 0.951, "n": 40, "k": 3, "real": 40, "classifier": NET,
    "test": {"frechet": 0.5, "agreement": 0.99, "n": 30},
    "memory": {"median": 0.2, "typical": 0.1, "nearer": 0.04, "expected": 0.05, "n": 40},
    "storage": {"parameters": 10, "bytes": 40, "images_of_equal_bytes": 2},
}  # fmt: skip


def evidence(found: dict, rows: tuple = ()) -> Evidence:
    result = {"quality": found, "method": "gan", "accuracy": {"MLP": {"mean": 0.5}}}
    return Evidence(Path("/nowhere"), None, list(rows), result, {}, ())


@pytest.mark.parametrize(
    "nearer, words", [(0.04, "There is no sign of copies"), (0.4, "copies, or images that are")]
)
def test_copies_in_words(nearer: float, words: str) -> None:
    text = generated.memory_words(FOUND["memory"] | {"nearer": nearer})
    assert words in text and f"is 2.00{html.THIN}×" in text
    assert f"{html.percent(nearer)} of them are nearer" in text


def test_figures_name_n_and_the_classifier() -> None:
    section = generated.section(evidence(FOUND))
    assert section is not None
    assert "40 generated images" in section.note and "ConvNetBN of width 32 (99.0 %" in section.note
    assert "not the FID" in section.note
    values = {name: (made, tested) for name, _, made, tested in section.figures}
    assert values["Frechet distance"] == ("12.3", "0.500")
    assert values["Class agreement"] == (html.percent(0.951), html.percent(0.99))
    assert values["Recall"] == ("0.500", html.DASH)
    assert generated.section(evidence({})._replace(result={})) is None


def test_curves_are_of_priors_with_two_points() -> None:
    lines = [
        {"stage": f"quality-{name}", "step": step, "frechet": 9.0 / step, "n": 12}
        for name, steps in (("vae", (2, 4)), ("gan", (2,)), ("classifier", (1, 2)))
        for step in steps
    ]
    section = generated.section(evidence({}, tuple(lines))._replace(result={}))
    assert section is not None
    (chart,) = section.charts
    assert chart.title == "Frechet distance, 12 images a point" and not chart.keys


def test_runs_are_compared_and_other_classifiers_are_said_to_be() -> None:
    other = FOUND | {"classifier": NET | {"digest": "def"}}

    def section(*each: dict) -> comparison_quality.Qualities | None:
        runs = tuple(Run(f"r{at}", evidence(one)) for at, one in enumerate(each))
        return comparison_quality.section(Group("digits", "MLP", runs, (), ()))

    same = section(FOUND, FOUND)
    assert same is not None and same.note.startswith("Of 40 generated images")
    assert [row.method for row in same.rows][-1] == "Real test images" and len(same.rows) == 3
    assert same.rows[0].figures[0] == "12.3"
    differs = section(FOUND, other)
    assert (
        differs is not None and differs.note.startswith("Not comparable") and "def" in differs.note
    )
    assert len(differs.rows) == 2 and section({}) is None


def test_figures_have_three_digits() -> None:
    values = {0.0123: "0.0123", 1.5: "1.50", 123.4: "123", 9999: "9999", 1e-9: "1e-09", 0: "0"}
    assert {value: html.figure(value) for value in values} == values
