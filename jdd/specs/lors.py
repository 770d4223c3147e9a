"""LoRS: pairs with a learned low-rank similarity (Xu et al., ICML 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from jdd.schema.key import like, option
from jdd.schema.pairs import PairConfig
from jdd.specs import vl
from jdd.specs.base import Spec


@dataclass(frozen=True)
class Config(vl.Config):
    """Keys of LoRS."""

    protocol: str = like(PairConfig, "protocol", default="lors")
    loss: str = like(vl.Config, "loss", default="wbce")
    sim_rank: int = option(10, "r: rank of the similarity off its diagonal (0: none)", minimum=0)
    sim_alpha: float = option(1.0, "alpha: weight of the low-rank part", minimum=0)
    lr_sim: float = option(0.1, "learning rate of the similarity's w, L and R", minimum=0)


# Found by trials on seeds 0 to 2: docs/methods/lors.md, Traps.
STARTS = {
    "digits_captions": {
        **vl.STARTS["digits_captions"],
        "sim_rank": 4, "lr_sim": 0.1, "lr_student": 0.03, "lr_lr": 1e-4,
    },
    # By weighted BCE students of these experts stay at chance.
    "flickr8k": {**vl.STARTS["flickr8k"], "loss": "nce"},
}  # fmt: skip

SPEC = Spec(
    name="lors",
    title="LoRS",
    make="jdd.methods.lors:make",
    config=Config,
    task="retrieval",
    defaults=vl.DEFAULTS,
    starts=STARTS,
    derived=vl.DERIVED,
    validate=vl.validate,
)
