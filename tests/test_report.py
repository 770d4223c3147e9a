"""The report: all of a run on one page, whatever there is of it, and nothing that runs or loads."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from jdd import report
from jdd.errors import BadInput
from jdd.report import html, svg
from tests.tiny_distilled import make

THIN = " "  # of the page's words, in which any space is one space


class Page(HTMLParser):
    """Checks that tags close in order; collects text, tags and addresses."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        self.words = " ".join(" ".join(self.text).split())
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        if name not in ("img", "meta", "br"):
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def count(self, name, css=None):
        return sum(n == name and (css is None or a.get("class") == css) for n, a in self.tags)


def _score(mean, n=5):
    values = [mean + 0.01 * (i - (n - 1) / 2) for i in range(n)]
    return {"mean": mean, "std": 0.0141 if n > 1 else None, "n": n, "values": values}


def _rows(suffix=""):
    rows = []
    for step in range(0, 1000, 2):
        rows.append({"stage": f"distill{suffix}", "step": step, "seconds": 1.0})
        rows[-1] |= {"loss": 1 / (1 + step), "lr": 0.02 + step * 1e-5}
    for step in (0, 500, 1000):
        rows.append({"stage": f"curve{suffix}", "step": step, "seconds": 1.0, "net": "ConvNet"})
        rows[-1] |= {"accuracy": 0.7 + step * 2e-4, "std": 0.01, "n": 2}
    return rows


RESULT = {
    "method": "mtt",
    "dataset": "digits",
    "ipc": 2,
    "seed": 3,
    "accuracy": {"AlexNet": _score(0.5), "ConvNet": _score(0.912)},
    "baselines": {
        "random": _score(0.704) | {"net": "ConvNet"},
        "full": {"mean": 0.989, "std": None, "n": 1, "epochs": 50, "net": "ConvNet"},
    },
    "published": {
        "accuracy": 0.9,
        "std": 0.02,
        "source": "A & B 2022; of another copy",
        "protocol_differs": ["steps"],
    },
    "seconds": {"experts": 19.2, "distill": 15.8, "full": 700.0},
    "peak_memory_bytes": {"process": 1.2e9, "xla_temporaries": {"distill": 163e6}},
    "device": "1 x cpu",
    "versions": {"jdd": "0.1.0", "jax": "0.10.2"},
    "command": "python -m jdd.main --config.x='<b>'",
    "notes": ["a lossy copy"],
}


def _write(workdir, result=None, rows=(), dataset=None, config=None) -> Page:
    if dataset is not None:
        dataset.save(workdir / "distilled.npz")
    if result is not None:
        (workdir / "result.json").write_text(json.dumps(result))
    if config is not None:
        (workdir / "config.json").write_text(json.dumps(config))
    if rows:
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    path = report.write(workdir)
    assert path == workdir / "report.html"
    assert sorted(p.suffix for p in workdir.iterdir() if p.name.startswith(".")) == []
    return Page(path.read_text(encoding="utf-8"))


def _set(**known):
    return make(dataset="digits", names=("zero", "one", "two"), **known)


def test_a_whole_run(tmp_path):
    page = _write(tmp_path, RESULT, _rows(), _set(), {"method": "mtt", "ipc": 2})
    headline = f"train a ConvNet to 91.2{THIN}% — the same net reaches 70.4{THIN}% on random images"
    headline += f", 98.9{THIN}% on the whole training set"
    assert f"6 images , two per class, {headline}".replace(" ", "") in page.words.replace(" ", "")
    for words in (
        f"91.2{THIN}±{THIN}1.4{THIN}%",
        "+20.8",
        "A & B 2022",
        "a lossy copy",
        "Published: of another copy; this run differs from its protocol in steps.",
        "5 draws, ConvNet",
        "1 net, 50 epochs, ConvNet",
        f"163{THIN}MB",
        f"11{THIN}min 40{THIN}s",
        "Cross-architecture",
        "Every setting",
        "range(1000 + 1)",
        "whole training set 98.9",
        "log scale",
        "MTT · digits · 2 images per class · seed 3",
        "--config.x='<b>'",
    ):
        assert words in page.words, words
    assert page.count("img") == 6 and page.count("svg") == 3
    # The net the set was made with stands first.
    assert page.words.index("ConvNet distilled with it") < page.words.index("AlexNet")


