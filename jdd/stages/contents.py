"""What lies at the paths of a config, which a run's identity has in place of the paths.

The digest that a run begins with is written to ``checkpoints/contents.json``. The run goes by it: a
path may move or, once its images are finished, be gone; other content at the path is another run.
"""

from __future__ import annotations

from jdd import config as configs
from jdd.errors import BadInput
from jdd.run.context import RunContext
from jdd.stages.registry import load

_NAME = "contents"


def given(context: RunContext) -> tuple[str, ...]:
    """Return the names of the keys that count by their content and are set."""
    flat, keys = configs.flat(context.config), context.config.spec.keys
    return tuple(n for n, key in keys.items() if key.content and flat[n] != key.default)


def digest(context: RunContext, name: str) -> str:
    """Return the digest that the run began with or, before it has, that of what is there now.

    Raises:
      BadInput: the run has not begun, and nothing fitting is there.
    """
    return str(context.recall(_NAME).get(name) or _now(context, name))


def _now(context: RunContext, name: str) -> str:
    return str(load(context.config.spec.keys[name].content)(context.config))


def remember(context: RunContext) -> None:
    """Write the digests that a run begins with."""
    known = context.recall(_NAME)
    for name in given(context):
        if name not in known:
            context.remember(_NAME, name, _now(context, name))


def validate(context: RunContext, finished: bool) -> None:
    """Refuse other content than a run began with; of a ``finished`` one nothing has to be there.

    Raises:
      BadInput: naming the key and the path.
    """
    known, flat = context.recall(_NAME), configs.flat(context.config)
    for name in given(context):
        if name not in known:
            continue
        try:
            now = _now(context, name)
        except BadInput:
            if finished:
                continue
            raise
        if now != known[name]:
            where = f"config.{name}={flat[name]}"
            found = "not what this run began with: it has changed since"
            raise BadInput(where, found, "that again, or another --workdir")
