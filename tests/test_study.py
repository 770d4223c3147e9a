"""Studies: what is refused, which cells there are, what resumes, what is shared, the tables."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jdd
from jdd import config, main
from jdd.config.helptext import MODES
from jdd.errors import BadInput, Diverged, Interrupted, StorageError
from jdd.product.distilled_set import DistilledSet
from jdd.studies import (
    study,
    study_cells,
    study_estimate,
    study_file,
    study_metric,
    study_plot,
    study_tables,
)

ROOT = Path(__file__).resolve().parents[1]
GRID: dict[str, Any] = {
    "base": "random:digits,eval.n=2",
    "grid": {"method": ["random", "herding"], "ipc": [1, 2]},
    "seeds": [0, 1],
}


def cells(changes: dict[str, Any], **overrides: Any) -> list[study_cells.Cell]:
    """Return the cells of the small grid with other fields; None takes a field out."""
    fields = {name: value for name, value in (GRID | changes).items() if value is not None}
    return study_cells.make(study_file.validate(fields, "STUDY.py", overrides))


class Runs:
    """Stands in for the pipeline: writes a result for each cell, and fails where it is asked to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.fails: dict[tuple[str, int, int], BaseException] = {}

    def run(
        self, loaded: config.Loaded, workdir: str, mode: str, set_path: None, command: str, _: Any
    ) -> dict[str, Any]:
        values = loaded.config
        key = (values.method, values.ipc, values.seed)
        self.calls.append(key)
        if key in self.fails:
            raise self.fails[key]
        mean = 0.5 + 0.1 * values.ipc + 0.04 * values.seed
        figures = {"mean": mean, "std": 0.01, "n": values.eval.n}
        found = {"accuracy": {"ConvNet": figures}, "seconds": {"distill": 3.0, "full": 9.0}}
        Path(workdir).mkdir(parents=True, exist_ok=True)
        (Path(workdir) / "result.json").write_text(json.dumps(found))
        return found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()
    monkeypatch.setattr(study.pipeline, "run", found.run)
    monkeypatch.setattr(study.comparison_json, "write", lambda *words: None)
    return found


def saved(place: Path) -> dict[str, Any]:
    return dict(json.loads((place / "study.json").read_text()))


# The form of a study, and its cells.


def test_cells_are_settings_by_seeds() -> None:
    found = cells({"cells": [{"method": "dm", "ipc": 1, "steps": 5}]})
    assert [cell.name for cell in found] == [
        "method=random,ipc=1,seed=0", "method=random,ipc=1,seed=1",
        "method=random,ipc=2,seed=0", "method=random,ipc=2,seed=1",
        "method=herding,ipc=1,seed=0", "method=herding,ipc=1,seed=1",
        "method=herding,ipc=2,seed=0", "method=herding,ipc=2,seed=1",
        "method=dm,ipc=1,steps=5,seed=0", "method=dm,ipc=1,steps=5,seed=1",
    ]  # fmt: skip
    assert len({cell.id for cell in found}) == 10
    last = found[-1]
    assert (last.config.method, last.config.steps, last.config.eval.n) == ("dm", 5, 2)
    # The words of a cell's command make its config.
    rest, overrides = main.split_overrides(last.flags.split())
    again, _ = config.resolve(config.load(main._parse(rest).config, overrides).config)
    assert config.flat(again) == config.flat(last.config)


def test_keep_drops_combinations() -> None:
    found = cells({"keep": lambda v: v["method"] == "random" or v["ipc"] == 2, "seeds": [3]})
    assert [cell.name for cell in found] == [
        "method=random,ipc=1,seed=3", "method=random,ipc=2,seed=3", "method=herding,ipc=2,seed=3"
    ]  # fmt: skip


def test_an_id_stands_for_what_may_not_change_on_resuming() -> None:
    one = {"grid": {"ipc": [1]}, "seeds": None}
    (base,) = cells(one)
    (more,) = cells(one, **{"eval.n": 5, "progress": "false"})
    assert more.id == base.id and more.config_hash != base.config_hash
    (other,) = cells(one, **{"eval.epochs": 7})
    (seeded,) = cells(one, seed=3)
    assert len({base.id, other.id, seeded.id}) == 3 and seeded.seed == 3
    # What the study itself varies is another cell.
    assert len({cell.id for cell in cells({"grid": {"eval.n": [1, 2]}, "seeds": None})}) == 2


