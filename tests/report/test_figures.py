"""Figures for papers: the report's numbers, legible grids, the same bytes every time."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jdd import api, interop, main
from jdd.errors import BadInput
from jdd.interop.figures import drawings
from jdd.product import preview
from jdd.report import figures, image_grid
from jdd.report.evidence import gather
from jdd.report.training import accuracy_lines
from tests.test_compare import fabricate
from tests.test_report import _score
from tests.tiny_distilled import make

BOTH = {"accuracy_curve", "comparison", "images"}


def files(names: set[str]) -> list[str]:
    return sorted(f"{name}.{suffix}" for name in names for suffix in ("pdf", "png"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a finished working directory, with a curve of three points."""
    return fabricate(tmp_path / "run", {"ConvNet": _score(0.912)})


def test_a_run_has_all_figures_and_the_same_bytes_again(run: Path, tmp_path: Path, capsys) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    argv = ["--mode=export", f"--set={run}/distilled.npz", "--format=figures"]
    assert main.main([*argv, f"--to={tmp_path}/a"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"written: {tmp_path}/a ({', '.join(files(BOTH))})"
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True}):  # the reader's own
        api.export_figures(run / "distilled.npz", tmp_path / "b")
        assert matplotlib.rcParams["font.size"] == 20
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == files(BOTH)
    for path in (tmp_path / "a").iterdir():
        data = path.read_bytes()
        assert data == (tmp_path / "b" / path.name).read_bytes()
        assert b"CreationDate" not in data and b"Software" not in data
        if path.suffix == ".pdf":  # text in embedded TrueType fonts
            assert b"/FontFile2" in data and b"/Type3" not in data
    for name in ("accuracy_curve", "comparison"):
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", (tmp_path / f"a/{name}.pdf").read_bytes())
        assert box and float(box[1]) == pytest.approx(72 * image_grid.WIDTH)


def test_figures_show_the_numbers_of_the_report(run: Path) -> None:
    pytest.importorskip("matplotlib")
    evidence = gather(run)
    (axes,) = figures.comparison(evidence).axes
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [91.2, 70.4, 98.9, 90.0]
    labels = [label.get_text().replace("\u00a0", " ") for label in axes.get_yticklabels()]
    assert labels == [
        "This set (n = 5)", "Random real images\n(n = 5)", "Whole training set\n(n = 1)",
        "Published",
    ]  # fmt: skip
    assert [text.get_text() for text in axes.texts] == [
        "91.2 ± 1.4", "70.4 ± 1.4", "98.9", "90.0 ± 2.0",
    ]  # fmt: skip
    (axes,) = figures.curve(evidence).axes
    (line,) = accuracy_lines(evidence)
    drawn = axes.containers[0]
    np.testing.assert_allclose(drawn.lines[0].get_xdata(), line.x)
    np.testing.assert_allclose(drawn.lines[0].get_ydata(), 100 * line.y)
    ends = np.asarray(drawn.lines[2][0].get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, 100 * np.stack([line.low, line.high], 1))
    assert drawn.get_label() == "ConvNet (n = 2)"
    assert axes.get_xlabel() == "Distillation step" and axes.get_ylabel() == "Test accuracy (%)"


