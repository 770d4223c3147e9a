"""Templates: in the package, escaped, strict, and loaded only where a page is rendered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

import jdd.report
from jdd.report import templating
from jdd.report.html import Html, tag

FOLDER = Path(jdd.report.__file__).parent


def test_every_template_of_the_package_compiles() -> None:
    names = sorted(path.name for path in (FOLDER / "templates").iterdir())
    assert "report.html" in names and "comparison.html" in names
    for name in names:
        assert templating._environment().get_template(name).name == name


def page(**values: object) -> str:
    headline = {"eyebrow": "", "sentence": [], "boxes": []}
    known = {"title": "", "headline": headline, "unfinished": [], "other_folders": []}
    known |= {"sections": [], "origins": [], "version": "", "plots": [], "rankings": []}
    return templating.render("comparison.html", **known | values)


def test_values_are_escaped_except_markup() -> None:
    evil = {"title": "<script>", "about": '"&', "command": tag("svg")}
    text = page(title="</title><script>", origins=[evil])
    assert "&lt;/title&gt;&lt;script&gt;" in text and "<script" not in text
    assert "&#34;&amp;" in text and "<svg></svg>" in text
    assert Html("<b>").__html__() == "<b>"


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="version"):
        templating.render("document.html", title="")


def test_positions_lie_on_the_scale() -> None:
    assert [templating.place(v) for v in (-0.1, 0.5, 1.2)] == ["0.00%", "50.00%", "100.00%"]


def test_help_does_not_import_the_template_engine() -> None:
    code = (
        "import sys; from jdd import main; main.main(['--help']); "
        "print(sorted({'jinja2', 'matplotlib', 'jax', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER.parents[1]
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_markup_is_in_templates_only() -> None:
    charts = {"svg.py", "html.py"}  # SVG is drawn in Python
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert path.name in charts or ("tag(" not in text and "</" not in text), path.name
