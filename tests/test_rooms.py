"""The order of rooms: a module imports only from rooms that stand before its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "jdd"

# A room is a folder of jdd/, a file there, or a part of a folder that is listed by itself. Each may
# import from itself and from the rooms it lists, all of which stand before it: so there are no
# circles. Imports inside functions count too. Those of a room that the longest name matches.
ROOMS: dict[str, str] = {
    "errors": "",
    "rng": "",
    "stages/registry": "errors",  # light: neither JAX nor NumPy
    "config/rules": "",  # light
    "training/option": "",  # light
    "training/schedules": "training/option",  # light
    "training/printed": "training/option",  # light
    "training/recipe": "training/option training/printed training/schedules",  # light
    "schema": "errors training/option training/printed training/recipe training/schedules",  # light
    "storage": "errors",
    "memory": "errors storage",
    "nets/bert": "",  # a pure function, of which data makes text vectors
    "data": "errors memory nets/bert rng schema storage",
    "augment": "errors",
    "generative/diffusion": "",  # nets/priors.py samples by it
    "nets": "config/rules errors generative/diffusion",
    "specs": "augment data errors nets schema stages/registry",  # light
    "config": "augment config/rules data errors nets schema specs stages/registry storage",
    "parallel": "data errors",
    "matching": "data errors nets parallel",
    "generative": "errors generative/diffusion matching rng",
    "product": "data errors memory nets rng storage training/recipe",
    "run/metric_lines": "errors storage",
    "run/metrics": "errors run/metric_lines storage",
    "run/options": "",  # light
    "run/flags": "errors run/options storage",  # light
    "run/output": "",  # light
    "run/signals": "",  # light
    "run/crash": "",  # light
    "run/profile": "",  # light
    "run/session": "errors run/metrics run/options run/output run/profile run/signals storage",
    "soft_labels": "augment errors matching nets parallel product storage training/recipe",
    "training": "augment data errors matching nets parallel run/session training/printed "
    "training/recipe",
    "meta": "errors parallel training",
    "evaluation": "augment data errors nets parallel product rng run/session soft_labels training "
    "training/option training/printed training/recipe training/schedules",
    "tasks": "data errors evaluation nets run/session",
    "pretrained": "augment data errors evaluation matching nets parallel rng run/session schema "
    "storage tasks training training/recipe training/schedules",
    "methods": "augment data errors evaluation generative generative/diffusion matching meta nets "
    "parallel pretrained product rng schema soft_labels specs storage training training/option "
    "training/recipe training/schedules",
    "report": "config/rules data errors evaluation product run/metric_lines run/metrics schema "
    "specs stages/registry storage training/printed training/recipe training/schedules",
    "interop": "augment data errors evaluation matching memory nets product report rng "
    "soft_labels storage",
    "run/divergence": "config errors methods rng schema",
    "run/milestones": "methods run/divergence storage",
    "run/loop": "errors methods parallel rng run/divergence run/metrics run/milestones run/session "
    "schema stages/registry storage",
    "run/context": "config data errors methods nets parallel pretrained product rng schema "
    "stages/registry storage training/recipe",
    "run/team": "errors methods parallel run/loop run/session",
    "stages": "augment config config/rules data errors evaluation generative matching memory "
    "methods nets parallel pretrained product report rng run/context run/divergence run/loop "
    "run/milestones run/session run/team schema soft_labels specs stages/registry storage tasks "
    "training training/recipe training/schedules",
    "run": "config data errors evaluation interop memory methods nets parallel product report "
    "run/context run/metric_lines run/metrics run/options run/session schema specs stages "
    "stages/registry storage tasks training/recipe",
    "studies": "config data errors memory report run run/context run/crash run/options run/session "
    "run/signals schema specs storage training/printed",
    "api": "config data errors interop memory product report run schema storage studies",
    "main": "api config data errors memory run run/crash run/flags run/options run/output "
    "run/signals stages/registry storage studies",
    "__init__": "api",
    "__main__": "main",
}
# Imported inside functions: what --help and mistakes of the command line do not wait for.
LATE = {"main", "__init__", "config", "specs"}


def room(module: str) -> str:
    """Return the room of a module, ``nets/conv``; '' for jdd itself, which holds the version."""
    found = [name for name in ROOMS if module == name or module.startswith(f"{name}/")]
    return max(found, key=len, default="")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the modules of jdd that a file imports, and whether it does so inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    typed = {id(node) for block in tree.body if _typing(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in typed:  # not at run time
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            head, _, rest = name.partition(".")
            if head == "jdd" and rest != "__version__":
                yield rest.replace(".", "/"), id(node) not in top


def files() -> Iterator[tuple[Path, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        module = path.relative_to(ROOT).with_suffix("").as_posix()
        yield path, room(module.removesuffix("/__init__"))


def _typing(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_every_module_has_a_room() -> None:
    assert [str(path) for path, own in files() if not own] == []
    assert set(ROOMS) == {own for _, own in files()}


def test_a_room_may_import_only_from_rooms_before_it() -> None:
    seen: set[str] = set()
    for name, allowed in ROOMS.items():
        assert set(allowed.split()) <= seen, f"{name} may import from rooms that stand after it"
        seen.add(name)


def test_imports_are_those_of_the_table() -> None:
    used: dict[str, set[str]] = {name: set() for name in ROOMS}
    wrong = []
    for path, own in files():
        for module, late in imports(path):
            other = room(module)
            used[own] |= {other} - {own}
            if other != own and other not in ROOMS[own].split():
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
            if late and own not in LATE:
                wrong.append(f"{path.relative_to(ROOT)} imports {module} inside a function")
    for name, allowed in ROOMS.items():
        spare = set(allowed.split()) - used[name]
        wrong += [f"{name} does not import {other}: take it out" for other in sorted(spare)]
    assert not wrong, "\n".join(wrong)
