"""The text of --help."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from jdd import config as config_lib
from jdd.schema.common import COMMON, Common
from jdd.schema.key import AUTO, allowed, show
from jdd.stages.registry import MODES

_FLAGS = {
    "--config=PATH[:ARG]": "config file, with its argument (default: configs/quickstart.py)",
    "--config.KEY=VALUE": "change one key; lists are separated by commas",
    "--mode=MODE": "what to do (default: all)",
    "--workdir=DIR": "where the run lives; the same command again resumes it",
    "": "(default: runs/<config>-<dataset>-ipc<n>-s<seed>)",
    "--set=PATH": "with --mode=evaluate: a distilled.npz, a .pt tensor or a folder of images",
    "--runs=DIR,DIR": "with --mode=compare: working directories of runs, or globs of them",
    "--to=PATH": "with --mode=export: a folder of pictures, or a .safetensors, .pt or .npz file",
    "  ": "with --mode=compare: the page (default: compare.html); its .json comes beside it",
    "--format=NAME": "with --mode=export, where the path does not imply it: ddranking, figures",
    "--help": "this text; with --config=... also every key of that config",
    "--version": "the version of jdd",
}
_EXAMPLES = """\
  python -m jdd.main                                      # the quick start: digits, no download
  python -m jdd.main --config=configs/mtt.py:cifar10,ipc=10 --workdir=runs/c10
  python -m jdd.main --config=configs/mtt.py:mnist --config.data.path=mnist_png.zip
  python -m jdd.main --mode=evaluate --set=runs/c10/distilled.npz --config.nets=ConvNet,AlexNet
  python -m jdd.main --config=configs/mtt.py:cifar10 --help"""


def help_text(spec: str | None, overrides: Mapping[str, str]) -> str:
    """Return the help text; with a config, including all its keys."""

    def table(rows: dict[str, str]) -> str:
        width = max(map(len, rows)) + 2
        return "\n".join(f"  {name:<{width}}{words}" for name, words in rows.items())

    config = None if spec is None and not overrides else config_lib.load(spec, overrides).config
    own = {phase.name: phase.help for phase in (config_lib.phases(config) if config else ())}
    parts = [
        "jdd distils a dataset: real images in, a small synthetic set and its evidence out.",
        "usage: python -m jdd.main [--config=PATH[:ARG]] [--mode=MODE] [--workdir=DIR] "
        "[--config.KEY=VALUE ...]",
        "flags:\n" + table(_FLAGS),
        "modes:\n" + table(MODES | own),
        "examples:\n" + _EXAMPLES,
    ]
    if config is None:
        names = ", ".join(f"configs/{name}.py" for name in config_lib.bundled())
        text = f"bundled configs: {names}; --config=... --help lists the keys of one"
        parts.append(textwrap.fill(text, 100, subsequent_indent="  "))
    else:
        parts.append(describe(config))
    return "\n\n".join(parts)


_HEADINGS = {
    "": "the run",
    "net": "the net of experts and students",
    "data": "the real images",
    "eval": "what the set is worth",
    "baselines": "what it is compared with",
    "experts": "nets trained on real images",
    "squeeze": "teachers: nets that the whole dataset is squeezed into",
    "relabel": "views of the images, and the teachers' labels of them",
    "post": "how students learn from these labels",
}


def describe(config: Common) -> str:
    """Return every key with its value, meaning and allowed values, for --help."""
    values = config_lib.flat(config)
    settled = config_lib.resolve_auto(config)[0] if config.data.name else values
    keys = config.spec.keys
    groups: dict[str, list[str]] = {title: [] for title in _HEADINGS.values()}
    for name, key in keys.items():
        head, own = name.rpartition(".")[0], f"method {config.spec.title}"
        title = _HEADINGS[head] if name in COMMON else own
        value = show(values[name])
        if values[name] == AUTO != settled[name]:
            value = f"auto   (here: {show(settled[name])})"
        plain = key.type is str and not key.choices and not key.auto
        words = key.help if plain else f"{key.help}; {allowed(key)}"
        groups.setdefault(title, []).append(
            f"  --config.{name}={value}\n"
            + textwrap.fill(words, 96, initial_indent=" " * 8, subsequent_indent=" " * 8)
        )
    return "\n\n".join(f"{title}:\n" + "\n".join(lines) for title, lines in groups.items() if lines)