def test_a_set_alone_has_its_images(tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    path = make().save(tmp_path / "mine.npz")
    argv = ["--mode=export", f"--set={path}", "--format=figures", f"--to={tmp_path}/a"]
    assert main.main(argv) == 0
    assert sorted(at.name for at in (tmp_path / "a").iterdir()) == files({"images"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.endswith(
        f"(images.pdf, images.png); not written: accuracy curve and comparison bars ({path} is not "
        "the distilled.npz of a run)\n"
    )
    with pytest.warns(UserWarning, match="bars .the set has no path.$"):
        assert api.export(make(), tmp_path / "b", "figures") == tmp_path / "b"


def test_what_cannot_be_drawn_is_named_with_its_reason(run: Path) -> None:
    dataset, path = make(), run / "distilled.npz"
    found, reasons = drawings(dataset, path)
    assert set(found) == BOTH and reasons == []
    (run / "metrics.jsonl").unlink()
    found, reasons = drawings(dataset, path)
    assert set(found) == {"comparison", "images"}
    assert reasons == [
        "not written: accuracy curve (metrics.jsonl holds no accuracies of two or more steps)"
    ]
    (run / "result.json").write_text(json.dumps({"dataset": "digits"}))
    found, reasons = drawings(dataset, path)
    assert set(found) == {"images"} and len(reasons) == 2
    assert reasons[1].startswith("not written: comparison bars (no accuracy in result.json")


def test_an_attack_has_no_bars(tmp_path: Path) -> None:
    aim = {"kind": "attack", "attack_name": "one", "target_name": "zero"}
    accuracy = {"ConvNet": _score(0.6) | {"success": _score(0.9)}}
    place = fabricate(tmp_path / "run", accuracy, objective=aim)
    evidence = gather(place)
    assert figures.measured(evidence) == [] and figures.curve_points(evidence)
    _, reasons = drawings(evidence.dataset, place / "distilled.npz")
    assert reasons == [
        "not written: comparison bars (the set attacks trained nets; report.html has its table)"
    ]


def test_dense_curves_have_a_band(run: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"stage": "curve", "step": step, "accuracy": 0.5, "std": 0.1, "n": 2 + step % 2}
        for step in range(30)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (axes,) = figures.curve(gather(run)).axes
    assert len(axes.collections) == 1 and axes.containers[0].lines[2] == ()
    assert axes.containers[0].get_label() == "ConvNet (n = 2 to 3)"


def test_without_matplotlib_one_line_names_the_extra(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    argv = ["--mode=export", f"--set={run}/distilled.npz", "--format=figures"]
    assert main.main([*argv, f"--to={tmp_path}/figures"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "--format=figures" in err and "pip install 'jdd[figures]'" in err
    assert not (tmp_path / "figures").exists()


def test_a_folder_with_files_stays_as_it_is(run: Path) -> None:
    pytest.importorskip("matplotlib")
    before = sorted(run.iterdir())
    with pytest.raises(BadInput, match="exists already; give a new or an empty folder"):
        interop.export(make(), run, "figures")
    assert sorted(run.iterdir()) == before


LONG = tuple(f"a long name {i}" for i in range(60))


@pytest.mark.parametrize(
    ("known", "tiles", "captions", "cut"),
    [
        ({"ipc": 1}, 3, 3, ""),
        ({"ipc": 2, "shape": (6, 4, 1)}, 6, 3, ""),
        ({"ipc": 1, "names": LONG[:10]}, 10, 10, ""),
        ({"ipc": 1, "names": LONG}, 60, 60, "without class names, which do not fit"),
        ({"ipc": 1, "names": tuple(map(str, range(201)))}, 200, 200, "200 of 201 classes"),
        ({"ipc": 3, "names": LONG[:10]}, 30, 10, ""),
        ({"ipc": 3, "names": LONG[:12]}, 36, 12, ""),
        (
            {"ipc": 11, "names": LONG[:21]},
            200, 20, "20 of 21 classes, 10 of 11 images of each class",
        ),
    ],
)  # fmt: skip
def test_the_grid_fits_a_column(known: dict[str, Any], tiles: int, captions: int, cut: str) -> None:
    dataset = make(**known)
    sheet = image_grid.layout(dataset)
    assert (len(sheet.tiles), len(sheet.captions), sheet.cut) == (tiles, captions, cut)
    assert sheet.width <= image_grid.WIDTH and sheet.height < 9.5
    w, h = sheet.size
    assert h / w == pytest.approx(dataset.images.shape[1] / dataset.images.shape[2])
    boxes = np.asarray([(tile.x, tile.y) for tile in sheet.tiles])
    assert (boxes >= 0).all() and (
        boxes + sheet.size <= (sheet.width + 1e-9, sheet.height + 1e-9)
    ).all()
    apart = np.abs(boxes[:, None] - boxes[None]) / sheet.size
    apart[np.arange(tiles), np.arange(tiles)] = 1.0
    assert (apart.max(-1) >= 1.0).all()  # no two tiles overlap
    groups = preview.by_class(dataset)
    assert {tile.image for tile in sheet.tiles} == {
        int(i) for group in groups[: 20 if len(groups[0]) > 1 else 200] for i in group[:10]
    }


def test_every_class_name_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = api.export_figures(make(names=("$a_b$", "\\frac{", "%")), tmp_path / "figures")
    assert sorted(written.files) == files({"images"})
