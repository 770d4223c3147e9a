"""A whole run on the tiny problem: its contract, resuming, interrupting, several seeds, the API."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import jdd
from jdd import api, main, report
from jdd.errors import BadInput, Diverged, Interrupted
from jdd.product.distilled_set import DistilledSet
from jdd.run import session
from jdd.run.metrics import Metrics, read
from jdd.stages import distill
from jdd.storage import json_files
from tests import runs
from tests.test_report import Page


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    """A finished tiny run and its result."""
    place = tmp_path_factory.mktemp("done")
    # A cache of its own: another file's run of the same data may have left its whole-set baseline.
    return place, runs.run({**tiny, "data.cache_dir": str(place / "cache")}, place)


def without_times(result):
    out = json.loads(json.dumps(result))
    for name in ("seconds", "command", "summary"):
        out.pop(name, None)
    out["peak_memory_bytes"].pop("process")
    out["nets"] = {name: cost["parameters"] for name, cost in out["nets"].items()}
    return out


def test_contract(done):
    place, _ = done
    for name in ("config.json", "experts", "checkpoints", "metrics.jsonl", "distilled.npz"):
        assert (place / name).exists()
    assert (place / "distilled.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (place / "report.html").read_text()
    result = json.loads((place / "result.json").read_text())
    wanted = {
        "method", "dataset", "ipc", "seed", "accuracy", "baselines", "seconds",
        "peak_memory_bytes", "device", "versions", "command",
    }  # fmt: skip
    assert wanted <= result.keys()
    found = result["accuracy"]["ConvNet"]
    assert found["n"] == 2 and 0 <= found["mean"] <= 1
    np.testing.assert_allclose(found["std"], np.std(found["values"]))
    assert result["baselines"]["random"]["n"] == 2
    assert result["baselines"]["full"]["epochs"] == 1
    assert result["peak_memory_bytes"]["xla_temporaries"]["distill"] > 0
    with np.load(place / "distilled.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (3, 8, 8, 3) and arrays["label_kind"] == "hard"
        recipe = json.loads(str(arrays["recipe"]))
    assert recipe["dataset"] == "toy" and recipe["train"]["lr"] == result["lr"]


def test_metrics_have_no_step_twice(done):
    rows = read(done[0] / "metrics.jsonl")
    seen = [(row["stage"], row["step"]) for row in rows]
    assert len(seen) == len(set(seen))
    assert {"experts", "distill", "curve", "evaluate", "full"} == {stage for stage, _ in seen}
    assert all("seconds" in row for row in rows)


def test_finished_run_says_so_and_changes_nothing(done, tiny, capsys):
    place, first = done
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}
    again = runs.run({**tiny, "progress": True}, place)
    assert "finished" in capsys.readouterr().out
    assert without_times(again) == without_times(first)
    after = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}
    assert {p for p in after if before.get(p) != after[p]} <= {place / ".lock"}


def test_more_nets_are_measured_later(done, tiny, tmp_path):
    import shutil

    place = tmp_path / "copy"
    shutil.copytree(done[0], place)
    image = (place / "distilled.npz").read_bytes()
    result = runs.run({**tiny, "nets": "ConvNet,MLP"}, place)
    assert set(result["accuracy"]) == {"ConvNet", "MLP"}
    assert result["accuracy"]["ConvNet"] == done[1]["accuracy"]["ConvNet"]
    assert (place / "distilled.npz").read_bytes() == image
    longer = runs.run({**tiny, "steps": 8}, place)  # more steps go on from step 6
    assert longer["steps"] == 8
    with pytest.raises(BadInput, match="config.steps: 3, and 8 are done"):
        runs.run({**tiny, "steps": 3}, place)
    _side_by_side(done[0], place, tmp_path / "page.html")


def _side_by_side(first, second, page):
    """Two real runs on one page: what result.json says is what the comparison says."""
    (group,) = jdd.compare([first, second], page)["groups"]
    assert group["differs"] == {"steps": {"6": [first.name], "8": [second.name]}}
    assert group["costs_differ"] == {} and group["net"] == "ConvNet"
    assert sorted(run["steps"] for run in group["runs"]) == [6, 8]
    for run in group["runs"]:
        kept = json.loads((Path(run["folder"]) / "result.json").read_text())
        assert run["seconds"] == kept["seconds"] and run["device"] == kept["device"]
        for net, score in run["accuracy"].items():
            assert score == {k: kept["accuracy"][net][k] for k in ("mean", "std", "n")}
    assert page.read_text().count("<img") == 2 * 3


@pytest.mark.slow  # the shared suite has the steps, tests/test_parallel.py the rest
def test_several_devices(done, tiny, tmp_path):
    """Two groups of experts, two evaluation nets and two segments, on two simulated devices."""
    from jdd.storage.checkpoints import restore

    keys = {**tiny, "experts.count": 4, "segments": 2, "steps": 2, "devices": 2}
    result = runs.run(keys, tmp_path)
    assert result["device"].startswith("2 x") and result["accuracy"]["ConvNet"]["n"] == 2
    like = runs.context(tiny, done[0]).store._like
    one, two = (restore(p / "experts" / "g0000" / "e0002", like) for p in (done[0], tmp_path))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_several_synthesis_seeds(tiny, tmp_path, done):
    keys = {**tiny, "runs": 2, "steps": 2, "experts.dir": str(done[0] / "experts")}
    found = runs.run(keys, tmp_path)["accuracy"]["ConvNet"]
    assert found["n"] == 4 and set(found["seeds"]) == {"0", "1"}
    means = [one["mean"] for one in found["seeds"].values()]
    np.testing.assert_allclose(found["std_over_seeds"], np.std(means))
    sets = [DistilledSet.load(tmp_path / name) for name in ("distilled.npz", "distilled-s1.npz")]
    assert not np.array_equal(sets[0].images, sets[1].images)


def test_an_interrupted_run_has_images_to_look_at(done, tiny, tmp_path, monkeypatch):
    """The set of the step is saved, and gone once the run is finished."""
    keys = {**tiny, "experts.dir": str(done[0] / "experts"), "eval.curve": 0}
    wanted = iter([False, True])
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(session.Session, "stopping", property(lambda self: next(wanted)))
        runs.run(keys, tmp_path, "distill")
    found = DistilledSet.load(tmp_path / "unfinished.npz")
    assert found.recipe["steps"] == 1 and (tmp_path / "unfinished.png").exists()
    page = report.write(tmp_path).read_text()
    assert "not finished yet" in page and "<img" in page
    runs.run(keys, tmp_path, "distill")
    assert not list(tmp_path.glob("unfinished*")) and (tmp_path / "distilled.npz").exists()


def test_a_checkpoint_saves_the_images(done, tiny, tmp_path, monkeypatch):
    saved: list[int] = []
    monkeypatch.setattr(distill._Unfinished, "save", lambda self, state, at: saved.append(at))
    monkeypatch.setattr(distill, "_SHARE", 0)
    keys = {**tiny, "experts.dir": str(done[0] / "experts"), "checkpoint_every": 1}
    runs.run(keys, tmp_path, "distill")
    assert saved == list(range(1, int(keys["steps"])))


@pytest.mark.parametrize("stop", [1, 4, 7, 11, 14])
def test_interrupted_run_ends_bit_equal(done, tiny, tmp_path, monkeypatch, stop):
    """Stop at the n-th chance to, wherever that is; the same command then finishes the run."""
    chances = 0

    def stopping(self):
        nonlocal chances
        chances += 1
        return chances == stop

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(session.Session, "stopping", property(stopping))
        runs.run(tiny, tmp_path)
    result = runs.run(tiny, tmp_path)
    assert without_times(result) == without_times(done[1])
    assert (tmp_path / "distilled.npz").read_bytes() == (done[0] / "distilled.npz").read_bytes()
    seen = [(row["stage"], row["step"]) for row in read(tmp_path / "metrics.jsonl")]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_killed_process_goes_on(done, tiny, tmp_path, number):
    args = [f"--config.{k}={v}" for k, v in {**tiny, "progress": True}.items()]
    command = [sys.executable, "-m", "jdd.main", "--config=mtt", *args, f"--workdir={tmp_path}"]
    child = subprocess.Popen(
        command, cwd=Path(jdd.__file__).parents[1], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "checkpoints" / "distill").exists() and time.monotonic() < deadline:
        assert child.poll() is None, "it ended before distilling"
        time.sleep(0.05)
    child.send_signal(number)
    child.communicate(timeout=240)
    assert child.returncode == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    result = runs.run(tiny, tmp_path)
    assert result["accuracy"] == done[1]["accuracy"]
    assert (tmp_path / "distilled.png").read_bytes() == (done[0] / "distilled.png").read_bytes()
    seen = [(row["stage"], row["step"]) for row in read(tmp_path / "metrics.jsonl")]
    assert len(seen) == len(set(seen))


def last_cause(place):
    return [row for row in read(place / "metrics.jsonl") if row["stage"] == "distill"][-1][
        "diverged"
    ]


def test_divergence_keeps_the_last_good_set(done, tiny, tmp_path, capsys):
    keys = {**tiny, "lr_lr": 1e6, "experts.dir": str(done[0] / "experts")}
    keys |= {"log_every": 5, "steps_back": 0}  # the step is logged all the same
    with pytest.raises(Diverged, match="lr_lr") as caught:
        runs.run(keys, tmp_path)
    kept = DistilledSet.load(tmp_path / "distilled.npz")
    step, line = kept.recipe["steps"], str(caught.value)
    assert (
        f"distill diverged at step {step + 1}: the parameters of the student, trained at " in line
    )
    file, of = tmp_path / "distilled.npz", f"the last good set, of step {step}, is "
    assert f"{of}{file}. Try --config.lr_lr=1e+05 or" in line
    assert kept.recipe["diverged"] == {"step": step + 1, "cause": last_cause(tmp_path)}
    note = f"the run that made it diverged at step {step + 1} .*; this is the set of step {step}"
    with pytest.raises(BadInput, match=f"lr is .*; {note}; a set of another run"):
        jdd.load(tmp_path)
    assert jdd.load(done[0]).notes == () and "diverged" not in jdd.load(done[0]).recipe
    assert f"with a new --workdir and --config.experts.dir={done[0] / 'experts'}" in line
    assert "lr_student" not in line and "pix_init" not in line
    last = [row for row in read(tmp_path / "metrics.jsonl") if row["stage"] == "distill"][-1]
    assert last["step"] == step + 1 > 1 and last["loss"] is None
    assert last["diverged"].startswith("the parameters of the student")
    found = jdd.compare([done[0], tmp_path], tmp_path / "page.html")
    words = f"distill diverged at step {step + 1}: the parameters"
    assert f"diverged: {tmp_path.name} ({words}" in found["summary"]
    assert found["unfinished"][0]["diverged"] is True
    page = Page((tmp_path / "page.html").read_text())
    assert f"{tmp_path.name} , {words}" in page.words
    assert f"distilled.npz: the run that made it diverged at step {step + 1}" in page.words
    assert np.isfinite(kept.images).all() and kept.recipe["steps"] < 6
    args = [f"--config.{k}={v}" for k, v in keys.items()]
    assert main.main(["--config=mtt", *args, f"--workdir={tmp_path}"]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_second_run_is_kept_out(tiny, tmp_path):
    with session.locked(tmp_path), pytest.raises(BadInput, match=str(os.getpid())):
        runs.run(tiny, tmp_path)


def test_estimate_writes_nothing(tiny, tmp_path, capsys):
    found = runs.run(tiny, tmp_path / "none", "estimate")
    assert not (tmp_path / "none").exists()
    out = capsys.readouterr().out
    for stage in ("experts", "distill", "evaluate", "full"):
        assert stage in out and found[stage]["seconds"] >= 0
    assert found["distill"]["temporaries_bytes"] > 0


def test_any_saved_set_is_evaluated(done, tmp_path):
    result = jdd.evaluate(
        done[0] / "distilled.npz", tmp_path / "e", nets=["ConvNet", "MLP"], eval={"n": 2}
    )
    assert set(result["accuracy"]) == {"ConvNet", "MLP"}
    assert (tmp_path / "e" / "report.html").exists()
    # The same nets on the same set by the same recipe.
    assert result["accuracy"]["ConvNet"]["n"] == 2


def test_foreign_set_from_the_command_line(done, toy, tmp_path, capsys):
    """Somebody else's pictures: a zip of class folders, told only its dataset."""
    import zipfile

    jdd.export(done[0] / "distilled.npz", tmp_path / "png", "png")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as out:
        for file in (tmp_path / "png").rglob("*.png"):
            out.write(file, file.relative_to(tmp_path / "png"))
    words = [
        "--mode=evaluate", f"--set={tmp_path / 'set.zip'}", f"--workdir={tmp_path / 'e'}",
        "--config.data.name=toy", f"--config.data.path={toy}", "--config.eval.epochs=20",
        "--config.net.width=4", "--config.eval.n=2", "--config.baselines.random=0",
    ]  # fmt: skip
    assert main.main(words) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "e" / "result.json").read_text())
    assert result["ipc"] == 1 and result["published"] is None and result["method"] == ""
    assert result["accuracy"]["ConvNet"]["n"] == 2


