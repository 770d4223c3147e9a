"""Runs side by side: what belongs together, what they differ in, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import jdd
from jdd import main
from jdd.errors import BadInput
from jdd.product.distilled_set import merge
from jdd.report import comparison_json, plain, runs
from tests.test_report import RESULT, Page, _rows, _score
from tests.tiny_distilled import make

NAMES = ("zero", "one", "two")


def fabricate(
    place: Path,
    accuracy: dict[str, Any] | None,
    recipe: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    ipc: int = 2,
    **result: Any,
) -> Path:
    """Write what a run leaves in ``place``; without accuracies it has not finished."""
    place.mkdir(parents=True)
    dset = make(ipc=ipc, dataset="digits", names=NAMES)
    settled = merge(dset.recipe, {"data_fingerprint": "d0", "ipc": ipc, **(recipe or {})})
    saved = {"method": "mtt", "ipc": ipc, "steps": 1000, "data": {"name": "digits"}}
    (place / "config.json").write_text(json.dumps(saved | (config or {})))
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    if accuracy is not None:
        dset._replace(recipe=settled).save(place / "distilled.npz")
        found = RESULT | {"steps": 1000, "ipc": ipc, "accuracy": accuracy} | result
        (place / "result.json").write_text(json.dumps(found))
    return place


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three runs alike in data and IPC: ``b`` is best, ``c`` is of another net and recipe."""
    fabricate(tmp_path / "a", {"ConvNet": _score(0.8), "AlexNet": _score(0.5)})
    fabricate(tmp_path / "b", {"ConvNet": _score(0.9)}, method="dm", published=None)
    other = {"train": {"epochs": 300, "passes": 301, "lr": 0.5}, "net": {"options": {"width": 64}}}
    scores = {"ConvNet": _score(0.7, 3), "MLP": _score(0.6, 3)}
    fabricate(tmp_path / "c", scores, other, device="8 x TPU v4", method="dc")
    return tmp_path


def _by_protocol(name: str, set_row: tuple[float, float], random: tuple[float, float], each: int):
    def row(soft: float, hard: float, count: float, size: float):
        return {
            "images_per_class": count, "bytes_per_class": size, "own": None,
            "soft": _score(soft), "hard": _score(hard),
        }  # fmt: skip

    teacher = {"net": "ConvNetBN", "width": 32, "epochs": 30, "accuracy": 0.98, "digest": name}
    settings = {
        "epochs": 400, "batch": 50, "optimizer": "adam", "lr": 0.001, "stretch": 2.0,
        "temperature": 20.0, "crop": "padded", "flip": 0.0, "mix": "cutmix",
    }  # fmt: skip
    rows = {"set": row(*set_row, each, 256.0 * each), "random": row(*random, each, 68.0 * each)}
    found = {"name": "common-small", "teacher": teacher, "student": "ConvNetBN", **settings}
    return {"protocol": found | {"rows": rows}}


def test_an_unfinished_evaluation_of_a_set_is_called_that(tmp_path: Path) -> None:
    place = fabricate(tmp_path / "evaluate-a", None)
    assert "step" in runs.Run("a", runs.gather(place)).reached
    (place / "checkpoints").mkdir()
    (place / "checkpoints" / "set.json").write_text("{}")
    found = runs.Run("a", runs.gather(place))
    assert found.evaluates and found.reached == "the evaluation of a set"


def test_sets_of_a_dataset_are_ranked_by_one_protocol(tmp_path: Path) -> None:
    """Over all IPC; a set by another teacher has a ranking of its own; equal real rows are one."""
    one = {"ConvNet": _score(0.8)}
    fabricate(tmp_path / "a", one, **_by_protocol("t", (0.8, 0.5), (0.7, 0.4), 2))
    fabricate(tmp_path / "b", one, **_by_protocol("t", (0.6, 0.6), (0.7, 0.4), 2), method="dm")
    fabricate(tmp_path / "c", one, ipc=9, **_by_protocol("t", (0.9, 0.7), (0.85, 0.6), 9))
    fabricate(tmp_path / "d", one, **_by_protocol("u", (0.95, 0.7), (0.7, 0.4), 2))
    found = jdd.compare(f"{tmp_path}/*", tmp_path / "page.html")
    parts = found["summary"].split("digits by one protocol\n")
    assert len(parts) == 3 and "no flip" in parts[1] and "weights t" in parts[1]
    rows = [" ".join(line.split()) for line in parts[1].strip().splitlines()[2:]]
    assert rows == [
        "MTT c 9 2.3 kB – 90.0 ± 1.4 70.0 ± 1.4 +5.0",
        "Random real images - 9 612 B – 85.0 ± 1.4 60.0 ± 1.4 –",
        "MTT a 2 512 B – 80.0 ± 1.4 50.0 ± 1.4 +10.0",
        "Random real images - 2 136 B – 70.0 ± 1.4 40.0 ± 1.4 –",
        "DM b 2 512 B – 60.0 ± 1.4 60.0 ± 1.4 -10.0",
    ]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("digits by one protocol") == 2 and "+10.0" in page
    runs = [run for group in found["groups"] for run in group["runs"]]
    assert all(run["protocol"]["name"] == "common-small" for run in runs)


