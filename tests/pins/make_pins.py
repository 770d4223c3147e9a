"""Makes the pins, or adds this machine's bits to them.

    python -m tests.pins.make_pins                        on another machine: adds its bits
    python -m tests.pins.make_pins --overwrite mtt dc     pins these cases anew; without names, all
    python -m tests.pins.make_pins --halfway --overwrite  stops runs halfway anew

Bits are added only where all that a machine does not change, and the arrays within the tolerance,
are as pinned. Nothing that is pinned is replaced without ``--overwrite``; that drops the bits of
these cases on other machines, which are then added again there. ``halfway/`` holds directories of
commit b19b6ff: stopped anew, they no longer show that its runs can be resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.pins import cases, observe, pins


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--halfway", action="store_true")
    parser.add_argument("--stop", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.stop:
        stop(Path(flags.stop[0]), flags.stop[1])
        return 0
    if unknown := set(flags.cases) - set(cases.CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if flags.cases and not flags.overwrite:
        parser.error("cases are for --overwrite")
    if flags.halfway and (never := set(flags.cases) - set(pins.STOPS)):
        parser.error(f"not stopped halfway: {', '.join(sorted(never))}")
    with tempfile.TemporaryDirectory() as folder:
        if flags.halfway:
            return halfway(Path(folder), flags.cases or list(pins.STOPS), flags.overwrite)
        return make(Path(folder), flags.cases or list(cases.CASES), flags.overwrite)


def make(root: Path, names: list[str], overwrite: bool) -> int:
    """Run the cases that have no pins, under both settings of XLA's flags, and pin them."""
    pinned, exact, arrays = pins.read(pins.PINS), pins.read(pins.EXACT), pins.golden()
    for name in names if overwrite else []:
        pinned.pop(name, None)
        arrays = {key: a for key, a in arrays.items() if not key.startswith(f"{name}/")}
        for known in exact.values():
            known["cases"].pop(name, None)
    for flags in (pins.QUICK, pins.FULL):
        new = {"environment": pins.environment(flags), "cases": {}}
        own = exact.setdefault(pins.key(flags), new)["cases"]
        left = [name for name in names if name not in own]
        print(f"{len(left)} cases to pin: {new['environment']}", flush=True)
        for name, one in pins.observe(root / (flags or "full"), left, flags).items():
            if name not in pinned and "failed" not in one:
                pinned[name] = one["same"]
                arrays |= {f"{name}/{key}": a for key, a in one["floats"].items()}
            if wrong := one.get("failed") or unlike(name, one, pinned, arrays):
                print(f"{name} is not as pinned, and nothing is written:\n{wrong}")
                return 1
            own[name] = one["exact"]
    write(pins.PINS, in_order(pinned))
    write(pins.EXACT, {k: one | {"cases": in_order(one["cases"])} for k, one in exact.items()})
    np.savez_compressed(pins.GOLDEN, **{key: arrays[key] for key in sorted(arrays)})
    return 0


def in_order(found: dict[str, Any]) -> dict[str, Any]:
    """Return what is known by case in the order of the cases."""
    return {name: found[name] for name in cases.CASES if name in found}


def unlike(name: str, one: dict[str, Any], pinned: dict[str, Any], arrays: dict[str, Any]) -> str:
    """Return in what a case is not as pinned, but for its last bits; '' for nothing."""
    told = pins.changes(pinned[name], one["same"])
    return told or unlike_set(name, one, pinned, arrays)


def unlike_set(
    name: str, one: dict[str, Any], pinned: dict[str, Any], arrays: dict[str, Any]
) -> str:
    """Return in what a case's sets are not as pinned, but for their last bits; '' for nothing."""
    told = [pins.changes(pinned[name]["sets"], one["same"]["sets"])]
    own = {k.removeprefix(f"{name}/"): a for k, a in arrays.items() if k.startswith(f"{name}/")}
    told.append(pins.changes(sorted(own), sorted(one["floats"])))
    if not any(told):
        floats, rounding = one["floats"], cases.CASES[name].rounding
        told += [f"{k}: {words}" for k in own if (words := pins.far(own[k], floats[k], rounding))]
    return "\n".join(words for words in told if words)


def write(path: Path, value: Any) -> None:
    """Write JSON that is read and compared by people too."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def halfway(root: Path, names: list[str], overwrite: bool) -> int:
    """Stop each of the runs halfway and pack what it leaves."""
    observe.HALFWAY.mkdir(exist_ok=True)
    for name in names:
        path = observe.HALFWAY / f"{name}.zip"
        if path.exists() and not overwrite:
            print(f"{path} is there, and kept")
            continue
        process = pins.start(root, pins.QUICK, "tests.pins.make_pins", "--stop", str(root), name)
        output = process.communicate()[0]
        if process.returncode:
            print(output)
            return 1
        pack(root / name / cases.WORKDIR, path)
        print(f"{path}: {path.stat().st_size} bytes")
        write(pins.STOPPED_BY, {"environment": pins.key(pins.QUICK)})
    return 0


def stop(root: Path, name: str) -> None:
    """Run a case in this process and interrupt it once the path of ``pins.STOPS`` is complete.

    Raises:
      RuntimeError: it was not interrupted.
    """
    wanted = str(root / name / cases.WORKDIR / pins.STOPS[name])

    def hook(event: str, args: Any) -> None:
        if event == "os.rename" and os.fspath(args[1]) == wanted:
            signal.raise_signal(signal.SIGINT)

    sys.addaudithook(hook)
    try:
        observe.run(root / name, name)
    except RuntimeError as error:
        if "exit code 130" not in str(error):
            raise
    else:
        raise RuntimeError(f"{name} was not interrupted: no {wanted} appeared")


def pack(workdir: Path, path: Path) -> None:
    """Write all files of a working directory but its lock to a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(workdir.rglob("*")):
            if file.is_file() and file.name != ".lock":
                archive.write(file, file.relative_to(workdir))


if __name__ == "__main__":
    sys.exit(main())
