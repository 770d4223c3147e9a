"""Specs: found by their files, importable without JAX, and refused in one line when broken."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from jdd import specs
from jdd.config import AUTO, Common, flat, group, load, option, replace, resolve
from jdd.data import DEFAULTS
from jdd.errors import BadInput
from jdd.methods import METHODS
from jdd.schema.common import FALLBACK, Data
from jdd.schema.key import keys_of
from jdd.specs import Spec, dc, dsa, mtt
from jdd.specs.base import validate_spec

ROOT = Path(__file__).parents[2]


def test_a_method_is_found_by_its_file() -> None:
    files = {path.stem for path in (ROOT / "jdd/specs").glob("*.py")} - {"__init__", "base"}
    assert set(METHODS) == set(specs.names()) == files
    for name in specs.names():
        spec = specs.get(name)
        assert spec.name == name and spec.make == f"jdd.methods.{name}:make"
        assert callable(spec.module.make)
    with pytest.raises(BadInput, match="did you mean mtt"):
        specs.get("mtr")


def test_specs_need_neither_jax_nor_numpy_nor_the_config_files() -> None:
    code = (
        "import sys; from jdd import specs; [specs.get(name) for name in specs.names()]; "
        "sys.exit(bool({'jax', 'numpy', 'jdd.config'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_config_files_say_only_what_they_set() -> None:
    for path in (ROOT / "configs").glob("*.py"):
        code = path.read_text(encoding="utf-8").rpartition('"""\n\nfrom jdd.config import')[2]
        assert code.startswith(" from_arg\n") and len(code.splitlines()) < 18, path


def test_families_share_values_by_imports() -> None:
    assert dsa.SPEC.derived is dc.LOOP_RULES and dsa.SPEC.config is dc.Matching
    assert issubclass(specs.get("tesla").config, mtt.Config)
    assert specs.get("tesla").keys["estimator"].default == "tesla"
    assert specs.get("datm").keys["eval.batch"].default == 128


def test_the_loader_has_the_defaults_of_the_keys() -> None:
    declared = {name: key.default for name, key in keys_of(Data).items()}
    told = {name for name, value in DEFAULTS.items() if value != declared[name]}
    assert set(DEFAULTS) == set(declared) and told == {"name", "zca"}
    assert declared["zca"] == AUTO and DEFAULTS["zca"] == FALLBACK["data.zca"] == "none"


# --- the typed config -----------------------------------------------------------------------------


def test_a_config_is_typed_and_frozen() -> None:
    config, _ = resolve(load("ftd:cifar10,ipc=10").config)
    assert isinstance(config, mtt.Config) and config.spec is specs.get("ftd")
    assert type(config.experts.lr) is float and type(config.syn_steps) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ipc = 3  # type: ignore[misc]
    other = replace(config, {"experts": {"lr": "0.1"}, "ipc": "2"})
    assert (other.experts.lr, other.ipc, config.ipc) == (0.1, 2, 10)
    assert other.spec is config.spec and replace(other, {"experts.lr": 0.01, "ipc": 10}) == config
    assert list(flat(config)) and "_spec" not in flat(config)


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = option(3, "a size", minimum=1)


@dataclasses.dataclass(frozen=True)
class Mine(Common):
    inner: Inner = group(Inner, size=5)
    rate: float = option(AUTO, "a rate", above=0)


def test_a_key_is_one_declaration() -> None:
    found = keys_of(Mine)
    assert found["inner.size"].default == 5 and found["inner.size"].type is int
    assert found["rate"].auto and found["rate"].type is float and found["rate"].above == 0
    assert list(found)[-2:] == ["inner.size", "rate"]


# --- broken specs ---------------------------------------------------------------------------------


def spec(**changes: object) -> Spec:
    return Spec(**({"name": "mine", "make": "mine:make", "config": Mine} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"name": "my method"}, ["SPEC.name", "letters"]),
        ({"make": "mine.make"}, ["SPEC.make", "'module:function'"]),
        ({"config": Inner}, ["SPEC.config", "a subclass of Common"]),
        ({"validate": 3}, ["SPEC.validate", "a function"]),
        ({"stages": "distill"}, ["SPEC.stages", "a tuple of names"]),
        ({"defaults": 3}, ["SPEC.defaults", "a dict"]),
        ({"defaults": {"rat": 1.0}}, ["SPEC.defaults", "config.rat", "did you mean config.rate?"]),
        ({"defaults": {"rate": 0.0}}, ["SPEC.defaults", "config.rate", "above 0"]),
        ({"starts": {"digits": {"inner.size": 0}}}, ["SPEC.starts['digits']", "config.inner.size"]),
        ({"published": {("mnist", 1): 0.9}}, ["SPEC.published[('mnist', 1)]", '"values"']),
        ({"derived": {"rte": len}}, ["SPEC.derived", "config.rate"]),
    ],
)  # fmt: skip
def test_a_broken_spec_is_one_line_naming_file_and_field(
    changes: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(BadInput) as caught:
        validate_spec(spec(**changes), "mine.py")
    text = str(caught.value)
    assert text.startswith("mine.py: SPEC") and "\n" not in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "text, words",
    [
        ("SPEC = 3", ["SPEC is of type int", "Spec("]),
        (
            "from jdd.specs import Spec\nSPEC = Spec('mtt', 'a:b')",
            ["SPEC.name", "no method of jdd"],
        ),
        ("import nowhere", ["ModuleNotFoundError", "(line 1)"]),
        (
            "import dataclasses\nfrom jdd.config import Common\nfrom jdd.specs import Spec\n"
            "@dataclasses.dataclass(frozen=True)\nclass Config(Common):\n    rate: float = 3.0\n"
            "SPEC = Spec('mine', 'a:b', config=Config)",
            ["SPEC.config", "Config.rate", "option(default"],
        ),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        load(f"{path}:digits")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_make_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("def make(config, problem): ...")
    config = tmp_path / "mine.py"
    for make, words in (("nowhere:make", "nowhere"), ("code:build", "no such function")):
        config.write_text(f"from jdd.specs import Spec\nSPEC = Spec('mine', {make!r})")
        with pytest.raises(BadInput, match=words):
            _ = load(f"{config}:digits").config.spec.module
    config.write_text("from jdd.specs import Spec\nSPEC = Spec('mine', 'code:make')")
    found = load(f"{config}:digits").config.spec.module
    assert found.__file__ == str(tmp_path / "code.py")  # the file next to it
