"""Settings of a run: keys, config files, resolution of ``auto``, and resuming."""

from __future__ import annotations

from jdd.config.changes import changes, default_workdir, sentence
from jdd.config.files import (
    bundled,
    from_arg,
    phases,
    schema,
    stage_names,
)
from jdd.config.fitting import row_of
from jdd.config.nearest import Size
from jdd.config.resolve import (
    Loaded,
    fill,
    from_json,
    load,
    replace,
    resolve,
    resolve_auto,
    stored,
    to_json,
)
from jdd.config.resuming import Change, changed, validate_resume
from jdd.config.saved import as_begun, command_of, of_run
from jdd.config.unused import as_saved, unused, validate_used
from jdd.schema.common import COMMON, Common
from jdd.schema.key import AUTO, Key, group, like, option
from jdd.schema.values import build, flat, section

__all__ = [
    "AUTO",
    "COMMON",
    "Change",
    "Common",
    "Key",
    "Loaded",
    "Size",
    "as_begun",
    "as_saved",
    "build",
    "bundled",
    "changed",
    "changes",
    "command_of",
    "validate_resume",
    "default_workdir",
    "fill",
    "flat",
    "from_arg",
    "from_json",
    "group",
    "like",
    "load",
    "of_run",
    "option",
    "phases",
    "replace",
    "resolve",
    "schema",
    "section",
    "sentence",
    "resolve_auto",
    "row_of",
    "stage_names",
    "stored",
    "to_json",
    "unused",
    "validate_used",
]
