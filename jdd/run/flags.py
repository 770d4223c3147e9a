"""Flags of one call of the command line that are no settings of its run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jdd.errors import BadInput
from jdd.run.options import Options
from jdd.storage import remote

_PASSING = ("--max-seconds", "--profile", "--coordinator", "--processes", "--process", "--debug")


def options(flags: argparse.Namespace, again: str, begun: float) -> Options:
    """Return the flags that are no settings of a run.

    Raises:
      BadInput: a number that is none, or flags of a mode that runs nothing.
    """
    seconds, steps = 0.0, 0
    if flags.max_seconds is not None:
        try:
            seconds = float(flags.max_seconds)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise BadInput("--max-seconds", repr(flags.max_seconds), "seconds above 0")
    if flags.profile is not None:
        if not flags.profile.isdecimal() or not int(flags.profile):
            raise BadInput("--profile", repr(flags.profile), "steps to trace, 1 or more")
        steps = int(flags.profile)
    for name in ("max_seconds", "profile") if flags.mode == "estimate" else ():
        if getattr(flags, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise BadInput(flag, "given with --mode=estimate", "a mode that runs")
    return Options(again, seconds, begun, steps, *_several(flags))


def _several(flags: argparse.Namespace) -> tuple[str, int | None, int | None]:
    """Return coordinator, number of processes and number of this one; ('', None, None) for one.

    Raises:
      BadInput: one is missing or no number, or the mode runs in one process.
    """
    where: str = flags.coordinator or ""
    numbers = {"processes": flags.processes, "process": flags.process}
    if not where:
        for name in (name for name, value in numbers.items() if value is not None):
            raise BadInput(f"--{name}", "given without --coordinator", "--coordinator=HOST:PORT")
        return "", None, None
    if flags.set is not None or flags.mode in ("study", "estimate"):
        found = f"given with --mode={flags.mode}, which runs in one process"
        raise BadInput("--coordinator", found, "a run, without --set")
    if remote.is_url(flags.workdir):
        remote.refuse_several("--workdir", flags.workdir)
    if where == "auto":
        return where, None, None
    host, colon, port = where.rpartition(":")
    if not host or not port.isdecimal():
        raise BadInput("--coordinator", repr(where), "HOST:PORT of process 0, or auto")
    for name, value in numbers.items():
        if value is None or not value.isdecimal():
            allowed = "--processes=N and --process=I, I from 0 to N - 1"
            raise BadInput(f"--{name}", "missing" if value is None else repr(value), allowed)
    count, index = int(flags.processes), int(flags.process)
    if not index < count:
        raise BadInput("--process", str(index), f"0 to {count - 1}, with --processes={count}")
    return where, count, index


def lasting(argv: Sequence[str]) -> list[str]:
    """Return the words of a command without the flags of this one call, which no file records."""
    rest: list[str] = []
    skip = False
    for word in argv:
        name, equals, _ = word.partition("=")
        if not skip and name in _PASSING:
            skip = not equals and word != "--debug"
            continue
        if not skip:
            rest.append(word)
        skip = False
    return rest
