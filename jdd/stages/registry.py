"""The registry of stages, and the phases that a method adds.

One entry per stage. Derived from it are the choices and help of ``--mode``, the order of stages in
results and reports, the stages that make a set, the keys excluded from a set's identity, and the
keys to lower when memory runs out. It imports neither JAX nor NumPy, so ``--help`` and every other
module can import it cheaply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple

from jdd.errors import BadInput

Makes = Literal["nets", "rates", "set", "labels", "figures"]


class Entry(NamedTuple):
    """One stage.

    name:    its name in ``--mode``, metrics and checkpoints.
    help:    one line for ``--help``.
    module:  ``"package.module:NAME"`` of its ``stages.base.Stage``, imported on demand.
    makes:   the kind of its output; "figures" are measurements and pages.
    inputs:  names of the stages whose output it reads.
    keys:    its keys, or prefixes ending in '.', that no set's images depend on; excluded from a
             set's identity.
    smaller: keys to lower if it runs out of memory; the first changes the least.
    cached:  True if it stores what it trains in the cache folder (``data.cache_dir``).
    """

    name: str
    help: str
    module: str
    makes: Makes
    inputs: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    smaller: tuple[str, ...] = ()
    cached: bool = False


# In the order of --help, results and reports.
STAGES: tuple[Entry, ...] = (
    Entry(
        name="experts",
        help="train the nets on real images whose trajectories are matched",
        module="jdd.stages.experts:STAGE",
        makes="nets",
        keys=("experts.dir",),
        smaller=("data.stream", "experts.group", "experts.batch", "net.width"),
    ),
    Entry(
        name="squeeze",
        help="decoupled methods: train the teachers on the whole dataset",
        module="jdd.stages.squeeze:STAGE",
        makes="nets",
        keys=("squeeze.dir",),
        smaller=("data.stream", "squeeze.accumulate", "squeeze.batch", "squeeze.width"),
    ),
    Entry(
        name="probe",
        help="data without published settings: a few steps at several rates",
        module="jdd.stages.probe:STAGE",
        makes="rates",
        inputs=("experts",),
        smaller=("classes_at_once", "data.stream", "batch_real", "syn_steps", "net.width"),
    ),
    Entry(
        name="distill",
        help="make the distilled set",
        module="jdd.stages.distill:STAGE",
        makes="set",
        inputs=("experts", "probe"),
        smaller=(
            *("classes_at_once", "data.stream", "real_parts", "batch_real", "batch_syn"),
            *("batch_pool", "inits", "window", "syn_steps", "net.width", "ipc"),
        ),
    ),
    Entry(
        name="recover",
        help="decoupled methods: make the images from the teachers",
        module="jdd.stages.distill:RECOVER",
        makes="set",
        inputs=("squeeze",),
        smaller=("batches_at_once", "data.stream", "image_batch"),
    ),
    Entry(
        name="relabel",
        help="decoupled methods: the teachers' labels of every view a student will be shown",
        module="jdd.stages.relabel:STAGE",
        makes="labels",
        inputs=("squeeze", "recover", "distill"),
        keys=("relabel.", "post."),
        smaller=("data.stream", "eval.batch"),
    ),
    Entry(
        name="evaluate",
        help="train fresh nets on the set, and the baselines; with --set on any saved set",
        module="jdd.stages.evaluate:STAGE",
        makes="figures",
        inputs=("distill", "recover", "relabel"),
        keys=("eval.", "baselines."),
        smaller=("eval.at_once", "eval.batch", "net.width"),
    ),
    Entry(
        name="full",
        help="train on the whole dataset, for comparison (cached per dataset and net)",
        module="jdd.stages.full:STAGE",
        makes="figures",
        cached=True,
        smaller=("data.stream", "experts.batch", "net.width"),
    ),
    Entry(
        name="quality",
        help="of generators: how good the images are, in features of a classifier",
        module="jdd.stages.quality:STAGE",
        makes="figures",
        cached=True,
        inputs=("distill",),
        smaller=("quality.images", "quality.width", "data.stream"),
    ),
    Entry(
        name="scores",
        help="with --config.scores=true: what of the accuracy is the images' own",
        module="jdd.stages.scores:STAGE",
        makes="figures",
        inputs=("distill", "evaluate", "full"),
        smaller=("eval.at_once", "eval.batch", "net.width"),
    ),
    Entry(
        name="protocol",
        help="with --config.eval.protocol=common: the set by one protocol for all sets",
        module="jdd.stages.protocol:STAGE",
        makes="figures",
        cached=True,
        inputs=("distill", "recover"),
        smaller=("eval.at_once", "data.stream"),
    ),
    Entry(
        name="report",
        help="write report.html again; without --config by the config of --workdir",
        module="jdd.stages.report:STAGE",
        makes="figures",
        inputs=("evaluate",),
    ),
)
NAMES: tuple[str, ...] = tuple(entry.name for entry in STAGES)
# Stages that write distilled.npz; a run has exactly one.
MAKERS: tuple[str, ...] = tuple(entry.name for entry in STAGES if entry.makes == "set")
# Stages whose traces identify a directory as a run, not only an evaluation.
BUILDERS: tuple[str, ...] = tuple(entry.name for entry in STAGES if entry.makes != "figures")
# Stages that measure; each of them outdates the report.
FIGURES: tuple[str, ...] = tuple(entry.name for entry in STAGES if entry.makes == "figures")
# Stages that write to the cache folder.
CACHED = frozenset(entry.name for entry in STAGES if entry.cached)
# Keys that no set depends on: those of the stages after it, and the location of the data.
APART: tuple[str, ...] = (
    *("data.path", "data.source"),
    *(key for entry in STAGES for key in entry.keys),
)
# Reading the data is not a stage, but may also run out of memory.
SMALLER: dict[str, tuple[str, ...]] = {
    "data": ("data.stream", "data.zca", "data.size"),
    **{entry.name: entry.smaller for entry in STAGES},
}
MODES: dict[str, str] = {
    "all": "every stage whose output is missing",
    **{entry.name: entry.help for entry in STAGES},
    "study": "run the grid of configs by seeds of --config=STUDY.py into one table and page",
    "compare": "put the runs of --runs side by side on one page, --to; runs nothing",
    "export": "write the set of --set for other programs, or its figures for papers, to --to",
    "verify": "compare the files of --path with their digests, and add missing ones",
    "estimate": "memory and time of each stage on this machine; runs nothing long",
}


def curve(stage: str) -> str:
    """Return the name in the metrics of the accuracy curve of a stage that makes a set.

    'curve' for 'distill' and 'recover', 'curve-s1' for 'distill-s1'.
    """
    for name in MAKERS:
        if stage == name or stage.startswith(f"{name}-"):
            return "curve" + stage.removeprefix(name)
    return stage


def maker(stages: Sequence[str]) -> str:
    """Return the stage of a run that makes the set."""
    return next((name for name in stages if name in MAKERS), MAKERS[0])


def position(stage: str) -> int:
    """Return the rank of a stage, or of a part of one: 'squeeze-ConvNet', 'distill-s1'.

    A method's own phases rank with 'distill'.
    """
    name = stage.partition("-")[0]
    return NAMES.index(name) if name in NAMES else NAMES.index(MAKERS[0])


Kind = Literal["method", "training", "construction"]


@dataclass(frozen=True)
class Phase:
    """A method-specific stage, run before the set is made, for every synthesis seed.

    A method lists it in its ``STAGES``, among the names of stages. Its output is available in the
    ``Problem.phases`` of every later phase and of the method itself: ``phases[name]`` is a
    ``State`` of NumPy arrays in nested dicts, as stored in ``checkpoints/NAME``.

    Attributes:
      name: its name in ``--mode``, metrics and checkpoints: lower-case letters, digits and '_'.
      make: ``(config, problem) -> made``, or its ``"package.module:function"``, which avoids
        importing JAX in the file that declares it. ``made`` depends on ``kind``:
          method        a ``Method``; the outer loop runs ``steps`` steps of it. It needs no
                        ``distilled``.
          training      a ``stages.phases.Training``: a net trained on the real images; the output's
                        variables are the net's, stacked on axis 0.
          construction  ``(seed) -> State``, called once.
      kind: see ``make``.
      help: one line for ``--help``.
      steps: the config key with the number of steps, for the kind method.
      keys: keys, or prefixes ending in '.', that neither earlier phases nor ``inputs`` read;
        excluded from the identity of earlier phases. If a resumable one changes, a training goes on
        to its new number of epochs, and a construction is made again.
      inputs: names of other stages whose output it reads, such as "experts".
      smaller: keys to lower if it runs out of memory; the first changes the least.
      shared: run once, by the first synthesis seed, for all of them; phases before it are too.
      blank: like ``make``, but returns a ``State`` of the output's shapes for ``--mode=estimate``;
        None: the output of step 0 is used.
    """

    name: str
    make: Callable[..., Any] | str
    kind: Kind = "method"
    help: str = ""
    steps: str = "steps"
    keys: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    smaller: tuple[str, ...] = ()
    shared: bool = False
    blank: Callable[..., Any] | str | None = None

    def __post_init__(self) -> None:
        taken = {*MODES, "whitening", "data", "curve", "checkpoints", "labels", "set", "identity"}
        taken |= {
            "phases",
            "cells",
            "profile",
            "samples",
            "steps_back",
            "stop",
            "tensorboard",
            "wandb",
        }  # folders and files of a working directory
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name) or self.name in taken:
            allowed = "a name of lower-case letters, digits and '_' that no mode has"
            raise BadInput("Phase.name", repr(self.name), f"{allowed} ({', '.join(MODES)})")
        if self.kind not in ("method", "training", "construction"):
            allowed = "one of method, training, construction"
            raise BadInput(f"Phase.kind of {self.name}", repr(self.kind), allowed)


def load(where: Callable[..., Any] | str) -> Any:
    """Return the object named by ``"package.module:NAME"``; a function is returned unchanged."""
    if not isinstance(where, str):
        return where
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
