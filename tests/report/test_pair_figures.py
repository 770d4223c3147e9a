"""Figures, comparison and studies of pairs: recall in place of accuracy, the same numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jdd import api, interop, main
from jdd.report import figures, pair_figures
from jdd.report.evidence import gather
from tests.test_report import Page
from tests.tiny_pairs import CHANCE, finished, learned

ALL = ("recall_curve", "comparison", "recalls", "pairs", "similarity")


def test_a_run_of_pairs_has_all_figures_and_the_same_bytes_again(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = finished(tmp_path / "run", learned())
    argv = ["--mode=export", f"--set={run}/distilled.npz", "--format=figures"]
    assert main.main([*argv, f"--to={tmp_path}/a"]) == 0
    names = [f"{name}.{suffix}" for name in ALL for suffix in ("pdf", "png")]
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"written: {tmp_path}/a ({', '.join(names)})"
    )
    api.export_figures(run / "distilled.npz", tmp_path / "b")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_pairs_apart_have_their_pictures_and_reasons(tmp_path):
    pytest.importorskip("matplotlib")
    written = interop.write_figures(learned(rank=-1), tmp_path / "a")
    assert written.files == ("pairs.pdf", "pairs.png")
    assert "not written: recall curve and comparison bars (the set has no path)" in written.omitted
    assert "similarity (no image is matched with another's text)" in written.omitted
    assert interop.export(learned(), tmp_path / "b", "figures") == tmp_path / "b"


def test_figures_show_the_numbers_of_the_report(tmp_path):
    pytest.importorskip("matplotlib")
    pairs = learned()
    evidence = gather(finished(tmp_path, pairs))
    (axes,) = pair_figures.recalls(evidence).axes
    heights = np.reshape([bar.get_height() for bar in axes.patches], (3, 6))
    factors = np.array([0.5, 1, 1.5, 0.4, 1, 1.6])
    np.testing.assert_allclose(heights, 100 * np.outer([0.4, 0.2, 0.6], factors))
    lines = [line.get_segments()[0][0, 1] for line in axes.collections if "Line" in str(line)]
    assert set(np.round(lines, 6)) >= {100 * CHANCE[name] for name in list(CHANCE)[1:]}
    (axes,) = figures.comparison(evidence).axes
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [40, 20, 60]
    assert axes.get_xlabel() == "Mean recall (%)"
    drawn = figures.curve(evidence)
    assert drawn.axes[0].get_ylabel() == "Mean recall (%)"
    words = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert words == ["MLP (n = 2)", "Random real pairs (n = 3)", "All pairs (n = 3)"]
    axes = pair_figures.matrix(pairs).axes[0]
    shown = axes.get_images()[0]
    np.testing.assert_allclose(shown.get_array(), pairs.similarity.matrix())
    off = pairs.similarity.matrix()[~np.eye(12, dtype=bool)]
    assert shown.get_clim()[1] == pytest.approx(np.abs(off).max())
    assert len(pair_figures.grid(pairs).texts) == 12


def test_long_captions_wrap_below_their_tiles_and_tiles_are_counted():
    pairs = learned()
    rows = np.arange(50) % pairs.size
    captions = ["a man in a red jacket " * (1 + n % 9) for n in range(50)]
    many = pairs._replace(
        images=pairs.images[rows], text=pairs.text[rows], similarity=None,
        recipe=pairs.recipe | {"captions": captions},
    )  # fmt: skip
    sheet = pair_figures.layout(many)
    assert sheet.cut == "40 of 50 pairs" and len(sheet.places) == 40
    assert sheet.places[0].lines == ("a man in a red", "jacket")
    assert len(sheet.places[8].lines) == pair_figures.LINES
    assert sheet.places[8].lines[-1].endswith("…")
    below = {place.y: max(len(p.lines) for p in sheet.places if p.y == place.y)
             for place in sheet.places}  # fmt: skip
    (first, lines), (second, _), *_ = below.items()
    assert second - first > sheet.size[1] + lines * 0.09  # the captions have room


def test_runs_of_pairs_are_compared_by_recall(tmp_path):
    wide = learned(caption_cosine=[0.5] * 12)
    finished(tmp_path / "good", wide)
    finished(tmp_path / "bad", wide.with_recipe(wide.recipe | {"method": "other"}), mean=0.05)
    runs = [tmp_path / "good", tmp_path / "bad"]
    found = api.compare(runs, tmp_path / "c.html")
    page = Page((tmp_path / "c.html").read_text(encoding="utf-8"))
    for words in (
        "digits_captions, 12 pairs, mean recall",
        "Mean recall in percent of nets",
        "as many random real pairs, same recipe",
        "Random pairs",
        "The images of the first 10 pairs of each set",
        "bad: Collapsed: recall is at chance",
    ):
        assert words in page.words, words
    assert "ccurac" not in page.words and "random real images" not in page.words
    assert page.count("img") == 20
    assert "mean recall in %" in found["summary"] and "bad: Collapsed" in found["summary"]
    (group,) = json.loads((tmp_path / "c.json").read_text())["groups"]
    assert group["pairs"] == 12 and [run["run"] for run in group["runs"]] == ["good", "bad"]
    first = group["runs"][0]
    assert first["recall"]["MLP"]["mean"] == 0.4 and first["chance"]["tr1"] == CHANCE["tr1"]
    assert first["recall"]["MLP"]["ir10"]["mean"] == pytest.approx(0.64)
    assert first["candidates"]["captions"] == 1775 and "accuracy" not in first
