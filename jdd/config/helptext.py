"""The text of --help."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from jdd import config as config_lib
from jdd.config.expected import expected
from jdd.config.unused import unused
from jdd.schema.common import COMMON
from jdd.schema.key import Key, allowed
from jdd.stages.registry import MODES

_FLAGS = {
    "--config=NAME[:ARG]": "a bundled config, or a file (default: the quick start); its argument:",
    "": "dataset and any keys, mtt:cifar10,ipc=10",
    "--config.KEY=VALUE": "change one key; lists are separated by commas",
    "--mode=MODE": "what to do (default: all)",
    "--workdir=DIR": "where the run lives; the same command again resumes it",
    " ": "(default: runs/<config>-<dataset>-ipc<n>-s<seed>, then the changed keys)",
    "--set=PATH": "evaluate, export: a distilled.npz, zoo:NAME, a .pt file, a folder of images",
    "--runs=DIR,DIR": "with --mode=compare: working directories of runs, or globs of them",
    "--to=PATH": "with --mode=export: a folder of pictures, or a .safetensors, .pt or .npz file",
    "  ": "with --mode=compare: the page (default: compare.html); its .json comes with it",
    "--path=DIR": "with --mode=verify: a run's directory, a store or a file",
    "--format=NAME": "with --mode=export, if not by the path: ddranking, huggingface, figures; of",
    "   ": "a generator weights: safetensors, config.json, PyTorch and Flax code",
    "--images=N": "with --mode=export of a generator to a folder of pictures: images a class",
    "--max-seconds=N": "save and stop before N seconds are over, exit code 130; the same command",
    "    ": "goes on",
    "--profile=STEPS": "trace so many steps of each looped stage into WORKDIR/profile",
    "--coordinator=HOST:PORT": "several processes make one run, with --processes=N --process=I;",
    "     ": "or auto alone inside a job of SLURM, Open MPI, Kubernetes or a TPU pod",
    "--debug": "show the traceback of an error, too",
    "--help[=KEY]": "this text; with --config=... also every key of that config; one key",
    "--version": "the version of jdd",
}
_WORDS = {
    "help KEY": "what a key is: type, allowed values, default of each method, published values",
    "list methods": "one line each; or list datasets, list nets, list configs, list sets",
}
_EXAMPLES = """\
  jdd                                             # the quick start: digits, no download
  jdd --config=mtt:cifar10,ipc=10 --workdir=runs/c10
  jdd --config=mtt:mnist --config.data.path=mnist_png.zip
  jdd --mode=evaluate --set=runs/c10/distilled.npz --config.nets=ConvNet,AlexNet
  jdd --config=mtt:cifar10 --help                 # every key of this config
  jdd help lr_img                                 # one key"""


def help_text(spec: str | None, overrides: Mapping[str, str]) -> str:
    """Return the help text; with a config, including all its keys."""

    def table(rows: dict[str, str]) -> str:
        width = max(map(len, rows)) + 2
        return "\n".join(f"  {name:<{width}}{words}" for name, words in rows.items())

    loaded = None if spec is None and not overrides else config_lib.load(spec, overrides)
    config = loaded and loaded.config
    own = {phase.name: phase.help for phase in (config_lib.phases(config) if config else ())}
    parts = [
        "jdd distils a dataset: real images in, a small synthetic set and its evidence out.",
        "usage: jdd [--config=NAME[:ARG]] [--mode=MODE] [--workdir=DIR] [--config.KEY=VALUE ...]\n"
        "       jdd help KEY | jdd list methods|datasets|nets|configs|sets\n"
        "`python -m jdd.main` is the same command.",
        "flags:\n" + table(_FLAGS),
        "words:\n" + table(_WORDS),
        "modes:\n" + table(MODES | own),
        "examples:\n" + _EXAMPLES,
    ]
    if loaded is None:
        names = ", ".join(config_lib.bundled())
        text = f"bundled configs: {names}; --config=NAME --help lists the keys of one"
        parts.append(textwrap.fill(text, 100, subsequent_indent="  "))
    else:
        parts.append(describe(loaded))
    return "\n\n".join(parts)


_HEADINGS = {
    "": "the run",
    "method": "method {title}",
    "experts": "experts: nets trained on real images",
    "squeeze": "teachers: nets that the whole dataset is squeezed into",
    "relabel": "views of the images, and the teachers' labels of them",
    "post": "how students learn from these labels",
    "vae": "the autoencoder of the real images",
    "diffusion": "the noise predictor, the prior that images are sampled from",
    "sampling": "how images are sampled",
    "guide": "shifts of latents while they are denoised",
    "sd": "Stable Diffusion, with prior=stable_diffusion",
    "text": "captions as vectors",
    "towers": "the two nets that meet in one space",
    "latent": "latents that are learned in place of pixels",
    "net": "the net used for distillation",
    "bn": "batch-norm statistics of the set, matched together with trajectories",
    "data": "the real images",
    "eval": "evaluation of the set",
    "baselines": "baselines that the set is compared with",
    "quality": "quality of generated images, in features of a classifier",
    "full": "training on the whole dataset, for baselines.full",
}


def describe(loaded: config_lib.Loaded) -> str:
    """Return every key with its value, meaning and allowed values, for --help.

    Above them stands where the settings come from, if they are fitted to the data.
    """
    config, found = loaded.config, expected(loaded)
    idle = unused(config.spec)
    groups: dict[str, list[str]] = {name: [] for name in _HEADINGS}
    for name, key in config.spec.keys.items():
        if name in idle:
            continue
        groups[_group(name, bool(idle))].append(
            f"  --config.{name}={found.words(name)}\n"
            + textwrap.fill(meaning(key), 96, initial_indent=" " * 8, subsequent_indent=" " * 8)
        )
    titles = {name: title.format(title=config.spec.title) for name, title in _HEADINGS.items()}
    parts = [textwrap.fill(found.note, 100, subsequent_indent="  ")] if found.note else []
    parts += [f"{titles[n]}:\n" + "\n".join(lines) for n, lines in groups.items() if lines]
    return "\n\n".join(parts)


def _group(name: str, no_experts: bool) -> str:
    """Return the group of ``_HEADINGS`` that a key stands under."""
    head = name.rpartition(".")[0]
    if head == "experts" and no_experts:
        return "full"  # the keys that remain
    if not head and name not in COMMON:
        return "method"
    return head if head in _HEADINGS else "method"


def meaning(key: Key) -> str:
    """Return what a key means and which values it takes."""
    plain = key.type is str and not key.choices and not key.auto
    return key.help if plain else f"{key.help}; {allowed(key)}"
