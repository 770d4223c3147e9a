"""The keys of a config: type, default, unit and what is allowed.

A method adds its own in ``configs/<method>.py`` (``KEYS``); ``COMMON`` are every run's, the tables
after it those of a family of methods.
"""

from __future__ import annotations

from jdd.config.keys_training import TRAINING
from jdd.config.schema import AUTO, FALSE, TRUE, Key, Strings

COMMON: dict[str, Key] = {
    "method": Key(str, "mtt", "distillation method: the name of a bundled config file"),
    "ipc": Key(int, 1, "synthetic images per class", minimum=1),
    "seed": Key(int, 0, "seed of everything random", minimum=0),
    "steps": Key(
        int, AUTO, "distillation steps (outer iterations)", auto=True, resumable=True, minimum=0
    ),
    "runs": Key(int, 1, "synthesis runs, with seeds seed, seed+1, ...", minimum=1),
    "align_corners": Key(bool, True, "DSA's scale and rotate: align_corners of the sampling grid"),
    "space": Key(
        str,
        "file",
        "with --set of a foreign set, what its values are: pixels (0 to 1, or 0 to 255), or the "
        "inputs of a net (normalised or whitened); file: as it shows itself",
        choices=("file", "pixels", "net"),
        later=True,
    ),
    "nets": Key(
        Strings,
        ("ConvNet",),
        "nets trained on the distilled set: names, all, or a paper's own (dc, dm, mtt)",
        resumable=True,
    ),
    # The net that is distilled with: experts and students.
    "net.name": Key(str, "ConvNet", "net of the experts and students"),
    "net.width": Key(
        int,
        AUTO,
        "channels of the first block (auto: the net's own, ConvNet and FRePoNet 128)",
        auto=True,
        minimum=1,
    ),
    "net.depth": Key(
        int,
        AUTO,
        "blocks of ConvNet, FRePoNet (auto: 3 up to 32 pixels, 4 up to 64, then 5)",
        auto=True,
        minimum=1,
    ),
    "net.norm": Key(
        str,
        AUTO,
        "normalisation (auto: the net's own, ConvNet instance, FRePoNet none)",
        choices=("instance", "batch", "group", "layer", "none"),
        auto=True,
    ),
    "net.act": Key(str, "relu", "activation", choices=("relu", "sigmoid", "leaky", "swish")),
    "net.pool": Key(str, "avg", "pooling", choices=("avg", "max", "none")),
    "net.init": Key(
        str,
        AUTO,
        "initial weights: PyTorch's, or normal by Xavier or LeCun with zero biases (auto: its own)",
        choices=("torch", "xavier", "lecun"),
        auto=True,
    ),
    # The real images.
    "data.name": Key(str, "", "dataset: a known name, or any name of your own with data.path"),
    "data.source": Key(
        str,
        AUTO,
        "where images come from (auto: by the path, else the dataset's own source)",
        choices=("digits", "npz", "folder", "tfds"),
        auto=True,
        resumable=True,
    ),
    # Data that moved is still the same data; the expert store knows it by its content.
    "data.path": Key(str, "", "file, folder or archive; for tfds its data_dir", resumable=True),
    "data.size": Key(
        int, 0, "resize images to this many pixels a side (0: as they are)", minimum=0
    ),
    "data.zca": Key(
        str,
        AUTO,
        "ZCA whitening instead of mean and std; true: kornia, false: none",
        choices=("none", "kornia", "kip", "frepo"),
        auto=True,
        stands=tuple((w, "kornia") for w in TRUE) + tuple((w, "none") for w in FALSE),
    ),
    "data.val": Key(
        float, 0.0, "validation images taken from train: a fraction below 1, or a count", minimum=0
    ),
    "data.test": Key(
        float,
        0.2,
        "fraction of each class set aside when there is no test split",
        minimum=0,
        maximum=0.9,
    ),
    "data.cache_dir": Key(
        str, "", "decoded arrays are kept here ('': $JDD_CACHE or ~/.cache/jdd)", resumable=True
    ),
    "data.stream": Key(
        bool,
        False,
        "leave the images on disk, as 8-bit pixels in data.cache_dir, and read batches from there",
        resumable=True,
    ),
    "data.layout": Key(
        str,
        "structure",
        "folders: what lies under what (structure: decided by the tree; classes: CLASS/**; splits: "
        "SPLIT/CLASS/**; class_splits: CLASS/SPLIT/**; parts: PART/CLASS/**, taken together)",
        choices=("structure", "classes", "splits", "class_splits", "parts"),
        later=True,
    ),
    "data.dsa": Key(
        str, AUTO, "DSA operations joined by '_', or none (auto: the dataset's own)", auto=True
    ),
    # What the set is worth.
    "eval.n": Key(
        int,
        5,
        "nets trained per architecture; 5 or more for a spread worth printing",
        resumable=True,
        minimum=1,
    ),
    "eval.epochs": Key(
        int,
        AUTO,
        "training epochs on the set (auto: the published protocol's)",
        auto=True,
        minimum=0,
    ),
    "eval.steps": Key(
        int, 0, "training steps on the set, in place of epochs (0: the method's own)", minimum=0
    ),
    "eval.batch": Key(int, 256, "images per training step", minimum=1),
    "eval.lr": Key(
        float,
        AUTO,
        "learning rate of SGD (auto, 0: the rate the set has learned)",
        auto=True,
        minimum=0,
    ),
    "eval.at_once": Key(
        int,
        0,
        "nets trained at a time (0: all); fewer need less memory",
        resumable=True,
        minimum=0,
    ),
    "eval.curve": Key(
        int,
        4,
        "evaluations along the way, for the accuracy curve (0: none)",
        resumable=True,
        minimum=0,
    ),
    "eval.curve_n": Key(int, 2, "nets per point of the accuracy curve", resumable=True, minimum=1),
    **TRAINING,
    "baselines.random": Key(
        int, 5, "draws of random real images of the same number (0: off)", resumable=True, minimum=0
    ),
    "scores": Key(
        bool, False, "HLR, IOR, LRS, ARS beside accuracy (docs/scores.md)", resumable=True
    ),
    "scores_weight": Key(float, 0.5, "w of LRS", resumable=True, minimum=0, maximum=1),
    "scores_gamma": Key(float, 0.5, "gamma of ARS", resumable=True, minimum=0, maximum=1),
    "baselines.full": Key(bool, True, "train on the whole dataset too", resumable=True),
    "baselines.full_epochs": Key(
        int, AUTO, "epochs on the whole dataset (auto: 50)", auto=True, resumable=True, minimum=1
    ),
    # The nets trained on real images whose trajectories are matched.
    "experts.dir": Key(str, "", "expert store, shared between runs ('': experts/ in the workdir)"),
    "experts.count": Key(int, 100, "expert trajectories", minimum=1),
    "experts.epochs": Key(
        int, AUTO, "epochs each expert is trained (auto: as many as are read)", auto=True, minimum=1
    ),
    "experts.lr": Key(float, 0.01, "expert learning rate (SGD, constant)", above=0),
    "experts.momentum": Key(float, 0.0, "expert momentum", minimum=0, maximum=1),
    "experts.weight_decay": Key(float, 0.0, "expert weight decay", minimum=0),
    "experts.sam_rho": Key(
        float, 0.0, "radius of adaptive GSAM, for flat experts (0: plain gradients)", minimum=0
    ),
    "experts.sam_alpha": Key(
        float, 0.0, "GSAM: share of the orthogonal gradient that is taken off", minimum=0
    ),
    "experts.batch": Key(int, 256, "real images per expert step", minimum=1),
    "experts.group": Key(
        int, 5, "experts trained at once: the unit of storing and resuming", minimum=1
    ),
    "experts.seed": Key(int, 0, "seed of the experts, apart from the run's", minimum=0),
    # How the run goes; nothing here changes what it computes, but for precision.
    "log_every": Key(int, 10, "steps between metrics lines", resumable=True, minimum=1),
    "checkpoint_every": Key(int, 100, "steps between checkpoints", resumable=True, minimum=1),
    "keep": Key(int, 2, "checkpoints kept", resumable=True, minimum=1),
    "devices": Key(int, 0, "devices used (0: all)", resumable=True, minimum=0),
    "precision": Key(
        str,
        "highest",
        "precision of matrix products on GPU and TPU",
        choices=("default", "high", "highest"),
        resumable=True,
    ),
    "tensorboard": Key(
        bool, False, "write TensorBoard files too (needs jdd[tensorboard])", resumable=True
    ),
    "progress": Key(bool, True, "show a progress bar on a terminal", resumable=True),
}