def test_export_from_the_command_line(done, tmp_path):
    words = ["--mode=export", f"--set={done[0] / 'distilled.npz'}"]
    assert main.main([*words, f"--to={tmp_path / 'x.safetensors'}"]) == 0
    found = jdd.load(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(found.images, jdd.load(done[0] / "distilled.npz").images)
    assert main.main(words) == 2


@pytest.mark.slow
def test_own_data_with_auto_depth_and_a_batch_norm_net(tiny, tmp_path, capsys):
    """Nothing is known of the data before it is read: the second call still knows the run."""
    keys = {k: v for k, v in tiny.items() if k not in ("net.depth", "net.width")}
    keys |= {
        "net.name": "ConvNetBN",
        "net.width": 8,
        "steps": 1,
        "eval.curve": 0,
        "experts.batch": 25,
    }
    first = runs.run(keys, tmp_path)
    assert set(first["accuracy"]) == {"ConvNet"}  # config.nets as it stands
    again = runs.run({**keys, "progress": True}, tmp_path)
    assert "finished" in capsys.readouterr().out and again["accuracy"] == first["accuracy"]


def test_a_diverging_evaluation_net_is_told_and_counts(done, tiny, tmp_path, capsys):
    keys = {**tiny, "experts.dir": str(done[0] / "experts"), "eval.lr": 1e30, "steps": 1}
    keys |= {"baselines.random": 0, "progress": True}
    result = runs.run(keys, tmp_path)
    assert "a ConvNet diverged; it counts" in capsys.readouterr().out
    assert result["accuracy"]["ConvNet"]["n"] == 2


def test_one_stage_alone(tiny, done, tmp_path):
    keys = {**tiny, "experts.dir": str(done[0] / "experts"), "steps": 1, "eval.curve": 0}
    assert "no result" in runs.run(keys, tmp_path, "full")["summary"]
    assert "no result" in runs.run(keys, tmp_path, "distill")["summary"]
    assert runs.run(keys, tmp_path, "evaluate")["accuracy"]
    (tmp_path / "report.html").unlink()
    runs.run(keys, tmp_path, "report")
    assert (tmp_path / "report.html").exists()


def test_a_finished_set_stays_finished(done, tiny, tmp_path):
    """An older set, which does not say how the whole set is trained; then other epochs of that:
    the set says so, and nothing is trained or distilled for it, though the experts are gone."""
    place = tmp_path / "again"
    shutil.copytree(done[0], place)
    shutil.rmtree(place / "experts")
    dset = jdd.load(place / "distilled.npz")
    dset._replace(recipe=dset.recipe | {"full": {}}).save(place / "distilled.npz")
    keys = {**tiny, "data.cache_dir": str(done[0] / "cache")}
    assert runs.run(keys, place, "evaluate")["accuracy"] == done[1]["accuracy"]
    assert jdd.load(place / "distilled.npz").recipe == dset.recipe
    keys["baselines.full_epochs"] = dset.recipe["full"]["full_epochs"] + 1
    result = runs.run(keys, place)
    assert result["baselines"]["full"]["epochs"] == keys["baselines.full_epochs"]
    assert result["accuracy"] == done[1]["accuracy"] and not (place / "experts").exists()
    told = jdd.load(place / "distilled.npz").recipe["full"]
    assert told["full_epochs"] == keys["baselines.full_epochs"]


def test_python_api_does_what_the_command_line_does(done, tiny, tmp_path, capsys):
    keys = {**tiny, "experts.dir": str(done[0] / "experts"), "progress": True}
    config = jdd.make_config("mtt", **keys)
    dset = jdd.distill(config, tmp_path)
    np.testing.assert_array_equal(dset.images, jdd.load(done[0]).images)
    assert dset.result["accuracy"] == done[1]["accuracy"]
    report = tmp_path / "report.html"
    assert dset.result["report"] == str(report) and report.exists()
    assert capsys.readouterr().out.rstrip().endswith(f"Report: {report}")
    # A run's folder is a set, with what result.json records of it; its file alone has no result.
    assert jdd.load(tmp_path).result["accuracy"] == dset.result["accuracy"]
    assert jdd.load(tmp_path / "distilled.npz").result == {}
    (tmp_path / "distilled.npz").unlink()
    with pytest.raises(BadInput, match="no set yet"):
        jdd.load(tmp_path)


def test_a_run_s_folder_is_evaluated_and_exported(done, tiny, tmp_path, capsys):
    words = [f"--config.{k}={tiny[k]}" for k in ("data.path", "eval.epochs", "baselines.random")]
    place = tmp_path / "e"
    words += ["--config.eval.n=1", f"--workdir={place}", f"--set={done[0]}", "--mode=evaluate"]
    assert main.main(words) == 0, capsys.readouterr().err
    assert json.loads((place / "result.json").read_text())["method"] == "mtt"
    assert main.main(["--mode=export", f"--set={done[0]}", f"--to={tmp_path / 'x.npz'}"]) == 0
    ours, theirs = jdd.load(tmp_path / "x.npz"), jdd.load(done[0] / "distilled.npz")
    np.testing.assert_array_equal(ours.images, theirs.images)


def test_a_typed_config_is_validated_and_names_its_run():
    config = jdd.make_config("dm:digits", ipc=2, eval={"n": 3})
    assert (config.method, config.ipc, config.eval.n, config.batch_real) == ("dm", 2, 3, 64)
    more = api._loaded(dataclasses.replace(config, ipc=5), {"seed": 4})
    assert more.config == jdd.make_config("dm:digits", ipc=5, eval={"n": 3}, seed=4)
    assert {"ipc", "seed", "eval.n", "data.name"} == more.explicit and more.spec == "dm"
    with pytest.raises(BadInput, match=r"config\.ipc"):
        api._loaded(dataclasses.replace(config, ipc=0), {})
    with pytest.raises(BadInput, match=r"experts\.count"):
        jdd.make_config("dm:digits", **{"experts.count": 3})
    with pytest.raises(BadInput, match="did you mean"):
        jdd.make_config("dm:digits", ipcc=3)
    # The keys are those of one method: another name would run it under that name.
    for other, more in (
        (config, {"method": "mtt"}),
        (dataclasses.replace(config, method="mtt"), {}),
    ):
        with pytest.raises(BadInput, match=r"config\.method: mtt, in a config of DM"):
            api._loaded(other, more)
    with pytest.raises(BadInput, match="config: dict"):
        jdd.distill({"method": "dm"})
    with pytest.raises(BadInput, match=r"config\.data\.name"):  # a path is read as its text
        jdd.distill(Path("configs/dm.py"))


def test_metrics_survive_a_cut_line_and_forget_what_is_done_again(tmp_path):
    metrics = Metrics(tmp_path)
    for step in (1, 2, 3):
        metrics.log("distill", step, loss=float("nan") if step == 2 else 1.0)
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "distill", "st')
    metrics = Metrics(tmp_path)
    metrics.truncate("distill", 2)
    metrics.log("distill", 2, loss=5.0)  # there already: not written twice
    metrics.log("distill", 3, loss=2.0)
    metrics.close()
    rows = read(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, None), (3, 2.0)]


