"""The commands of the tiny runs are accepted, and every method and stage is among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jdd import config, main, specs
from jdd.stages import registry
from tests.faults import test_full_disk, tiny_runs


@pytest.mark.parametrize("name", tiny_runs.NAMES)
def test_the_command_of_a_tiny_run_is_accepted(name: str, tmp_path: Path) -> None:
    flags, overrides = main.split_overrides(tiny_runs.arguments(name))
    loaded = config.load(flags[0].removeprefix("--config="), overrides)
    config.resolve(loaded.config, given=loaded.given)
    config.validate_used(loaded.config, loaded.explicit, tmp_path)


def test_every_method_and_every_stage_is_killed() -> None:
    found = set[str]()
    for name in tiny_runs.NAMES:
        flags, overrides = main.split_overrides(tiny_runs.arguments(name))
        loaded = config.load(flags[0].removeprefix("--config="), overrides)
        found |= {*config.stage_names(loaded.config)}
    assert set(specs.names()) <= set(tiny_runs.NAMES)
    assert set(registry.NAMES) - found == {"probe"}  # the probe is no stage of a config
    assert {run for run, _ in test_full_disk.KINDS.values()} <= set(tiny_runs.NAMES)