# Keys of the methods that differentiate through training.
UNROLLED: dict[str, Key] = {
    "unroll": Key(
        str,
        "mixed",
        "how the exact meta-gradient is computed",
        choices=("mixed", "remat", "reverse"),
    ),
}

# ... from an expert's weights, where the estimator is a choice.
ESTIMATED: dict[str, Key] = UNROLLED | {
    "estimator": Key(
        str,
        "exact",
        "meta-gradient: exact, or of the last steps, or with TESLA's frozen adjoint",
        choices=("exact", "truncated", "tesla"),
    ),
    "window": Key(int, 0, "steps that estimator=truncated differentiates through", minimum=0),
}


# Keys of the methods that match class by class (DC, DSA, DM).
CLASSWISE: dict[str, Key] = {
    "align_corners": COMMON["align_corners"]._replace(default=False),
    "pix_init": Key(
        str, AUTO, "images start as real ones or as noise", choices=("real", "noise"), auto=True
    ),
    "lr_img": Key(float, AUTO, "learning rate of the images", auto=True, minimum=0),
    "img_momentum": Key(float, 0.5, "momentum of the images' SGD", minimum=0, maximum=1),
    "batch_real": Key(int, 256, "real images of each class in a step", minimum=1),
    "classes_at_once": Key(
        int,
        0,
        "classes in one vmap; fewer need less memory (0: by the devices' own, 1 on a CPU)",
        resumable=True,
        minimum=0,
    ),
}