def test_the_evaluation_of_a_diverged_runs_set_says_so(done, tiny, tmp_path, capsys):
    dset = DistilledSet.load(done[0] / "distilled.npz")
    record = {"diverged": {"step": 4, "cause": "the images became infinite or NaN"}, "steps": 3}
    file = dset.with_recipe(dset.recipe | record).save(tmp_path / "bad.npz")
    own = ["eval.n=1", "eval.epochs=1", "baselines.random=0", "baselines.full=false", "devices=1"]
    words = ["--mode=evaluate", f"--set={file}", f"--workdir={tmp_path / 'e'}"]
    assert main.main([*words, *(f"--config.{key}" for key in own)]) == 0
    assert (
        "--set: the run that made it diverged at step 4 (the images became infinite or NaN); this "
        "is the set of step 3\n"
    ) in capsys.readouterr().out
    page = tmp_path / "e/report.html"
    assert "distilled.npz: the run that made it" in page.read_text()
    page.unlink()  # an evaluation's report is rewritten from its files
    again = ["--mode=report", f"--workdir={tmp_path / 'e'}"]
    assert main.main(again) == 0 and f"Report: {page}" in capsys.readouterr().out
    assert "distilled.npz: the run that made it" in page.read_text()
    assert main.main([*again, "--config.eval.n=2"]) == 2
    assert "config.eval.n: given for the report" in capsys.readouterr().err
    (tmp_path / "e/result.json").unlink()
    assert main.main(again) == 2 and "has no result yet" in capsys.readouterr().err


def test_a_report_is_rewritten_by_its_own_directorys_config(done, tmp_path, capsys):
    place = tmp_path / "copy"
    shutil.copytree(done[0], place)
    before = json.loads((place / "result.json").read_text())
    config = (place / "config.json").read_bytes()
    (place / "report.html").unlink()
    assert main.main(["--mode=report", f"--workdir={place}"]) == 0
    assert (place / "report.html").exists() and "Report: " in capsys.readouterr().out
    after = json.loads((place / "result.json").read_text())
    assert after["command"] == before["command"] and after["accuracy"] == before["accuracy"]
    assert (place / "config.json").read_bytes() == config
    refused = ["--mode=report", f"--workdir={place}", "--config.lr_img=3"]
    assert main.main(refused) == 2 and "config.lr_img was" in capsys.readouterr().err
    saved = json.loads(config) | {"method": "class_means"}
    json_files.write(place / "config.json", saved)
    assert main.main(refused[:2]) == 2 and "--config=FILE with it" in capsys.readouterr().err
