"""The registry of stages: what derives from it is what there is, and nothing else names a stage."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jax

from jdd import config
from jdd.config.helptext import help_text
from jdd.run import pipeline, sequence
from jdd.stages import registry

ROOT = Path(__file__).resolve().parents[1]


def test_every_entry_has_its_stage() -> None:
    for entry in registry.STAGES:
        stage = registry.load(entry.module)
        assert stage.name == entry.name
        assert set(entry.inputs) <= set(registry.NAMES)
        assert pipeline.STAGES[entry.name].inputs == entry.inputs
    assert registry.MAKERS == ("distill", "recover")
    assert registry.BUILDERS == (*("experts", "squeeze", "probe", "distill", "recover", "relabel"),)


def test_identities_leave_out_what_they_always_did() -> None:
    """Sets on disk are found again by their identity: these words are fixed."""
    assert set(registry.APART) == {
        "eval.", "baselines.", "experts.dir", "data.path", "data.source", "squeeze.dir",
        "relabel.", "post.",
    }  # fmt: skip


def test_names_in_the_metrics() -> None:
    assert registry.curve("distill") == "curve" and registry.curve("recover-s3") == "curve-s3"
    assert registry.curve("prior") == "prior" and registry.curve("distiller") == "distiller"
    order = ["experts", "squeeze-ConvNet", "distill-s1", "recover", "relabel", "evaluate", "full"]
    assert sorted(reversed(order), key=registry.position) == order
    assert registry.position("prior") == registry.position("distill")


def test_help_and_documentation_have_every_mode() -> None:
    words = help_text(None, {})
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    for name, line in registry.MODES.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", words, re.M), name
        assert name == "all" or name in rows, f"no table in README.md or docs/ has the mode {name}"


def test_the_registry_needs_neither_jax_nor_numpy() -> None:
    code = "import sys, jdd.stages.registry; print(*{'jax', 'numpy', 'jaxlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_no_module_lists_the_stages_again() -> None:
    """A list of three stages or more is the registry's, but for those of methods."""
    word = "|".join(registry.NAMES)
    several = re.compile(rf"""(["'](?:{word})["'],?\s*){{3,}}""")
    free = ("jdd/stages/registry.py", "jdd/config/files.py", "jdd/specs/")
    for path in sorted((ROOT / "jdd").rglob("*.py")):
        if not path.relative_to(ROOT).as_posix().startswith(free):
            assert not several.search(path.read_text(encoding="utf-8")), path


def test_stages_that_learn_no_images_have_a_precision_of_their_own() -> None:
    def of(stage: str, **keys: str) -> str:
        with sequence.precision(config.load("dim", keys).config, stage):
            return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]

    assert {of(stage) for stage in ("experts", "distill", "evaluate")} == {"highest"}
    keys = {"precision": "high", "train_precision": "default"}
    assert {of(stage, **keys) for stage in ("distill", "recover", "probe")} == {"high"}
    assert {of(stage, **keys) for stage in ("experts", "squeeze", "evaluate")} == {"default"}