def test_a_grid_of_config_files() -> None:
    specs = ["random:digits", "herding:digits,ipc=2"]
    found = cells({"base": {"eval.n": 1}, "grid": {"config": specs}, "seeds": None})
    assert [(c.config.method, c.config.ipc, c.config.eval.n) for c in found] == [
        ("random", 1, 1), ("herding", 2, 1)
    ]  # fmt: skip


def test_a_key_that_a_method_lacks_is_a_dash_in_the_table() -> None:
    study = {"base": {"eval.n": 1}, "cells": [
        {"config": "dm:digits,ipc=1"}, {"config": "ncfm:digits,ipc=1", "factor": 1},
    ], "rows": ["config", "factor"]}  # fmt: skip
    found = cells({**study, "grid": None, "seeds": None})
    assert [cell.values["factor"] for cell in found] == ["-", 1]


def test_cells_share_the_stores_that_agree() -> None:
    base = {"data.name": "digits", "eval.n": 1}
    grid = {"method": ["mtt"], "ipc": [1, 2], "experts.lr": [0.1, 0.2]}
    found = cells({"base": base, "grid": grid, "seeds": [0], "cells": [
        {"method": "mtt", "ipc": 1, "experts.lr": 0.1, "experts.epochs": 30, "syn_steps": 4},
    ], "rows": ["ipc", "syn_steps"], "columns": ["experts.lr"]})  # fmt: skip
    stores = [cell.stores["experts"] for cell in found]
    assert stores[0] == stores[2] == stores[4] != stores[1] == stores[3]
    nets = ["ConvNetBN", "ConvNetBN,ResNet18BN"]
    grid = {"method": ["sre2l"], "squeeze.nets": nets, "squeeze.lr": [0.1, 0.2]}
    found = cells({"base": base, "grid": grid, "seeds": [0]})
    assert [list(cell.stores) for cell in found] == [["squeeze"]] * 4
    stores = [cell.stores["squeeze"] for cell in found]
    assert stores[0] == stores[2] != stores[1] == stores[3]
    own = cells({"base": base | {"experts.dir": "x"}, "grid": {"method": ["mtt"]}})
    assert own[0].stores == {}


BAD: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"sedes": [1]}, ("unknown field 'sedes'", "did you mean seeds?")),
    ({"base": None}, ("base: missing",)),
    ({"base": 3}, ("base: 3",)),
    ({"base": "mt:digits"}, ("cell method=random,ipc=1,seed=0", "did you mean configs/mtt.py")),
    ({"base": {"ipc": 1, "runs": 2}}, ("base: runs", "seeds")),
    ({"grid": None}, ("neither grid nor cells",)),
    ({"grid": {}}, ("grid: empty",)),
    ({"grid": {"ipc": []}}, ("grid: ipc: []", "a list with one value or more")),
    ({"grid": {"ipc": "1,2"}}, ("grid: ipc: '1,2'", "a list")),
    ({"grid": {"ipcc": [1]}}, ("ipcc=1", "unknown key", "did you mean config.ipc?")),
    ({"grid": {"seed": [1]}}, ("grid: seed", "under 'seeds'")),
    ({"grid": {"ipc": [1, 2, 1]}}, ("ipc=1,seed=0 and ipc=1,seed=0 are the same config",)),
    ({"grid": {"steps": [100, "1e2"]}, "base": "dm:digits"}, ("are the same config",)),
    ({"grid": {"ipc": [1, -1]}}, ("cell ipc=-1,seed=0: config.ipc: -1", "1 or more")),
    ({"grid": {"data.name": ["cifar"]}}, ("data.name=cifar", "did you mean cifar10")),
    ({"grid": {"data.path": ["nowhere.npz"]}}, ("data.path=nowhere.npz: no such file",)),
    ({"grid": {"method": ["random", "dm"], "batch_real": [8]}}, ("method=random", "'cells'")),
    ({"cells": []}, ("cells: []",)),
    ({"cells": [{}]}, ("cells: {}",)),
    ({"cells": [{"method": "dm", "ipc": 1}, {"method": "dm", "ipc": 1, "steps": 5}]},
     ("have one place in the table, method=dm,ipc=1", "add steps to rows or columns")),
    ({"keep": "all"}, ("keep: 'all'", "a function")),
    ({"keep": lambda values: False}, ("keep: drops every combination",)),
    ({"keep": lambda values: values["lr"]}, ("keep(", "KeyError: 'lr'")),
    ({"seeds": []}, ("seeds: []",)),
    ({"seeds": 3}, ("seeds: 3", "[0, 1, 2]")),
    ({"seeds": [0, 0]}, ("each seed once",)),
    ({"rows": ["methd"]}, ("rows: 'methd' is no key of a cell", "did you mean method?")),
    ({"columns": ["steps"]}, ("columns: 'steps' is no key of a cell",)),
    ({"rows": ["ipc"], "columns": ["ipc"]}, ("columns: 'ipc' is in rows too",)),
    ({"rows": ["method"], "columns": []}, ("one place in the table", "add ipc to rows")),
    ({"metric": "acuracy"}, ("metric: 'acuracy'", "did you mean accuracy?")),
    ({"metric": "accuracy.AlexNet"}, ("AlexNet among nets",)),
    ({"metric": "baselines.hard"}, ("baselines.hard on",)),
    ({"metric": "scores.lrs"}, ("scores=True",)),
    ({"plot": "steps"}, ("plot: 'steps'", "a key of rows or columns (method, ipc)")),
    ({"plot": "method"}, ("plot: 'method' has the value 'random'", "numbers")),
]  # fmt: skip