def test_an_attack_is_told_by_its_own_figures(tmp_path):
    aim = {"kind": "attack", "attack_class": 1, "target_class": 0}
    names = {"attack_name": "one", "target_name": "zero"}
    parts = {"success": _score(0.9), "others": _score(0.8)}
    before = _score(0.95) | {"success": _score(0.02), "others": _score(0.96)}
    accuracy = {"ConvNet": _score(0.55) | parts | {"before": before}}
    random = {"random": _score(0.6) | {"success": _score(0.31), "others": _score(0.42)}}
    result = RESULT | {"objective": aim | names, "accuracy": accuracy, "baselines": random}
    dset = _set()
    page = _write(tmp_path, result, (), dset._replace(recipe=dset.recipe | {"objective": aim}))
    headline = f"a trained ConvNet takes 90.0{THIN}% of one for zero"
    assert headline.replace(" ", "") in page.words.replace(" ", "")
    assert "VGG11" not in page.words and "Cross-architecture" not in page.words
    row = page.words.partition("Images of the other classes, labelled right")[2]
    row = row.partition("What the steps change")[2]
    for figure in ("2.0", "90.0", "31.0", "96.0", "80.0", "42.0", "95.0", "55.0", "60.0"):
        assert f"{figure}{THIN}±" in row, figure


def test_nets_that_were_trained_before_are_not_called_fresh(tmp_path):
    accuracy = {"ConvNet": _score(0.8) | {"before": _score(0.6)}}
    aim = {"kind": "adapt", "source": "mnist"}
    page = _write(tmp_path, RESULT | {"objective": aim, "accuracy": accuracy}, (), _set())
    assert "Before the steps" in page.words and "trained on mnist before" in page.words
    assert "fresh" not in page.words and f"60.0{THIN}±" in page.words


def test_nothing_is_loaded_and_nothing_runs(tmp_path):
    evil = make(names=("<script>alert(1)</script>", '"><img src=x>', "&"))
    page = _write(tmp_path, RESULT, _rows(), evil)
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:|@import|url\(|javascript:", text)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form"}
    assert all(a["src"].startswith("data:image/png;base64,") for n, a in page.tags if n == "img")
    assert not any(key.startswith("on") for _, a in page.tags for key in a)
    assert any("default-src 'none'" in a.get("content", "") for n, a in page.tags if n == "meta")
    assert "<script>alert(1)</script>" in page.words  # as text


def test_one_net_has_no_spread_and_one_point_is_no_curve(tmp_path):
    result = {"accuracy": {"MLP": {"mean": 0.9, "std": 0.0, "n": 1, "values": [0.9]}}}
    rows = [{"stage": "distill", "step": 1, "loss": 0.5}]
    page = _write(tmp_path, result, rows, _set())
    assert f"train an MLP to 90.0{THIN}%".replace(" ", "") in page.words.replace(" ", "")
    assert f"{THIN}±" not in page.words.replace("mean ±", "")
    assert page.count("svg") == 0 and "not measured in this run" in page.words


def test_several_synthesis_seeds(tmp_path):
    seeds = {"3": _score(0.91), "4": _score(0.93)}
    result = RESULT | {"accuracy": {"ConvNet": _score(0.92, 10) | {"seeds": seeds}}}
    page = _write(tmp_path, result, _rows() + _rows("-s4"), _set())
    assert "10 fresh ConvNets, 2 synthesis seeds" in page.words
    assert f"all seeds 92.0{THIN}±{THIN}" in page.words
    assert "ConvNet, seed 3" in page.words and "ConvNet, seed 4" in page.words


@pytest.mark.parametrize(
    "kind, zca",
    [
        ("probabilities", "kip"),
        ("probabilities", "none"),
        ("logits", "kornia"),
        ("centred", "none"),
        ("centred", "frepo"),
    ],
)
def test_the_snippets_fit_the_set_and_run(tmp_path, monkeypatch, kind, zca):
    torch = pytest.importorskip("torch")
    import numpy as np

    from jdd.report.evidence import gather
    from jdd.report.recipe import table as recipe
    from jdd.report.replay import plain
    from jdd.report.snippets import numpy as numpy_code

    dataset = make(kind=kind, zca=zca)
    dataset.recipe["train"]["passes"] = 3
    if zca == "frepo":
        schedule = {"kind": "warmup_cosine", "warmup": 500, "final": 0.01}
        own = {"optimizer": "adam", "steps": 8, "drop": None, "schedule": schedule}
        dataset.recipe["train"] |= own | {"loss": "squared_error"}
    dataset.save(tmp_path / "distilled.npz")
    monkeypatch.chdir(tmp_path)
    evidence = gather(tmp_path)
    names: dict = {"pixels": dataset.transform.inverse(dataset.images)}
    exec(numpy_code(evidence), names)
    first = names["z"]
    np.testing.assert_allclose(names["x_test"], dataset.images, atol=1e-4)
    names["net"] = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    exec(plain(evidence), names)
    for opened in (first, names["z"]):  # as a script leaves them: until it ends
        opened.close()
    assert torch.isfinite(names["loss"])
    if zca == "frepo":
        from jdd.training.schedules import from_json

        found = [names["rate"](t) for t in range(8)]
        np.testing.assert_allclose(found, from_json(schedule).rates(1.0, 8), rtol=1e-5, atol=1e-6)
        wanted = 0.5 * (names["net"](names["x"]) - names["y"]).square().sum(1).mean()
        assert abs(wanted - names["loss"]) < 0.1 * wanted
        assert "4 steps of linear warm-up, then a cosine to 0.01" in str(recipe(evidence))


