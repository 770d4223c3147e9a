"""The command line: flags, exit codes, one line per error.

Exit codes: 0 done, 1 a cell of a study failed, 2 bad input (including an estimate that exceeds the
memory), 3 diverged, 4 memory ran out during the run (earlier checkpoints remain valid), 5 the disk
failed (the same), 6 an unforeseen error, whose traceback is in a file, 7 another process of the run
has ended, 130 interrupted (the checkpoint is saved).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jdd import config as config_lib
from jdd.config import listing
from jdd.config.helptext import help_text
from jdd.config.keyhelp import key_text
from jdd.errors import BadInput, JddError, nearest
from jdd.run import crash, output, signals
from jdd.run import flags as flags_of
from jdd.run.options import Options
from jdd.stages.registry import MODES
from jdd.storage import remote


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors in jdd's format."""

    def error(self, message: str) -> NoReturn:
        flag, _, found = message.removeprefix("argument ").partition(": ")
        raise BadInput(flag, found or "not understood", "see python -m jdd.main --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(argv)
    except KeyboardInterrupt:
        print("jdd: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        code, words = _failed(error)
        if "--debug" in argv:
            traceback.print_exception(error)
        print(f"jdd: error: {' '.join(words.split())}", file=sys.stderr)
        return code


def _failed(error: Exception) -> tuple[int, str]:
    """Return the exit code of an error, and the line for it."""
    if isinstance(error, JddError):
        return error.exit_code, str(error)
    from jdd import memory
    from jdd.storage import failures

    found: JddError | None = failures.of(error)
    if memory.exhausted(error):
        found = memory.ran_out(error, "jdd", "a smaller input, or a machine with more memory")
    if found is not None:
        return found.exit_code, str(found)
    return crash.EXIT_CODE, crash.line(error)


def _run(argv: list[str]) -> int:
    begun = time.monotonic()
    rest, overrides = split_overrides(argv)
    if rest[:1] == ["list"]:
        return _list(rest[1:])
    if rest[:1] == ["help"]:
        key = rest[1] if len(rest) > 1 and not rest[1].startswith("-") else ""
        rest = [f"--help={key}" if key else "--help", *rest[1 + bool(key) :]]
    flags = _parse(rest)
    if flags.version:
        from jdd import __version__

        print(f"jdd {__version__}")
        return 0
    if flags.help is not None:
        # A study is not a config: the keys are those of its base.
        spec = None if flags.mode == "study" else flags.config
        _print_help(_help(flags.help, spec, overrides))
        return 0
    _validate_mode(flags, overrides)
    if flags.set is not None and flags.mode not in ("evaluate", "export"):
        allowed = "--mode=evaluate and --mode=export read it"
        raise BadInput("--set", f"given with --mode={flags.mode}", allowed)
    if flags.runs is not None and flags.mode != "compare":
        raise BadInput("--runs", f"given with --mode={flags.mode}", "--mode=compare reads it")
    if flags.path is not None and flags.mode != "verify":
        raise BadInput("--path", f"given with --mode={flags.mode}", "--mode=verify reads it")
    if flags.mode == "verify":
        return _verify(flags)
    if flags.mode == "export":
        return _export(flags)
    if flags.images is not None:
        raise BadInput("--images", f"given with --mode={flags.mode}", "--mode=export reads it")
    if flags.format is not None:
        raise BadInput("--format", f"given with --mode={flags.mode}", "--mode=export reads it")
    if flags.mode == "compare":
        return _compare(flags, overrides)
    command = shlex.join(["python", "-m", "jdd.main", *flags_of.lasting(argv)])
    options = flags_of.options(flags, shlex.join(["python", "-m", "jdd.main", *argv]), begun)
    _localise(flags, overrides)
    if flags.mode == "study" or flags.mode == "estimate" and _is_study(flags):
        return _study(flags, overrides, command, options)
    if flags.mode == "report" and flags.config is None and _holds_evaluation(flags.workdir):
        return _report_of_evaluation(Path(flags.workdir), overrides)
    if flags.mode == "report" and flags.config is None and _holds_config(flags.workdir):
        loaded = config_lib.of_run(Path(flags.workdir), overrides)
        command = config_lib.command_of(Path(flags.workdir)) or command
    else:
        loaded = config_lib.load(flags.config, overrides, of_set=flags.set is not None)
    if flags.set is None:
        place = flags.workdir or config_lib.default_workdir(
            loaded.config, loaded.spec, loaded.typed
        )
        config_lib.validate_used(loaded.config, loaded.explicit, Path(place))

    # Imported late: --help and input errors do not wait for JAX.
    from jdd.run import pipeline

    _print_result(pipeline.run(loaded, flags.workdir, flags.mode, flags.set, command, options))
    return 0


def _localise(flags: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Replace URLs by local directories with the state that is there."""
    if not (remote.is_url(flags.workdir) or remote.is_url(flags.set)):
        return
    from jdd.data import cache

    folder = cache.folder(overrides.get("data.cache_dir", ""))
    if flags.workdir is not None:
        flags.workdir = str(remote.working(flags.workdir, folder))
    if flags.set is not None:
        flags.set = str(remote.reading(flags.set, folder))


def _print_result(result: Mapping[str, Any]) -> None:
    if result.get("table"):
        print(result["table"] + "\n")
    if result.get("summary"):
        print(result["summary"], flush=True)


def _holds_config(workdir: str | None) -> bool:
    """Return whether a directory holds a run, whose config is its own."""
    return workdir is not None and (Path(workdir) / "config.json").is_file()


def _holds_evaluation(workdir: str | None) -> bool:
    """Return whether a directory holds the evaluation of a set; its config may be incomplete."""
    return workdir is not None and (Path(workdir) / "checkpoints" / "set.json").is_file()


def _report_of_evaluation(directory: Path, overrides: dict[str, str]) -> int:
    if overrides:
        found = f"given for the report of the evaluation in {directory}"
        raise BadInput(
            f"config.{next(iter(overrides))}", found, "--mode=evaluate --set=... with it"
        )
    from jdd.run import external_sets

    _print_result(external_sets.rewrite_report(directory))
    return 0


def _list(words: list[str]) -> int:
    if len(words) > 1:
        raise BadInput("jdd list", " ".join(words), "one word: jdd list methods")
    _print_help(listing.lines(words[0] if words else ""))
    return 0


def _help(key: str, spec: str | None, overrides: dict[str, str]) -> str:
    """Return the help of one key, or of the command line; with a config, of its keys."""
    return key_text(key, spec, overrides) if key else help_text(spec, overrides)


def _validate_mode(flags: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Refuse a mode that is neither one of jdd's nor a phase of the config's method."""
    if flags.mode in MODES:
        return
    names = list(MODES)
    with contextlib.suppress(BadInput):  # an error in the config is reported later
        config = config_lib.load(flags.config, overrides).config
        names += [phase.name for phase in config_lib.phases(config)]
    if flags.mode not in names:
        near = nearest(flags.mode, names)
        hint = f"did you mean {near}? " if near else ""
        found = f"unknown mode {flags.mode!r}"
        raise BadInput("--mode", found, f"{hint}(modes: {', '.join(names)})")


def _export(flags: argparse.Namespace) -> int:
    for name in ("set", "to"):
        if not getattr(flags, name):
            raise BadInput(f"--{name}", "missing", "--mode=export --set=distilled.npz --to=PATH")
    from jdd import api

    if flags.format == "figures":
        print(api.export_figures(flags.set, flags.to).summary)
        return 0
    folder = not os.path.splitext(flags.to)[1]
    fmt = flags.format or ("png" if folder else None)
    print(f"written: {api.export(flags.set, flags.to, fmt, _count(flags.images))}")
    return 0


def _count(images: str | None) -> int | None:
    """Return the value of ``--images``; None if it is not given."""
    if images is None:
        return None
    if not images.isdecimal() or not int(images):
        raise BadInput("--images", repr(images), "images of each class, 1 or more")
    return int(images)


def _verify(flags: argparse.Namespace) -> int:
    if flags.path is None:
        raise BadInput("--path", "missing", "--mode=verify --path=DIR")
    from jdd.run import verify

    found = verify.verify(flags.path)
    print("\n".join(verify.words(found)), flush=True)
    if damaged := sum(one.damaged for one in found):
        allowed = "delete them, and the command that made them makes them again"
        raise BadInput(flags.path, f"{damaged} of {len(found)} damaged", allowed)
    return 0


def _compare(flags: argparse.Namespace, overrides: dict[str, str]) -> int:
    if not flags.runs:
        raise BadInput("--runs", "missing", "--mode=compare --runs=runs/a,runs/b --to=compare.html")
    for name in ("config", "workdir"):
        if getattr(flags, name) is not None:
            raise BadInput(f"--{name}", "given with --mode=compare", "--runs and --to are all")
    if overrides:
        name = next(iter(overrides))
        raise BadInput(f"config.{name}", "given with --mode=compare", "a comparison runs nothing")
    from jdd import api

    print(api.compare(flags.runs, flags.to or "compare.html")["summary"], flush=True)
    return 0


def _is_study(flags: argparse.Namespace) -> bool:
    from jdd.studies import study_file

    return study_file.is_study(flags.config)


def _study(
    flags: argparse.Namespace, overrides: dict[str, str], command: str, options: Options
) -> int:
    from jdd.studies import study_file

    study_file.read(flags.config, overrides)  # input errors do not wait for JAX
    if flags.mode == "estimate":
        from jdd.studies import study_estimate

        print(study_estimate.run(flags.config, flags.workdir, overrides)["summary"], flush=True)
        return 0
    from jdd.studies import study

    result = study.run(flags.config, flags.workdir, overrides, command, options)
    print(f"\n{result['text']}\n\n{result['summary']}", flush=True)
    return 1 if result["count"]["failed"] else 0


def _print_help(text: str) -> None:
    print(text, flush=True)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Extract ``--config.KEY=VALUE`` and ``--config.KEY VALUE`` from ``argv``; the last wins."""
    rest: list[str] = []
    overrides: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        name, equals, value = word.removeprefix("--config.").partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise BadInput(f"config.{name}", "no value", f"--config.{name}=VALUE")
            value = following
        overrides[name] = value
    return rest, overrides


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--mode", default="all")
    parser.add_argument("--workdir")
    parser.add_argument("--set")
    parser.add_argument("--runs")
    parser.add_argument("--to")
    parser.add_argument("--format")
    parser.add_argument("--images")
    parser.add_argument("--path")
    parser.add_argument("--max-seconds")
    parser.add_argument("--profile")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes")
    parser.add_argument("--process")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--help", "-h", nargs="?", const="")  # or the help of one key
    parser.add_argument("--version", action="store_true")
    flags, unknown = parser.parse_known_args(argv)
    names = [
        "config",
        "mode",
        "workdir",
        "set",
        "runs",
        "to",
        "format",
        "images",
        "path",
        "max-seconds",
        "profile",
        "coordinator",
        "processes",
        "process",
        "debug",
        "help",
        "version",
    ]
    names = [f"--{name}" for name in names]
    if unknown:
        word = unknown[0].partition("=")[0]
        if word.startswith("-"):
            near = nearest(word, names)
            hint = f"did you mean {near}? " if near else ""
            allowed = f"{hint}(flags: {', '.join(names)}, --config.KEY=VALUE)"
            raise BadInput(word, "unknown flag", allowed)
        flag = f"--mode={word}" if word in MODES else f"--config={unknown[0]}"
        raise BadInput(repr(word), "a word without a flag", f"did you mean {flag}?")
    for name in ("config", "workdir", "set", "runs", "to", "format", "images", "path"):
        if getattr(flags, name) == "":
            raise BadInput(f"--{name}", "empty", f"--{name}=..., or leave it out")
    return flags


def entry() -> NoReturn:
    """Console script: run and exit with the exit code."""
    output.begin()
    code = 130  # of a signal that arrives outside ``main``
    with crash.threads("--debug" in sys.argv[1:]), contextlib.suppress(KeyboardInterrupt):
        signals.begin()
        code = main()
    signals.end()
    output.end()
    if code and any(word.startswith("--coordinator") for word in sys.argv[1:]):
        os._exit(code)  # not by JAX's way out, which waits for the processes that are gone
    sys.exit(code)


if __name__ == "__main__":
    entry()
