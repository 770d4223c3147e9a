"""What the stages of one run share: config, data, nets, expert store, places on disk."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax

from jdd import nets, parallel, rng
from jdd.config.files import stage_names
from jdd.data import Dataset
from jdd.data.pairs import PairDataset
from jdd.methods.base import Problem, net_options
from jdd.nets import Net
from jdd.nets.towers import two_towers
from jdd.pretrained.store import Store
from jdd.pretrained.teachers import Teacher, teachers
from jdd.product import files as product_files
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.schema.common import Common
from jdd.schema.decoupled import Decoupled
from jdd.schema.pairs import PairConfig
from jdd.schema.values import section
from jdd.stages.registry import maker
from jdd.storage.files import write_text
from jdd.training.recipe import Recipe, of_keys


class RunContext:
    """One run: the resolved config and all that is made from it; made once, then only read.

    ``source`` is the dataset that experts are trained on, ``data`` itself unless another is given.
    """

    def __init__(
        self,
        config: Common,
        data: Dataset | PairDataset,
        workdir: Path,
        command: str,
        source: Dataset | None = None,
    ):
        self.config, self.workdir, self.command = config, workdir, command
        self.data: Any = data  # of images, or of pairs: the task's stages know which
        self.source: Any = data if source is None else source
        self.beside = workdir  # where the stored labels of its sets lie, and their teachers
        self.devices: Sequence[jax.Device] = parallel.pick(config.devices)
        self.net = self.make_net(config.net.name)

    def make_net(self, name: str) -> Net:
        """Return the net called ``name``; the run's own net has the config's options."""
        own = name == self.config.net.name
        options = net_options(self.config) if own else {}
        if isinstance(self.data, PairDataset):
            towers = cast(PairConfig, self.config).towers
            ordered = tuple(sorted(options.items()))
            sizes = (self.data.text_size, towers.size)
            return two_towers(name, self.data.shape, *sizes, ordered, towers.tau)
        return _net(name, self.data.shape, self.data.classes, tuple(sorted(options.items())))

    def taught(self, flat: bool = True) -> Dataset:
        """Return what the experts are trained on; not ``flat``: the full baseline."""
        data: Dataset = self.source if flat else self.data
        return data

    @property
    def decoupled(self) -> Decoupled:
        """The config of a decoupled method, with its keys of squeeze, relabel and post."""
        return cast(Decoupled, self.config)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the data, for the user."""
        notes: tuple[str, ...] = self.data.notes
        return notes + (self.source.notes if self.source is not self.data else ())

    def recipe(self, flat: bool = True) -> Recipe:
        """Return the training recipe of the experts; not ``flat``: of the full baseline."""
        experts, dsa = self.config.experts, self.taught(flat).dsa
        recipe = Recipe(
            **of_keys(experts=section(self.config.experts)),
            strategy="" if dsa == "none" else dsa,
            align_corners=self.config.align_corners,
            classes=self.data.classes,
        )
        return recipe if flat and experts.sam_rho else recipe.replace(sam_rho=0.0, sam_alpha=0.0)

    def settings(self, group: int, flat: bool = True) -> dict[str, Any]:
        """Return what experts are made with: all that must agree for them to share a store."""
        experts, data = self.config.experts, self.taught(flat)
        recipe = self.recipe(flat)
        # Named only where they are used: what was made before they existed stays as it was.
        sam = {"sam_rho": recipe.sam_rho, "sam_alpha": recipe.sam_alpha} if recipe.sam_rho else {}
        # Stores of before there were kinds say 'zca' for kornia's.
        whitening = {"kornia": "zca"}.get(data.transform.kind, data.transform.kind)
        return sam | {
            "dataset": data.name,
            "data": data.fingerprint,
            "whitening": whitening,
            "net": self.config.net.name,
            "net_options": net_options(self.config),
            "lr": experts.lr,
            "momentum": experts.momentum,
            "weight_decay": experts.weight_decay,
            "batch": experts.batch,
            "dsa": data.dsa,
            "align_corners": self.config.align_corners,
            "seed": experts.seed,
            "group": group,
        }

    @functools.cached_property
    def like(self) -> Any:
        """Abstract variables of the run's net."""
        return jax.eval_shape(self.net.init, jax.random.key(0))

    @property
    def store_path(self) -> Path:
        """Where the expert store lies."""
        return Path(self.config.experts.dir or self.workdir / "experts")

    @functools.cached_property
    def store(self) -> Store:
        """The expert store, checked against this run's settings."""
        return self.store_of(self.settings(self.config.experts.group))

    def store_of(self, settings: dict[str, Any]) -> Store:
        """Return the expert store, checked against ``settings``."""
        return Store(self.store_path, settings, self.like)

    @functools.cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """The nets that the dataset is squeezed into; () for methods without."""
        if "squeeze" not in stage_names(self.config):
            return ()
        return teachers(self.decoupled, self.data, self.squeeze_path)

    @property
    def squeeze_path(self) -> Path:
        """Where the teachers lie; those of a set that was made elsewhere, beside it."""
        own = self.decoupled.squeeze.dir if "squeeze" in stage_names(self.config) else ""
        return Path(own or self.beside / "squeeze")

    @property
    def groups(self) -> int:
        """Number of expert groups; the last one may hold more experts than were asked for."""
        return -(-self.config.experts.count // self.config.experts.group)

    @property
    def problem(self) -> Problem:
        """The problem a method is made for."""
        store = self.store if "experts" in stage_names(self.config) else None
        return Problem(self.data, {"student": self.net}, store, self.config, self.teachers)

    @property
    def blank(self) -> Problem:
        """The problem with untrained nets in place of experts, to foretell what a run costs."""
        untrained = tuple(teacher._replace(store=None) for teacher in self.teachers)
        return self.problem._replace(experts=_Untrained(self.net), teachers=untrained)

    @property
    def seeds(self) -> list[int]:
        """Synthesis seeds."""
        return [self.config.seed + i for i in range(self.config.runs)]

    @property
    def maker(self) -> str:
        """Name of the stage that makes the set: distill, or recover."""
        return maker(stage_names(self.config))

    def stage(self, seed: int) -> str:
        """Return what the making of a seed's set is called in metrics and checkpoints."""
        return f"{self.maker}{self.suffix(seed)}"

    def store_name(self, seed: int) -> str:
        """Return where a seed's set has its stored labels, from the working directory on."""
        return f"labels/set{self.suffix(seed)}"

    def suffix(self, seed: int) -> str:
        """Return '' for the run's first seed, else '-s<seed>'."""
        return "" if seed == self.config.seed else f"-s{seed}"

    def set_path(self, seed: int) -> Path:
        """Return where the distilled set of a seed lies."""
        return self.workdir / f"distilled{self.suffix(seed)}.npz"

    def load_set(self, seed: int) -> AnyProduct:
        """Return the product of a seed."""
        return product_files.load(self.set_path(seed))

    def fixed_set(self, seed: int) -> DistilledSet:
        """Return the product of a seed that is a fixed set of images."""
        return DistilledSet.load(self.set_path(seed))

    def remember(self, name: str, key: str, value: Any) -> None:
        """Keep one JSON value under ``checkpoints/<name>.json``, atomically."""
        known = self.recall(name)
        known[key] = value
        path = self.workdir / "checkpoints" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(known, indent=1) + "\n"
        write_text(path, text)

    def recall(self, name: str) -> dict[str, Any]:
        """Return what was kept under ``checkpoints/<name>.json``."""
        path = self.workdir / "checkpoints" / f"{name}.json"
        if not path.exists():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            return {}  # a file somebody cut: its values are measured again


class _Untrained:
    """A store of experts that nobody has trained."""

    trained = False
    settings: Mapping[str, Any] = {}

    def __init__(self, net: Net):
        self._net = net

    def read(self, expert: int, epoch: int) -> Any:
        return jax.device_get(self._net.init(rng.key(expert, "estimate", epoch)))


@functools.lru_cache(maxsize=64)
def _net(name: str, shape: tuple[int, int, int], classes: int, options: tuple[Any, ...]) -> Net:
    # One object a net: compiled programs are found again by it.
    return nets.make(name, shape, classes, **dict(options))


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that stand for a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
