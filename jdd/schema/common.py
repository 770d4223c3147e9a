"""Keys of a config: type, default, unit and allowed values.

``Common`` has the keys of every run, ``schema/families.py`` those of families of methods. A method
adds its own in its spec, ``jdd/specs/NAME.py``, as a subclass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jdd.schema.experts import Experts
from jdd.schema.key import AUTO, FALSE, TRUE, group, keys_of, option
from jdd.schema.protocols import COMMON as COMMON_PROTOCOLS
from jdd.schema.protocols import OWN
from jdd.schema.training import with_options
from jdd.training.recipe import AS_RECIPE
from jdd.training.schedules import Multistep

if TYPE_CHECKING:
    from jdd.specs.base import Spec

SHORT = ("refuse", "repeat", "noise")


@dataclass(frozen=True)
class Net:
    """The net used for distillation: of experts and students."""

    # The net used for distillation: experts and students.
    name: str = option("ConvNet", "net of the experts and students")
    width: int = option(
        AUTO,
        "channels of the first block (auto: the net's own, ConvNet and FRePoNet 128)",
        minimum=1,
    )
    depth: int = option(
        AUTO,
        "blocks of ConvNet, FRePoNet (auto: 3 up to 32 pixels, 4 up to 64, then 5) and ViT (12), "
        "layers of NFResNet (18)",
        minimum=1,
    )
    norm: str = option(
        AUTO,
        "normalisation (auto: the net's own, ConvNet instance, FRePoNet none)",
        choices=("instance", "batch", "group", "layer", "none"),
    )
    act: str = option("relu", "activation", choices=("relu", "sigmoid", "leaky", "swish"))
    pool: str = option("avg", "pooling", choices=("avg", "max", "none"))
    init: str = option(
        AUTO,
        "initial weights: PyTorch's, or normal by Xavier or LeCun with zero biases (auto: its own)",
        choices=("torch", "xavier", "lecun"),
    )


@dataclass(frozen=True)
class Data:
    """The real images."""

    # The real images.
    name: str = option("", "dataset: a known name, or any name of your own with data.path")
    source: str = option(
        AUTO,
        "where images come from (auto: by the path, else the dataset's own source)",
        choices=("digits", "npz", "folder", "tfds", "hf"),
        resumable=True,
    )
    # Moved data is still the same data; the expert store identifies it by its content.
    path: str = option(
        "",
        "file, folder or archive; for tfds its data_dir, for hf a name on the hub too",
        resumable=True,
    )
    size: int = option(0, "resize images to this many pixels per side (0: as they are)", minimum=0)
    zca: str = option(
        AUTO,
        "ZCA whitening instead of mean and std; true: kornia, false: none",
        choices=("none", "kornia", "kip", "frepo"),
        stands=tuple((w, "kornia") for w in TRUE) + tuple((w, "none") for w in FALSE),
    )
    val: float = option(
        0.0, "validation images taken from train: a fraction below 1, or a count", minimum=0
    )
    test: float = option(
        0.2,
        "fraction of each class set aside when there is no test split",
        minimum=0,
        maximum=0.9,
    )
    cache_dir: str = option(
        "", "folder of decoded arrays ('': $JDD_CACHE or ~/.cache/jdd)", resumable=True
    )
    stream: bool = option(
        False,
        "leave the images on disk, as 8-bit pixels in data.cache_dir, and read batches from there",
        resumable=True,
    )
    layout: str = option(
        "structure",
        "folders: what lies under what (structure: decided by the tree; classes: CLASS/**; splits: "
        "SPLIT/CLASS/**; class_splits: CLASS/SPLIT/**; parts: PART/CLASS/**, taken together)",
        choices=("structure", "classes", "splits", "class_splits", "parts"),
        later=True,
    )
    labels: str = option(
        "",
        "training labels in place of the dataset's own: FILE[:ARRAY] (npz, npy, csv), a row each "
        "training image of the source; test labels stay",
        later=True,
        sparse=True,
    )
    noise: str = option(
        "none",
        "training labels are corrupted: to any other class (symmetric), to one similar class "
        "(asymmetric), or by a matrix of probabilities",
        choices=("none", "symmetric", "asymmetric", "matrix"),
        later=True,
        sparse=True,
    )
    noise_rate: float = option(
        0.0,
        "symmetric, asymmetric: share of a class's labels that change",
        minimum=0,
        maximum=1,
        later=True,
        sparse=True,
    )
    noise_pairs: str = option(
        "",
        "asymmetric: pairs FROM:TO of class numbers, such as 9:1,2:0 ('': CIFAR-10's usual ones, "
        "else the next class)",
        later=True,
        sparse=True,
    )
    noise_matrix: str = option(
        "",
        "matrix: FILE[:ARRAY] with P(label j | class i) in row i, or FILE:CLEAN,NOISY of two label "
        "arrays by which it is estimated",
        later=True,
        sparse=True,
    )
    noise_seed: int = option(
        0, "seed of the corrupted labels, apart from the run's", minimum=0, later=True, sparse=True
    )
    dsa: str = option(AUTO, "DSA operations joined by '_', or none (auto: the dataset's own)")


@with_options
@dataclass(frozen=True)
class Eval:
    """Evaluation: training of nets on the set."""

    # Evaluation of the set.
    n: int = option(
        5,
        "nets trained per architecture; 5 or more for a meaningful spread",
        resumable=True,
        minimum=1,
    )
    epochs: int = option(
        AUTO,
        "training epochs on the set (auto: the published protocol's)",
        minimum=0,
    )
    steps: int = option(
        0, "training steps on the set, in place of epochs (0: the method's own)", minimum=0
    )
    batch: int = option(256, "images per training step", minimum=1)
    lr: float = option(
        AUTO,
        "learning rate of SGD (auto, 0: the rate the set has learned)",
        minimum=0,
    )
    at_once: int = option(
        0,
        "nets trained at a time (0: all); fewer need less memory",
        resumable=True,
        minimum=0,
    )
    curve: int = option(
        4,
        "evaluations during distillation, for the accuracy curve (0: none)",
        resumable=True,
        minimum=0,
    )
    curve_n: int = option(2, "nets per point of the accuracy curve", resumable=True, minimum=1)
    protocol: str = option(
        OWN,
        "own: nets are trained by the set's recipe; common (ResNet18) and common-small (ConvNetBN "
        "of width 32): by one protocol for all sets too, next to random images and coresets "
        "(docs/protocol.md)",
        choices=(OWN, *COMMON_PROTOCOLS),
        resumable=True,
        later=True,
        sparse=True,
    )


@dataclass(frozen=True)
class Baselines:
    """Baselines that the set is compared with."""

    random: int = option(
        5, "draws of random real images of the same number (0: off)", resumable=True, minimum=0
    )
    full: bool = option(True, "train on the whole dataset too", resumable=True)
    nets: str = option(
        "first",
        "nets of the baselines: the first of nets (net.name where it is among them), or all",
        choices=("first", "all"),
        resumable=True,
        sparse=True,
    )
    full_epochs: int = option(
        AUTO, "epochs on the whole dataset (auto: 50)", resumable=True, minimum=1
    )


@dataclass(frozen=True)
class Common:
    """Keys of every run; a method's config is a subclass with its own.

    Until ``config.resolve`` a field may hold 'auto', whatever its annotation.
    """

    _spec: Spec | None = field(default=None, repr=False, compare=False, kw_only=True)
    _given: frozenset[str] = field(default=frozenset(), repr=False, compare=False, kw_only=True)
    method: str = option("mtt", "distillation method: the name of a bundled config file")
    ipc: int = option(1, "synthetic images per class", minimum=1)
    ipc_short: str = option(
        "refuse",
        "a class with fewer real images than ipc: refused; gives its images several times (repeat);"
        " or its further images start as N(0, 1) (noise; of methods that learn images)",
        choices=SHORT,
        later=True,
        sparse=True,
    )
    seed: int = option(0, "seed of everything random", minimum=0)
    steps: int = option(AUTO, "distillation steps (outer iterations)", resumable=True, minimum=0)
    probe: bool = option(
        True,
        "where no settings are published for the data and IPC: the images' rate, and that of MTT's "
        "students, are chosen by a few steps at several rates, on training data, at most a tenth "
        "of the run (docs/data.md)",
        later=True,
        sparse=True,
    )
    steps_back: int = option(
        3,
        "where no settings are published for the data and IPC: how often a diverged run goes back "
        "to an earlier state, at a third of the rates at fault, before it ends (docs/data.md)",
        minimum=0,
        later=True,
        sparse=True,
    )
    stop: str = option(
        "never",
        "end of distillation before its last step: never, or where the curve (eval.curve) on "
        "images held out of the training data (data.val) is flat (docs/evaluate.md)",
        choices=("never", "plateau"),
        later=True,
        sparse=True,
    )
    runs: int = option(1, "synthesis runs, with seeds seed, seed+1, ...", minimum=1)
    align_corners: bool = option(True, "DSA's scale and rotate: align_corners of the sampling grid")
    space: str = option(
        "file",
        "with --set of a foreign set, the type of its values: pixels (0 to 1, or 0 to 255), or the "
        "inputs of a net (normalised or whitened); file: as it shows itself",
        choices=("file", "pixels", "net"),
        later=True,
    )
    nets: tuple[str, ...] = option(
        ("ConvNet",),
        "nets trained on the distilled set: names, all, or a paper's own (dc, dm, mtt)",
        resumable=True,
    )
    net: Net = group(Net)
    data: Data = group(Data)
    eval: Eval = group(Eval)
    baselines: Baselines = group(Baselines)
    scores: bool = option(
        False, "HLR, IOR, LRS, ARS in addition to accuracy (docs/scores.md)", resumable=True
    )
    scores_weight: float = option(0.5, "w of LRS", resumable=True, minimum=0, maximum=1)
    scores_gamma: float = option(0.5, "gamma of ARS", resumable=True, minimum=0, maximum=1)
    experts: Experts = group(Experts)
    # Execution of the run; apart from the precisions, nothing here changes its results.
    log_every: int = option(10, "steps between metrics lines", resumable=True, minimum=1)
    checkpoint_every: int = option(100, "steps between checkpoints", resumable=True, minimum=1)
    checkpoint_minutes: float = option(
        0.0,
        "minutes between checkpoints, whatever the steps (0: by steps alone)",
        resumable=True,
        minimum=0,
        sparse=True,
    )
    keep: int = option(2, "checkpoints to keep", resumable=True, minimum=1)
    devices: int = option(0, "devices used (0: all)", resumable=True, minimum=0)
    precision: str = option(
        "highest",
        "precision of matrix products on GPU and TPU",
        choices=("default", "high", "highest"),
        resumable=True,
    )
    train_precision: str = option(
        "",
        "the same for all stages but those that learn images or a generator (empty: precision)",
        choices=("", "default", "high", "highest"),
        resumable=True,
        sparse=True,
    )
    tensorboard: bool = option(
        False, "write TensorBoard files too (needs jdd[tensorboard])", resumable=True
    )
    wandb: bool = option(
        False,
        "log to Weights & Biases too (needs jdd[wandb]; WANDB_MODE=offline writes files alone)",
        resumable=True,
        sparse=True,
    )
    verify_files: bool = option(
        True,
        "compare stored nets and checkpoints with their digests when they are read",
        resumable=True,
        later=True,
        sparse=True,
    )
    progress: bool = option(True, "show a progress bar on a terminal", resumable=True)

    @property
    def spec(self) -> Spec:
        """The spec of the config's method, which may be outside the package."""
        if self._spec is None:
            raise TypeError("a config without a spec: jdd.config.load and fill make one")
        return self._spec

    @property
    def given(self) -> frozenset[str]:
        """Names of the keys that ``jdd.make_config`` was given; they are never fitted to data."""
        return self._given

    @property
    def baseline_nets(self) -> tuple[str, ...]:
        """Names of the nets that the baselines train: the first of ``nets``, or all.

        ``net.name`` counts as the first wherever it is among them: the headline is of that net,
        and a difference is of the same net.
        """
        ordered = sorted(self.nets, key=lambda name: name != self.net.name)
        return tuple(ordered if self.baselines.nets == "all" else ordered[:1])


COMMON = keys_of(Common)

# Values of 'auto' unless a method or a dataset has others. An eval.lr of 0 is the learned rate of
# the set, which is unknown before distillation.
FALLBACK: dict[str, Any] = {
    "steps": 1000,
    "data.zca": "none",
    "net.init": "torch",
    "eval.epochs": 1000,
    "eval.lr": 0.0,
    "eval.ema": 0.0,
    "eval.schedule": AS_RECIPE,
    "eval.milestones": Multistep.milestones,
    "eval.gamma": Multistep.gamma,
    "relabel.randaugment": 0,
    "baselines.full_epochs": 50,
    "experts.epochs": 50,
}