def test_what_is_missing_is_said(tmp_path):
    page = _write(tmp_path, dataset=_set())
    assert "Not evaluated yet" in page.words and "No curves" in page.words
    assert "distilled from digits" in page.words
    (tmp_path / "distilled.npz").write_bytes(b"PK half")
    (tmp_path / "result.json").write_text("{")
    (tmp_path / "metrics.jsonl").write_text('{"stage": "distill", "step": 1, "loss": 0.5}\n{"sta')
    page = Page(report.write(tmp_path).read_text())
    assert "distilled set cannot be read" in page.words
    assert "result.json cannot be read" in page.words
    with pytest.raises(BadInput, match="no such folder"):
        report.write(tmp_path / "absent")


def test_an_empty_workdir_and_odd_values(tmp_path):
    assert "not finished yet" in _write(tmp_path).words
    odd = {"accuracy": {"A": {"mean": "high"}, "B": 3, "C": {"mean": 0.5}}, "baselines": None}
    odd |= {"seconds": {"experts": None}, "published": {"accuracy": None}, "notes": 3}
    rows = [{"stage": "distill", "step": i, "loss": None, "lr": "x"} for i in range(3)]
    page = _write(tmp_path, odd, rows, _set())
    assert f"train a C to 50.0{THIN}%".replace(" ", "") in page.words.replace(" ", "")


def test_many_images_are_cut_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr("jdd.report.pictures.BUDGET", 48 * 6)
    page = _write(tmp_path, dataset=make(ipc=4))
    assert page.count("img") == 6 and "3 classes, 2 images of each" in page.words


def test_long_curves_are_thinned_and_keep_their_ends():
    line = svg.thin("loss", range(5000), [float(i) for i in range(5000)])
    assert len(line.x) == svg.POINTS and (line.x[0], line.x[-1]) == (0, 4999)
    assert line.low[0] == 0 and line.high[-1] == 4999
    drawn = svg.chart([line], title="t", x_label="step", y_label="")
    numbers = [
        float(v) for v in re.findall(r"[-\d.]+", " ".join(re.findall('points="(.*?)"', drawn)))
    ]
    assert all(0 <= v <= svg.WIDTH for v in numbers)


def test_numbers_in_words():
    thin = html.THIN
    assert html.percent(0.9123) == f"91.2{thin}%"
    assert html.mean_std(0.9, 0.1, 1) == html.mean_std(0.9, None, 5) == f"90.0{thin}%"
    assert [html.number(v) for v in (5000, 0.0102, 1e-7, 0.5)] == ["5000", "0.0102", "1e-07", "0.5"]
    assert html.duration(3725) == f"1{thin}h 02{thin}min" and html.size(163e6) == f"163{thin}MB"
    assert html.plural(1, "image") == "1 image" and html.plural(2000, "x") == f"2{thin}000 xs"
    assert html.tag("a", "<", html.tag("b"), title='"', cls="c") == (
        '<a title="&quot;" class="c">&lt;<b></b></a>'
    )


def test_a_run_that_is_not_finished_shows_its_last_saved_set(tmp_path):
    _set().save(tmp_path / "unfinished.npz")
    page = _write(tmp_path, rows=_rows())
    assert page.count("img") == 6 and "while distilling digits: not finished yet" in page.words
    assert "the images are those of its last saved step, unfinished.npz" in page.words
    assert "import numpy" not in page.words  # it is no set to be trained on
    _set().save(tmp_path / "distilled.npz")
    assert "not finished yet" not in _write(tmp_path, rows=_rows()).words


@pytest.mark.parametrize("net", ["ConvNet", "ConvNetASwishBN", "ResNet18"])
def test_the_torch_program_defines_its_net_and_prints_an_accuracy(tmp_path, net):
    dataset = _set()
    dataset.recipe["net"] = {"name": net, "options": {"width": 8, "depth": 1}}
    page = _write(tmp_path, RESULT, _rows(), dataset)
    for words in ("nn.Conv2d(i,", "nn.LazyLinear(3)", "test accuracy", "data.load(recipe"):
        assert words in page.words
    if net == "ResNet18":
        assert "in place of ResNet18" in page.words and "nn.Conv2d(i, 128" in page.words
    else:
        assert f"# {net}" in page.words and "nn.Conv2d(i, 8, 3" in page.words


def test_reference_lines_are_named_in_the_legend(tmp_path):
    page = _write(tmp_path, RESULT, _rows(), _set())
    text = (tmp_path / "report.html").read_text()
    assert '<li><u class="m0"></u>random images' in text and 'class="mark m0"' in text
    assert 'class="halo' not in text and page.count("svg")