@pytest.mark.parametrize("changes, says", BAD, ids=[says[0] for _, says in BAD])
def test_refused_before_the_first_write(
    changes: dict[str, Any], says: tuple[str, ...], tmp_path: Path, fake: Runs
) -> None:
    fields = {name: value for name, value in (GRID | changes).items() if value is not None}
    with pytest.raises(BadInput) as error:
        jdd.study(fields, tmp_path / "study")
    assert all(word in str(error.value) for word in says), str(error.value)
    assert not fake.calls and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, says",
    [
        ([], ("--config: missing",)),
        (["--config=no.py"], ("--config=no.py: no such file",)),
        (["--config=configs/mtt.py"], ("no get_study", "leave out --mode=study")),
        (["--config={study}", "--config.ipc=3"], ("config.ipc", "grid or cells set it")),
        (["--config={study}", "--config.seed=3"], ("config.seed", "seeds set it")),
        (["--config={study}", "--config.eval.nn=3"], ("config.eval.nn", "did you mean")),
        (["--config={study}", "--workdir={run}"], ("working directory of a run", "OTHER")),
        (["--config={broken}"], ("get_study raised ZeroDivisionError", "(line 1)")),
        (["--config={none}"], ("get_study returned NoneType",)),
    ],
)
def test_mistakes_on_the_command_line(
    words: list[str],
    says: tuple[str, ...],
    tmp_path: Path,
    fake: Runs,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "s.py").write_text(f"def get_study(): return {GRID!r}\n")
    (tmp_path / "b.py").write_text("def get_study(): return 1 / 0\n")
    (tmp_path / "n.py").write_text("def get_study(): pass\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    names = {"study": "s.py", "broken": "b.py", "none": "n.py", "run": "run"}
    places = {name: str(tmp_path / file) for name, file in names.items()}
    before = sorted(tmp_path.rglob("*"))
    assert main.main(["--mode=study", *(word.format(**places) for word in words)]) == 2
    found = capsys.readouterr().err
    assert found.count("\n") == 1 and all(word in found for word in says), found
    assert sorted(tmp_path.rglob("*")) == before and not fake.calls


def test_a_study_given_as_a_config_says_so(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("def get_study(): return {}\n")
    with pytest.raises(BadInput, match="it is a study: --mode=study"):
        config.load(str(tmp_path / "s.py"))
    assert study_file.is_study(str(tmp_path / "s.py"))
    assert not study_file.is_study("mtt:digits") and not study_file.is_study(None)
    assert "study" in MODES


# Running: skipped, failed, interrupted.


def test_failed_cells_are_named_and_the_others_go_on(
    tmp_path: Path, fake: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.py"
    file.write_text(f"def get_study(): return {GRID!r}\n")
    words = ["--mode=study", f"--config={file}", f"--workdir={tmp_path}/study"]
    fake.fails = {
        ("herding", 1, 0): Diverged("step 3: loss is nan"),
        ("herding", 1, 1): KeyError("x"),
        ("random", 2, 1): BadInput("config.ipc", "2", "1"),
    }
    assert main.main(words) == 1
    out, err = capsys.readouterr()
    assert len(fake.calls) == 8
    assert "method=herding,ipc=1,seed=0 failed: step 3: loss is nan" in err
    assert "failed: unforeseen: KeyError: 'x'" in err and "Traceback" not in err
    assert "5 of 8 cells complete" in out
    rows = {row["name"]: row for row in saved(tmp_path / "study")["cells"]}
    assert rows["method=herding,ipc=1,seed=1"]["error"].startswith("unforeseen: KeyError")
    assert rows["method=herding,ipc=1,seed=1"]["state"] == "failed"
    assert rows["method=random,ipc=1,seed=0"]["state"] == "complete"
    table = [line.split() for line in out.splitlines() if line.startswith(("Random", "Herd"))]
    assert table == [
        ["Random", "62.0", "±", "2.0", "(2)", "70.0", "(1)"],
        ["Herding", "failed", "72.0", "±", "2.0", "(2)"],
    ]
    # The same command runs what failed, and nothing else.
    fake.calls, fake.fails = [], {}
    assert main.main(words) == 0
    assert fake.calls == [("random", 2, 1), ("herding", 1, 0), ("herding", 1, 1)]
    assert saved(tmp_path / "study")["count"] == {
        "complete": 8, "failed": 0, "running": 0, "waiting": 0
    }  # fmt: skip
    fake.calls = []
    assert main.main(words) == 0 and fake.calls == []
    # More nets are asked for: every run goes on, in its own place.
    assert main.main([*words, "--config.eval.n=4"]) == 0 and len(fake.calls) == 8
    assert len(list((tmp_path / "study/cells").iterdir())) == 8


def test_an_interrupted_study_goes_on(
    tmp_path: Path, fake: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.fails = {("random", 2, 0): Interrupted("interrupted; saved")}
    with pytest.raises(Interrupted):
        jdd.study(GRID, tmp_path)
    states = [row["state"] for row in saved(tmp_path)["cells"]]
    assert states == ["complete"] * 2 + ["waiting"] * 6
    assert len(fake.calls) == 3
    fake.calls, fake.fails = [], {}
    assert jdd.study(GRID, tmp_path)["count"]["complete"] == 8
    assert len(fake.calls) == 6


def test_sigterm_between_runs_is_an_interruption(
    tmp_path: Path, fake: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(study.pipeline, "run", run)
    with pytest.raises(Interrupted):
        jdd.study(GRID, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    assert {row["state"] for row in saved(tmp_path)["cells"]} == {"waiting"}


def test_a_grown_grid_runs_what_is_new(tmp_path: Path, fake: Runs) -> None:
    jdd.study(GRID, tmp_path)
    fake.calls = []
    jdd.study(GRID | {"grid": {"method": ["random", "herding"], "ipc": [1, 2, 3]}}, tmp_path)
    assert fake.calls == [(m, 3, s) for m in ("random", "herding") for s in (0, 1)]
    assert len(saved(tmp_path)["cells"]) == 12


def test_a_strange_study_json_is_refused(tmp_path: Path, fake: Runs) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(BadInput, match="not a study.json that jdd wrote"):
        jdd.study(GRID, tmp_path)
    with pytest.raises(BadInput, match="workdir: missing"):
        jdd.study(GRID)


# Tables.


def table(changes: dict[str, Any], place: Path) -> study_tables.Table:
    """Return the table of the small grid, run by the fixture ``fake``."""
    fields = {name: value for name, value in (GRID | changes).items() if value is not None}
    found = jdd.study(fields, place)
    return study_tables.build(study_file.validate(fields, "STUDY.py", {}), found["cells"])


def test_every_format_has_the_figures(tmp_path: Path, fake: Runs) -> None:
    found = table({}, tmp_path)
    words = "test accuracy in percent: mean ± population standard deviation over the seeds"
    assert study_tables.text(found).splitlines() == [
        f"{words}, n = 2 seeds",
        "method        ipc=1       ipc=2",
        "Random   62.0 ± 2.0  72.0 ± 2.0",
        "Herding  62.0 ± 2.0  72.0 ± 2.0",
    ]
    assert (tmp_path / "table.md").read_text().splitlines()[2:5] == [
        "| method | ipc=1 | ipc=2 |",
        "| --- | --: | --: |",
        "| Random | 62.0 ± 2.0 | 72.0 ± 2.0 |",
    ]
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [(row["method"], row["ipc"], row["n"], row["over"]) for row in rows[:2]] == [
        ("random", "1", "2", "seeds"), ("random", "2", "2", "seeds")
    ]  # fmt: skip
    assert float(rows[1]["mean"]) == pytest.approx(0.72)
    assert float(rows[1]["std"]) == pytest.approx(0.02)
    entries = saved(tmp_path)["table"]["entries"]
    assert entries[1]["row"] == {"method": "random"} and entries[1]["column"] == {"ipc": 2}
    assert entries[1]["mean"] == pytest.approx(0.72) and entries[1]["n"] == 2
    tex = (tmp_path / "table.tex").read_text()
    assert r"Random & $62.0 \pm 2.0$ & $72.0 \pm 2.0$ \\" in tex
    assert r"mean $\pm$ population" in tex and tex.count("\\begin") == tex.count("\\end") == 2


def test_a_plot_has_a_line_for_each_combination_of_the_other_keys(
    tmp_path: Path, fake: Runs
) -> None:
    fields = GRID | {"plot": "ipc"}
    found = study_file.validate(fields, "STUDY.py", {})
    chart = study_plot.build(found, table({"plot": "ipc"}, tmp_path))
    assert chart is not None and [name for _, name in chart.keys] == ["Random", "Herding"]
    for words in ("Random 62.0 % at ipc 1", "Random 72.0 % at ipc 2", "Herding 62.0 % at ipc 1"):
        assert words in chart.drawing.replace("\u202f", " "), chart.drawing
    assert study_plot.build(found._replace(plot=""), table({}, tmp_path / "other")) is None


@pytest.mark.parametrize(
    "key, listed, says",
    [
        ("net.depth", {"net.depth": 2},
         ("cell method=random,ipc=2,seed=0 has net.depth=auto", "add 'net.depth': NUMBER")),
        ("batch_real", {"method": "dm", "batch_real": 8},
         ("cell method=random,ipc=2,seed=0 has no key batch_real", "leave out the cell")),
    ],
)  # fmt: skip
def test_a_plot_needs_a_number_in_every_cell(
    key: str, listed: dict[str, Any], says: tuple[str, str], toy: Path, tmp_path: Path, fake: Runs
) -> None:
    base = {"data.name": "toy", "data.path": str(toy), "eval.n": 1}
    other = {"method": "random", "ipc": 2}
    fields = {
        "base": base, "cells": [{"method": "random", "ipc": 1} | listed, other],
        "rows": ["ipc"], "columns": [key], "plot": key,
    }  # fmt: skip
    with pytest.raises(BadInput) as error:
        jdd.study(fields, tmp_path / "study")
    assert all(word in str(error.value) for word in ("plot: ", *says))
    assert not fake.calls and not list(tmp_path.iterdir())
    if key == "net.depth":  # the remedy
        found = jdd.study(fields | {"base": base | {key: 3}}, tmp_path / "study")
        assert len(fake.calls) == 2 and found


def test_several_figures_are_columns_of_each_setting(tmp_path: Path, fake: Runs) -> None:
    fields = {"metric": ["accuracy", "seconds"], "grid": {"ipc": [1, 2]}, "columns": ["ipc"]}
    found = table(fields | {"rows": []}, tmp_path)
    lines = study_tables.text(found).splitlines()
    assert lines[0].startswith("accuracy: test accuracy in percent; seconds: time in seconds: mean")
    assert lines[1].split("  ") == [
        "ipc=1, accuracy", "ipc=1, seconds", "ipc=2, accuracy", "ipc=2, seconds"
    ]  # fmt: skip
    assert lines[2].split() == "62.0 ± 2.0 3.0 ± 0.0 72.0 ± 2.0 3.0 ± 0.0".split()
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [(row["ipc"], row["metric"]) for row in rows[:2]] == [
        ("1", "accuracy"),
        ("1", "seconds"),
    ]
    saved_table = saved(tmp_path)["table"]
    assert saved_table["entries"][1]["column"] == {"ipc": 1, "metric": "seconds"}
    assert r"\multicolumn{2}{c}{ipc 1}" in (tmp_path / "table.tex").read_text()
    # The same study with one of them: its cells are not run again.
    assert len(fake.calls) == 4 and table(fields | {"metric": "seconds", "rows": []}, tmp_path)
    assert len(fake.calls) == 4
    for wrong in ([], ["accuracy", "accuracy"], 3):
        with pytest.raises(BadInput, match="metric: .*or a list of different ones"):
            study_file.validate(GRID | {"metric": wrong}, "STUDY.py", {})


def test_latex_heads_of_several_keys(tmp_path: Path, fake: Runs) -> None:
    grid = {"method": ["random", "herding"], "ipc": [1, 2], "eval.epochs": [5, 6]}
    found = table({"grid": grid, "rows": ["method"], "columns": ["ipc", "eval.epochs"]}, tmp_path)
    lines = study_tables.latex(found).splitlines()
    at = lines.index(r"\toprule")
    assert lines[at + 1 : at + 4] == [
        r" & \multicolumn{2}{c}{ipc 1} & \multicolumn{2}{c}{ipc 2} \\",
        r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}",
        r"method & \multicolumn{1}{r}{eval.epochs 5} & \multicolumn{1}{r}{eval.epochs 6} & "
        r"\multicolumn{1}{r}{eval.epochs 5} & \multicolumn{1}{r}{eval.epochs 6} \\",
    ]
    assert study_tables.escaped("a_b 5% \\x") == r"a\_b 5\% \textbackslash{}x"


def test_one_seed_has_the_spread_of_its_nets(tmp_path: Path, fake: Runs) -> None:
    found = table({"seeds": None, "grid": {"ipc": [1, 2]}}, tmp_path)
    assert study_tables.text(found).splitlines()[0].endswith("over the nets, n = 2 nets")
    assert study_tables.text(found).splitlines()[2:] == [
        "1    60.0 ± 1.0",
        "2    70.0 ± 1.0",
    ]
    assert jdd.study(GRID | {"metric": "seconds"}, tmp_path)["text"].splitlines()[2].split() == [
        "Random", "3.0", "±", "0.0", "3.0", "±", "0.0"
    ]  # fmt: skip


def test_figures_of_a_result() -> None:
    one = {"mean": 0.5, "std": 0.1, "n": 3}
    result = {
        "accuracy": {"AlexNet": one | {"mean": 0.4}, "ConvNet": one},
        "baselines": {"random": one, "full": None},
        "scores": {"lrs": 0.25},
        "seconds": {"distill": 2.0, "full": 50.0},
    }
    figures: dict[str, Callable[[], Any]] = {
        name: lambda name=name: study_metric.figure(name, result, "ConvNet")
        for name in ("accuracy", "accuracy.AlexNet", "baselines.random", "scores.lrs", "seconds")
    }
    assert [figures[name]().mean for name in figures] == [0.5, 0.4, 0.5, 0.25, 2.0]
    assert study_metric.figure("baselines.full", result, "ConvNet") is None
    wrong = result | {"wrong_labels": {"count": 3, "of": 20}}
    assert study_metric.figure("wrong_labels", wrong, "ConvNet") == (0.15, None, None)
    assert study_metric.figure("wrong_labels", result, "ConvNet") is None
    common = {"protocol": {"rows": {"set": {"soft": {"mean": 0.5, "std": 0.1, "n": 3}}}}}
    assert study_metric.figure("protocol.soft", common, "ConvNet") == (0.5, 0.1, 3)
    assert study_metric.figure("protocol.soft", result, "ConvNet") is None
    assert study_metric.figure("accuracy", result, "MLP") == (0.4, 0.1, 3)


# Real runs.

# One small net without augmentation: little is compiled.
QUICK: dict[str, Any] = {
    "data.name": "toy", "data.dsa": "none", "net.name": "MLP", "nets": "MLP", "devices": 1,
    "progress": False, "eval.n": 1, "eval.epochs": 1, "eval.curve": 0, "baselines.full": False,
    "baselines.random": 1, "experts.count": 1, "experts.group": 1, "experts.epochs": 1,
}  # fmt: skip


def test_two_methods_from_end_to_end(tiny: dict[str, Any], tmp_path: Path) -> None:
    base = {"data.path": tiny["data.path"], **QUICK}
    grid = {"method": ["random", "kcenter"], "ipc": [1, 2]}
    found = jdd.study({"base": base, "grid": grid, "plot": "ipc"}, tmp_path / "study")
    assert found["count"]["complete"] == 4
    place = tmp_path / "study"
    page = (place / "compare.html").read_text()
    assert "method=kcenter, ipc=2, seed=0" in page
    assert "Test accuracy in percent by ipc" in page and "</i>K-center</li>" in page
    compared = json.loads((place / "compare.json").read_text())
    assert {run["run"] for group in compared["groups"] for run in group["runs"]} == {
        row["name"].replace(",", ", ") for row in found["cells"]
    }
    for row in found["cells"]:
        dset = DistilledSet.load(place / row["folder"] / "distilled.npz")
        assert len(dset.images) == 3 * row["values"]["ipc"]
        result = study.finished(place / row["folder"])
        assert row["figure"]["mean"] == result["accuracy"]["MLP"]["mean"]
        assert f"--workdir={place / row['folder']}" in result["command"]
    estimate = study_estimate.run({"base": base, "grid": grid}, place)
    assert estimate["cells"] == 0 and estimate["seconds"] == 0


def test_cells_share_experts_and_go_on_after_an_interruption(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"data.path": tiny["data.path"], **QUICK, "method": "mtt", "steps": 1, "syn_steps": 1}
    base |= {"max_start_epoch": 1, "expert_epochs": 1, "lr_student": 0.05, "baselines.random": 0}
    fields = {"base": base, "grid": {"lr_img": [1.0, 2.0]}}
    real, calls = study.pipeline.run, []

    def stopped(loaded: config.Loaded, workdir: str, mode: str, *rest: Any) -> dict[str, Any]:
        calls.append(workdir)
        if len(calls) == 1:
            real(loaded, workdir, "experts", *rest)
            raise Interrupted("interrupted")
        return real(loaded, workdir, mode, *rest)

    monkeypatch.setattr(study.pipeline, "run", stopped)
    with pytest.raises(Interrupted):
        jdd.study(fields, tmp_path / "a")
    (store,) = (tmp_path / "a/experts").iterdir()
    before = {path: path.stat().st_mtime_ns for path in store.glob("g*/e*")}
    assert before
    (tmp_path / "a").rename(tmp_path / "b")  # a study may be moved
    found = jdd.study(fields, tmp_path / "b")
    assert found["count"]["complete"] == 2 and len(calls) == 3
    (store,) = (tmp_path / "b/experts").iterdir()
    assert {path.name: path.stat().st_mtime_ns for path in store.glob("g*/e*")} == {
        path.name: time for path, time in before.items()
    }
    for row in found["cells"]:
        folder = tmp_path / "b" / row["folder"]
        assert (folder / "experts").resolve() == store
        assert not (folder / "experts").readlink().is_absolute()
        saved_config = json.loads((folder / "config.json").read_text())
        assert saved_config["experts"]["dir"] == ""  # as of a run without a study


EXAMPLES = sorted((ROOT / "docs/examples").glob("study_*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_resolve(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("cifar10.npz", "cifar10n_labels.npz"):  # read later, by the cells
        (tmp_path / needed).touch()
    monkeypatch.chdir(tmp_path)
    found = study_cells.make(study_file.read(str(path), {}))
    assert len(found) == (21 if path.stem == "study_digits" else len({cell.id for cell in found}))
    assert path.stem not in config.bundled()


def test_keys_that_never_change_are_not_in_the_table(tmp_path: Path, fake: Runs) -> None:
    listed = [{"method": name, "ipc": 1} for name in ("random", "herding")]
    found = table({"grid": None, "cells": listed, "rows": ["method"]}, tmp_path)
    assert (found.rows, found.columns) == (("method",), ())
    alone = table({"grid": None, "cells": listed[:1], "seeds": [0]}, tmp_path / "one")
    assert (alone.rows, alone.columns) == (("method",), ("ipc",))


def test_a_schedule_that_ends_with_the_last_epoch_has_a_store_of_its_own() -> None:
    def stores(**keys: Any) -> dict[str, str]:
        return study_cells.stores(config.load("ncfm:digits", keys).config)

    epochs = [{"experts.epochs": count} for count in (6, 7)]
    assert stores(**epochs[0]) != stores(**epochs[1])
    plain = {"experts.schedule": "constant"}
    assert stores(**plain, **epochs[0]) == stores(**plain, **epochs[1])


def test_a_study_that_is_deleted_is_not_made_anew(tmp_path: Path) -> None:
    cell, *_ = cells({"base": "dc:digits", "grid": {"ipc": [1, 2]}})
    cell = cell._replace(stores={"experts": "experts-1"})
    study.link_stores(cell, tmp_path)
    link = tmp_path / "cells" / cell.id / "experts"
    assert link.is_symlink() and link.resolve() == (tmp_path / "experts" / "experts-1").resolve()
    with pytest.raises(StorageError, match="deleted or moved"):
        study.link_stores(cell, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
