"""Keys of the experts: nets trained on the real images."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.key import AUTO, keys_of, option


@dataclass(frozen=True)
class Experts:
    """Nets trained on real images, whose snapshots methods read."""

    dir: str = option("", "expert store, shared between runs ('': experts/ in the workdir)")
    count: int = option(100, "expert trajectories", minimum=1)
    epochs: int = option(
        AUTO, "epochs each expert is trained (auto: as many as are read)", minimum=1
    )
    lr: float = option(0.01, "expert learning rate (SGD)", above=0)
    momentum: float = option(0.0, "expert momentum", minimum=0, maximum=1)
    weight_decay: float = option(0.0, "expert weight decay", minimum=0)
    sam_rho: float = option(
        0.0, "radius of adaptive GSAM, for flat experts (0: plain gradients)", minimum=0
    )
    sam_alpha: float = option(
        0.0, "GSAM: weight of the orthogonal gradient that is subtracted", minimum=0
    )
    batch: int = option(256, "real images per expert step", minimum=1)
    group: int = option(5, "experts trained at once: the unit of storing and resuming", minimum=1)
    seed: int = option(0, "seed of the experts, apart from the run's", minimum=0)
    balanced: bool = option(
        False,
        "an epoch of the experts has as many images of each class: small classes several times",
        later=True,
        sparse=True,
    )
    schedule: str = option(
        "constant",
        "experts' rate: constant, or times 0.2 after 2/3 and after 5/6 of the epochs (multistep)",
        choices=("constant", "multistep"),
        later=True,
        sparse=True,
    )
    augment: str = option(
        "",
        "the experts' images are shown by these operations of IDC's kind, several a step, joined "
        "by '_' ('': by data.dsa, one a step)",
        later=True,
        sparse=True,
    )
    cutmix: float = option(
        0.0,
        "chance that a step of the experts shows its batch with CutMix (0: never)",
        minimum=0,
        maximum=1,
        later=True,
        sparse=True,
    )


# Keys of ``experts`` that the baseline of the whole training set follows.
FULL = ("lr", "momentum", "weight_decay", "batch", "seed")
# The others: without effect where no experts are trained.
EXPERTS_ONLY = tuple(f"experts.{name}" for name in keys_of(Experts) if name not in FULL)