def test_runs_are_sorted_and_their_figures_kept(three: Path) -> None:
    found = jdd.compare(f"{three}/a,{three}/b,{three}/c", three / "page.html")
    kept = json.loads((three / "page.json").read_text())
    assert kept == {name: value for name, value in found.items() if name != "summary"}
    (group,) = kept["groups"]
    assert [run["run"] for run in group["runs"]] == ["b", "a", "c"]
    assert (group["dataset"], group["ipc"], group["net"]) == ("digits", 2, "ConvNet")
    best = group["runs"][0]
    assert best["accuracy"] == {"ConvNet": {"mean": 0.9, "std": 0.0141, "n": 5}}
    assert best["baselines"]["random"]["mean"] == 0.704 and best["published"] is None
    assert best["seconds_without_full"] == pytest.approx(35.0) and best["seconds"]["full"] == 700.0
    assert (best["method"], best["steps"], best["command"]) == ("dm", 1000, RESULT["command"])
    table = [line.split() for line in found["summary"].splitlines()]
    assert table[1][:6] == ["run", "method", "ConvNet", "random", "published", "AlexNet"]
    assert table[2][:7] == ["b", "DM", "90.0", "±", "1.4", "(5)", "70.4"]
    assert table[2][10:13] == ["-", "-", "-"]  # published, AlexNet, MLP
    assert table[4][:2] == ["c", "DC"] and "90.0 ± 2.0" in found["summary"]


def test_the_page_says_what_is_not_alike(three: Path) -> None:
    found = jdd.compare([three / "a", three / "b", three / "c"], three / "page.html")
    (group,) = found["groups"]
    assert set(group["differs"]) == {"net tested", "nets trained (n)", "training", "learning rate"}
    assert group["differs"]["nets trained (n)"] == {"5": ["b", "a"], "3": ["c"]}
    assert group["differs"]["learning rate"] == {"learned with the set": ["b", "a"], "0.5": ["c"]}
    assert set(group["costs_differ"]) == {"device"}
    page = Page((three / "page.html").read_text())
    for words in (
        "Of 3 runs on digits, 2 images per class, DM comes first",
        "These runs differ in net tested, nets trained (n), training, learning rate: see below.",
        "What they differ in: accuracies",
        "What they differ in: times and memory",
        "300 epochs in batches of 256",
        "8 x TPU v4",
        "ConvNet (width 64)",
        "MTT: A & B 2022; of another copy; a differs from its protocol in steps.",
        "The same classes of each set, 2 images of each",
        "19 s",
        "--config.x='<b>'",
    ):
        assert words in page.words, words
    # Three classes, two images of each of three runs; a marker each for random and published.
    assert page.count("img") == 18
    assert page.count("u", "random") == 4 and page.count("u", "published") == 3
    assert any("default-src 'none'" in at.get("content", "") for _, at in page.tags)
    assert not {name for name, _ in page.tags} & {"script", "link", "iframe"}


def test_alike_runs_are_said_to_be_alike(tmp_path: Path) -> None:
    for name in "ab":
        fabricate(tmp_path / name, {"ConvNet": _score(0.8)})
    found = jdd.compare(f"{tmp_path}/*", tmp_path / "page.html")
    assert found["groups"][0]["differs"] == found["groups"][0]["costs_differ"] == {}
    page = Page((tmp_path / "page.html").read_text())
    assert "recipe, nets and their number are the same in all" in page.words


