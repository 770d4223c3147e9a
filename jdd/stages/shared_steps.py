"""Steps of a seed's set over several processes: when they share them, and how the others join.

A run of at least as many seeds as processes gives whole sets to processes. With fewer, the
processes share the steps of each set if a step has more items (segments of experts, groups of
classes, image batches) than a process has devices. Image batches are grouped into parts as one
process would group them: finished parts are valid for any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd import config as configs
from jdd import methods, parallel
from jdd.methods.base import Method, Problem
from jdd.methods.recovery import Part
from jdd.run import loop
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.run.team import Team
from jdd.stages import phases


def team(context: RunContext, session: Session) -> Team:
    """Return the devices that share a step; all processes call it in a divided stage."""
    own = Team(parallel.ALONE, context.devices)
    processes = session.processes
    if processes is None or not session.divided or len(context.seeds) >= processes.count:
        return own
    every = Team(processes, parallel.everyone(context.config.devices))
    shares = session.first and _items(context, every) > len(context.devices)
    return every if session.agree(shares) else own


def problem(context: RunContext, seed: int, team: Team) -> Problem:
    """Return the run's problem, with the number of devices that share a step."""
    return phases.problem(context, seed)._replace(sharing=len(team.devices))


def _items(context: RunContext, team: Team) -> int:
    """Return the number of items of a first step; 0 of a method without steps."""
    config, seed = context.config, context.seeds[0]
    given = problem(context, seed, team)
    method = methods.make(config, given, *methods.parts(config, given)[:1])
    steps = config.steps if method.objective is not None else 0
    return loop.item_count(method.sample(seed, 0)) if steps else 0


def follow(context: RunContext, session: Session, team: Team) -> None:
    """Join the steps that process 0 orders."""
    latest: dict[str, Any] = {}
    gradients: dict[tuple[int, tuple[int, ...]] | None, loop.Gradient] = {}

    def build(about: Mapping[str, Any]) -> tuple[Method, Problem, loop.Gradient, loop.Carry]:
        if latest.get("about") != about:
            seed, name = int(about["seed"]), about.get("part")
            given = problem(context, seed, team)
            own = configs.replace(context.config, about.get("rates") or {})
            given = given._replace(config=own)
            part: list[Part] = [p for p in methods.parts(own, given) if p.name == name]
            method = methods.make(own, given, *part)
            # Parts of one form share their programs, as in the loop.
            form = (seed, part[0].form) if part else None
            if form is None or form not in gradients:
                gradients.clear()
                gradients[form] = loop.Gradient(method, seed, team.devices)
            latest["made"] = method, given, gradients[form], loop.start(method, seed)
            latest["about"] = dict(about)
        found: tuple[Method, Problem, loop.Gradient, loop.Carry] = latest["made"]
        return found

    team.follow(session, build)
