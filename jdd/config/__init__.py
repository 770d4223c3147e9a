"""Settings of a run: their keys, the files that give them, what ``auto`` stands for, resuming."""

from __future__ import annotations

from jdd.config.files import (
    bundled,
    config_dir,
    flat,
    from_arg,
    method_file,
    phases,
    schema,
    stage_names,
)
from jdd.config.keys import COMMON
from jdd.config.resolve import (
    Change,
    Loaded,
    changed,
    check_resume,
    default_workdir,
    from_json,
    load,
    replace,
    resolve,
    resolve_auto,
    to_json,
)
from jdd.config.schema import AUTO, Key

__all__ = [
    "AUTO",
    "COMMON",
    "Change",
    "Key",
    "Loaded",
    "bundled",
    "changed",
    "check_resume",
    "config_dir",
    "default_workdir",
    "flat",
    "from_arg",
    "from_json",
    "load",
    "method_file",
    "phases",
    "replace",
    "resolve",
    "schema",
    "resolve_auto",
    "stage_names",
    "to_json",
]