def test_other_data_other_sizes_and_what_is_unfinished(three: Path) -> None:
    fabricate(three / "d", {"ConvNet": _score(0.95)}, ipc=4)
    fabricate(three / "e", {"ConvNet": _score(0.85)}, {"data_fingerprint": "d1"})
    fabricate(three / "f", None)
    fabricate(three / "h", None)
    unfinished = make(ipc=2, dataset="digits", names=NAMES)
    unfinished.save(three / "h" / "unfinished.npz")
    fabricate(three / "g", {"ConvNet": _score(0.75)}, config={"steps": 5000})
    (three / "no-run").mkdir()
    found = jdd.compare(str(three / "*"), three / "page.html")
    assert [group["ipc"] for group in found["groups"]] == [2, 4]
    differs = found["groups"][0]["differs"]
    assert differs["real images (fingerprint)"] == {"d0": ["b", "a", "g", "c"], "d1": ["e"]}
    assert differs["asked for more steps"]["measured after step 1000 of 5000"] == ["g"]
    assert found["no_runs"] == [str(three / "no-run")]
    assert [(one["run"], one["reached"]) for one in found["unfinished"]] == [
        ("f", "step 998 of 1000"),
        ("h", "step 998 of 1000"),
    ]
    page = Page((three / "page.html").read_text())
    assert "f , not finished (step 998 of 1000): No distilled set yet" in page.words
    results, _, after = page.words.partition("Not finished")
    assert "h , not finished (step 998 of 1000): Distilling has not finished" in after
    assert "Test accuracy" in results and "not finished (" not in results
    text = (three / "page.html").read_text().partition("Not finished")[2]
    assert text.count("<img") == 6  # three classes, two images of each
    assert "not between them" in page.words and "no-run" in page.words
    assert "f (step 998 of 1000)" in found["summary"]
    assert "matched and no runs" in found["summary"]


def test_an_attack_stands_apart(tmp_path: Path) -> None:
    fabricate(tmp_path / "a", {"ConvNet": _score(0.8)})
    aim = {"kind": "attack", "attack_name": "one", "target_name": "zero"}
    fabricate(tmp_path / "b", {"ConvNet": _score(0.6)}, objective=aim)
    found = jdd.compare(f"{tmp_path}/a,{tmp_path}/b", tmp_path / "page.html")
    titles = [group["title"] for group in found["groups"]]
    assert titles[1] == titles[0] + ", attack, one to be taken for zero"


def test_many_images_are_cut_to_what_is_readable(tmp_path: Path, monkeypatch: Any) -> None:
    for name in "ab":
        fabricate(tmp_path / name, {"ConvNet": _score(0.8)}, ipc=50)
    comparison_json.write(f"{tmp_path}/a,{tmp_path}/b", tmp_path / "page.html")
    assert Page((tmp_path / "page.html").read_text()).count("img") == 2 * 3 * 3
    monkeypatch.setattr("jdd.report.pictures.BUDGET", 2 * 2 * 48)
    comparison_json.write(f"{tmp_path}/a,{tmp_path}/b", tmp_path / "page.html")
    assert Page((tmp_path / "page.html").read_text()).count("img") == 2 * 2


def test_odd_results_are_no_trouble(tmp_path: Path) -> None:
    fabricate(tmp_path / "a", {"ConvNet": _score(0.8)})
    bare = {"dataset": "digits", "ipc": 2, "accuracy": {"MLP": {"mean": 0.5}}}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result.json").write_text(json.dumps(bare))
    found = jdd.compare(f"{tmp_path}/a,{tmp_path}/b", tmp_path / "page.html")
    assert [run["run"] for run in found["groups"][0]["runs"]] == ["a", "b"]
    assert found["groups"][0]["differs"]["training"]["not known"] == ["b"]
    assert "on MLP" in Page((tmp_path / "page.html").read_text()).words


def test_classes_of_other_names_go_by_their_order() -> None:
    from jdd.report.comparison_images import columns

    cells = columns(make(names=("0", "1", "2")), ("zero", "one"), 1)
    assert [len(stack) for stack in cells] == [1, 1]
    cells = columns(make(names=("one", "zero", "two")), ("zero", "ten"), 2)
    assert [len(stack) for stack in cells] == [2, 0]


def test_the_commit_is_that_of_the_checkout() -> None:
    from jdd.stages import report

    place = Path(jdd.__file__).parents[1]
    if not (place / ".git").exists():
        assert report.commit() is None
        return
    head = subprocess.run(
        ["git", "-C", str(place), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout
    found = str(report.commit()).removesuffix("-dirty")
    assert len(found) >= 7 and head.startswith(found) and report.versions()["commit"]


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    places = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    assert runs._names(places) == ["x/run", "y/run"]
    assert runs._names([tmp_path / "x", tmp_path / "y"]) == ["x", "y"]


@pytest.mark.parametrize(
    ("words", "to", "says"),
    [
        ("a,nowhere", "page.html", ("--runs=nowhere", "no such folder")),
        ("a,empty", "page.html", ("--runs=empty", "not a run", "result.json")),
        ("a,x*", "page.html", ("--runs=x*", "nothing of that name")),
        ("a,b,./a", "page.html", ("--runs=./a", "the same folder twice")),
        ("a", "page.html", ("--runs", "one run", "two or more")),
        ("em*", "page.html", ("--runs", "no run")),
        ("f,g", "page.html", ("--runs", "none of these 2 runs is finished (f, g)")),
        ("a,b", "page.txt", ("--to=page.txt", "ends in .html")),
        ("a,b", "no/page.html", ("--to=no/page.html", "no cannot be written")),
        ("a,b", "a/result.html", ("result.json is there and no comparison",)),
        ("a,b", "kept.html", ("kept.html is there and no comparison",)),
    ],
)  # fmt: skip
def test_bad_input(three: Path, monkeypatch: Any, capsys: Any, words: str, to: str, says) -> None:
    monkeypatch.chdir(three)
    (three / "empty").mkdir()
    (three / "kept.html").write_text("mine")
    fabricate(three / "f", None)
    fabricate(three / "g", None)
    before = {path: path.read_bytes() for path in three.rglob("*") if path.is_file()}
    assert main.main(["--mode=compare", f"--runs={words}", f"--to={to}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("jdd: error: ") and err.count("\n") == 1
    assert all(word in err for word in says), err
    assert before == {path: path.read_bytes() for path in three.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--mode=compare"], ("--runs", "missing")),
        (["--mode=compare", "--runs="], ("--runs", "empty")),
        (["--runs=a,b"], ("--runs", "--mode=compare")),
        (["--mode=compare", "--runs=a,b", "--set=a.npz"], ("--set",)),
        (["--mode=compare", "--runs=a,b", "--workdir=c"], ("--workdir", "--mode=compare")),
        (["--mode=compare", "--runs=a,b", "--config.ipc=3"], ("config.ipc", "runs nothing")),
    ],
)
def test_flags(capsys: Any, argv: list[str], says: tuple[str, ...]) -> None:
    assert main.main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(word in err for word in says), err


def test_a_comparison_is_written_again(three: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(three)
    for words in ("a,b", "a,b,c"):
        assert main.main(["--mode=compare", f"--runs={words}"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "Side by side: compare.html"
    assert len(json.loads(Path("compare.json").read_text())["groups"][0]["runs"]) == 3


def test_a_path_with_a_comma_is_one_folder(three: Path) -> None:
    shutil.move(three / "a", three / "a,1")
    with pytest.raises(BadInput, match="one run"):
        runs.find(str(three / "a,1"))
    assert len(runs.find([three / "a,1", three / "b"]).groups[0].runs) == 2


def test_plain_table() -> None:
    assert plain.table(("net", "n"), [("MLP", "5"), ("ConvNet", "10")]) == (
        "net       n\nMLP       5\nConvNet  10"
    )
    assert plain.accuracy(0.5, 0.1, 1) == "50.0" and plain.accuracy(0.5, 0.1, 2) == "50.0 ± 10.0"


def test_changed_keys_of_a_method_are_listed_for_its_runs(three: Path) -> None:
    for name, config in (("x", {"lr_img": 100.0}), ("y", {"lr_img": 1000.0}), ("z", {})):
        fabricate(three / name, {"ConvNet": _score(0.6)}, config=config)
    differs = jdd.compare(f"{three}/[xyz]", three / "page.html")["groups"][0]["differs"]
    assert set(differs) == {"lr_img"}  # of one method alone: no title
    assert differs["lr_img"] == {"100": ["x"], "1000": ["y"], "auto": ["z"]}
    assert (
        "These runs differ in lr_img: see below." in Page((three / "page.html").read_text()).words
    )
    (three / "y" / "checkpoints").mkdir()
    (three / "y" / "checkpoints" / "set.json").write_text("{}")  # an evaluation: keys not the set's
    differs = jdd.compare(f"{three}/[abcxyz]", three / "page.html")["groups"][0]["differs"]
    assert differs["lr_img (MTT)"] == {"auto": ["a", "z"], "100": ["x"]}
