"""Shared state of a run's stages: config, data, nets, expert store and paths."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax

from jdd import nets, parallel, rng
from jdd.config.files import stage_names
from jdd.data import Dataset, cache, load
from jdd.data.pairs import PairDataset
from jdd.errors import BadInput
from jdd.methods.base import Problem, net_options
from jdd.methods.pairs import towers as towers_of
from jdd.nets import Net
from jdd.nets.lora import adapted, headed
from jdd.nets.towers import parts, two_towers
from jdd.pretrained import expert_training, imported
from jdd.pretrained import store as stores
from jdd.pretrained.store import Store
from jdd.pretrained.teachers import Teacher, teachers
from jdd.product import files as product_files
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.schema.common import Common
from jdd.schema.decoupled import Decoupled
from jdd.schema.pairs import Lora, PairConfig, Towers
from jdd.schema.values import section
from jdd.stages.registry import maker
from jdd.storage import failures, json_files, remote, tensors
from jdd.training.recipe import Recipe, of_keys


class RunContext:
    """The resolved config of one run and everything derived from it. Read-only once built.

    ``source`` is the dataset the experts are trained on; by default ``data`` itself.
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
        self.data: Any = data  # images or pairs, depending on the task
        self.source: Any = data if source is None else source
        self.probing: tuple[str, ...] = ()  # keys whose rates the run probes (stages/probe.py)
        self.set_directory = workdir  # directory of the sets' stored labels and their teachers
        self.writes = True  # False: another process of the run writes what is remembered
        self._own: dict[str, dict[str, Any]] = {}
        self._new: dict[str, dict[str, Any]] = {}
        self.devices: Sequence[jax.Device] = parallel.pick(config.devices)
        self.net = self.make_net(config.net.name)

    def with_config(self, config: Common) -> RunContext:
        """Return the context of the same run with another config."""
        new = RunContext(config, self.data, self.workdir, self.command, self.source)
        new.probing, new.set_directory = self.probing, self.set_directory
        new.writes, new._own, new._new = self.writes, self._own, self._new
        return new

    def make_net(self, name: str) -> Net:
        """Return the net called ``name``. The run's own net is built with the config's options.

        So is the run's own image net next to another text tower.
        """
        own = parts(name)[0] == self.config.net.name
        options = net_options(self.config) if own else {}
        if isinstance(self.data, PairDataset):
            config = cast(PairConfig, self.config)
            towers = config.towers if own else dataclasses.replace(config.towers, weights="")
            ordered = tuple(sorted(options.items()))
            return make_towers(
                name, self.data.shape, self.data.text_size, ordered, towers, config.lora
            )
        return _net(name, self.data.shape, self.data.classes, tuple(sorted(options.items())))

    def training_data(self, flat: bool = True) -> Dataset:
        """Return the training data of the experts, or of the full baseline if not ``flat``."""
        data: Dataset = self.source if flat else self.data
        return data

    @functools.cached_property
    def normalised(self) -> Dataset:
        """The dataset by its own mean and deviation, of a whitened one too."""
        if not self.data.transform.whitens:
            data: Dataset = self.data
            return data
        return load(dataclasses.replace(self.config.data, zca="none"))

    @property
    def baseline_nets(self) -> tuple[str, ...]:
        """Names of the nets that the baselines train, the first one that of the headline."""
        return self.config.baseline_nets

    @property
    def decoupled(self) -> Decoupled:
        """The config of a decoupled method, including its keys of squeeze, relabel and post."""
        return cast(Decoupled, self.config)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the data, for the user."""
        notes: tuple[str, ...] = self.data.notes
        if isinstance(self.data, PairDataset) and (path := self._weights):
            options = tuple(sorted(net_options(self.config).items()))
            size = cast(PairConfig, self.config).towers.size
            found = _imported(path, self.config.net.name, self.data.shape, size, options)
            notes += found.notes
        return notes + (self.source.notes if self.source is not self.data else ())

    @property
    def store_notes(self) -> tuple[str, ...]:
        """Sentences about the stores of this run's own experts and teachers, for the user."""
        stores = [self.store] if "experts" in stage_names(self.config) else []
        stores += [teacher.store for teacher in self.teachers if teacher.store]
        return tuple(filter(None, (store.note() for store in stores)))

    @property
    def _weights(self) -> str:
        """The file of the image tower's pretrained weights; '' for none."""
        return cast(PairConfig, self.config).towers.weights

    @property
    def weights_digest(self) -> str:
        """The hash of the image tower's pretrained weights; '' for none.

        Identities have it in place of the path: the file may move, and may change in its place.
        """
        if not isinstance(self.data, PairDataset) or not self._weights:
            return ""
        return tensors.digest(Path(self._weights))

    def recipe(self, flat: bool = True) -> Recipe:
        """Return the training recipe of the experts, or of the full baseline if not ``flat``."""
        experts, dsa = self.config.experts, self.training_data(flat).dsa
        recipe = Recipe(
            **of_keys(experts=section(self.config.experts)),
            strategy="" if dsa == "none" else dsa,
            align_corners=self.config.align_corners,
            classes=self.data.classes,
        )
        if isinstance(self.data, PairDataset):
            return recipe.replace(loss="nce")
        if flat:
            recipe = expert_training.recipe(recipe, experts)
        else:
            recipe = recipe.replace(balanced=False)
        return recipe if flat and experts.sam_rho else recipe.replace(sam_rho=0.0, sam_alpha=0.0)

    def settings(self, group: int, flat: bool = True, net: str = "") -> dict[str, Any]:
        """Return the settings of the experts, of ``net`` in place of the run's own.

        Runs share a store only if all of these agree.
        """
        experts, data = self.config.experts, self.training_data(flat)
        own = net == "" or parts(net)[0] == self.config.net.name
        options = net_options(self.config) if own else {}
        recipe = self.recipe(flat)
        # Included only where used, so that older stores stay valid.
        sam = {"sam_rho": recipe.sam_rho, "sam_alpha": recipe.sam_alpha} if recipe.sam_rho else {}
        own_draws = {"balanced": True} if recipe.balanced else {}
        own_draws |= expert_training.settings(experts) if flat else {}
        made = stores.settings(
            data, net or self.config.net.name, options, experts, group,
            dsa=data.dsa, align_corners=self.config.align_corners,
        )  # fmt: skip
        # Stores older than the kinds record kornia's whitening as 'zca'.
        made["whitening"] = {"kornia": "zca"}.get(made["whitening"], made["whitening"])
        if isinstance(self.data, PairDataset):
            made |= towers_of(cast(PairConfig, self.config))
            if self.weights_digest:
                made["towers"] = made["towers"] | {"weights": self.weights_digest}
        return sam | own_draws | made

    @functools.cached_property
    def like(self) -> Any:
        """Abstract variables of the run's net."""
        return jax.eval_shape(self.net.init, jax.random.key(0))

    @property
    def store_path(self) -> Path:
        """The path of the expert store."""
        return self._local(self.config.experts.dir or self.workdir / "experts")

    def _local(self, path: str | Path) -> Path:
        """Return a path, or the local directory of a URL."""
        return remote.local(path, cache.folder(self.config.data.cache_dir))

    @functools.cached_property
    def store(self) -> Store:
        """The expert store, validated against this run's settings."""
        return self.store_of(self.settings(self.config.experts.group))

    def store_of(self, settings: dict[str, Any]) -> Store:
        """Return the expert store, validated against ``settings``."""
        return Store(self.store_path, settings, self.like, verify=self.config.verify_files)

    @functools.cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """The nets that the dataset is squeezed into; () for methods without squeezing."""
        if "squeeze" not in stage_names(self.config):
            return ()
        return teachers(self.decoupled, self.data, self.squeeze_path)

    @property
    def squeeze_path(self) -> Path:
        """The directory of the teachers. For an external set it is next to the set."""
        own = self.decoupled.squeeze.dir if "squeeze" in stage_names(self.config) else ""
        return self._local(own or self.set_directory / "squeeze")

    @property
    def groups(self) -> int:
        """Number of expert groups. The last group may exceed the requested number of experts."""
        return -(-self.config.experts.count // self.config.experts.group)

    @property
    def problem(self) -> Problem:
        """The inputs of the method."""
        store = self.store if "experts" in stage_names(self.config) else None
        return Problem(self.data, {"student": self.net}, store, self.config, self.teachers)

    @property
    def blank(self) -> Problem:
        """The problem with untrained nets in place of experts, for cost estimates."""
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
        """Return the name under which a seed's set is made in metrics and checkpoints."""
        return f"{self.maker}{self.suffix(seed)}"

    def store_name(self, seed: int) -> str:
        """Return the path of a seed's stored labels, relative to the working directory."""
        return f"labels/set{self.suffix(seed)}"

    def suffix(self, seed: int) -> str:
        """Return the seed's suffix in names: '' for the run's first seed, else '-s<seed>'."""
        return "" if seed == self.config.seed else f"-s{seed}"

    def set_path(self, seed: int) -> Path:
        """Return the path of a seed's distilled set."""
        return self.workdir / f"distilled{self.suffix(seed)}.npz"

    def unfinished_path(self, seed: int) -> Path:
        """Return the path of a seed's set while it is being made; gone once it is finished."""
        return self.workdir / f"unfinished{self.suffix(seed)}.npz"

    def load_set(self, seed: int) -> AnyProduct:
        """Return the product of a seed."""
        return stored_set(self.set_path(seed))

    def fixed_set(self, seed: int) -> DistilledSet:
        """Return the product of a seed if it is a fixed set of images."""
        found = self.load_set(seed)
        if not isinstance(found, DistilledSet):
            raise BadInput(str(self.set_path(seed)), f"a set of kind {found.kind!r}", "images")
        return found

    def remember(self, name: str, key: str, value: Any) -> None:
        """Write one JSON value to ``checkpoints/<name>.json``, atomically.

        Raises:
          StorageError: the working directory is gone.
        """
        if not self.writes:
            for memory in (self._own, self._new):
                memory.setdefault(name, {})[key] = json.loads(json.dumps(value))
            return
        path = failures.folder(self.workdir / "checkpoints", self.workdir) / f"{name}.json"
        json_files.write(path, self.recall(name) | {key: value})

    def taken(self) -> dict[str, dict[str, Any]]:
        """Return what a process that does not write was to remember since the last call."""
        new, self._new = self._new, {}
        return new

    def recall(self, name: str) -> dict[str, Any]:
        """Return the value stored in ``checkpoints/<name>.json``."""
        # The values of a damaged file are measured again.
        path = self.workdir / "checkpoints" / f"{name}.json"
        return (json_files.recall(path) or {}) | self._own.get(name, {})


def stored_set(path: Path) -> AnyProduct:
    """Return a set of a run's own directory.

    Raises:
      BadInput: it is damaged; the checkpoint next to it makes it again.
    """
    try:
        return product_files.load(path)
    except BadInput as error:
        again = f"delete {path}, and the same command makes it again"
        raise BadInput(error.where, error.found, again) from error


class _Untrained:
    """A store of untrained experts."""

    trained = False
    settings: Mapping[str, Any] = {}

    def __init__(self, net: Net):
        self._net = net

    def read(self, expert: int, epoch: int) -> Any:
        return jax.device_get(self._net.init(rng.key(expert, "estimate", epoch)))


@functools.lru_cache(maxsize=64)
def make_towers(
    name: str,
    shape: tuple[int, int, int],
    text_size: int,
    options: tuple[tuple[str, Any], ...],
    towers: Towers,
    lora: Lora,
) -> Net:
    """Return two towers by the entries of a config or a recipe, with weights and adapters.

    Args:
      name, shape, text_size, options: as for ``two_towers``.

    Raises:
      BadInput: as ``two_towers``, ``imported.read`` and ``adapted``.
    """
    net = two_towers(
        name, shape, text_size, towers.size, options, towers.tau, towers.start == "shared"
    )
    if towers.weights:
        found = _imported(towers.weights, parts(name)[0], shape, towers.size, options)
        net = imported.fixed(net, found.variables, "image")
    if lora.rank:
        return adapted(net, lora.rank, lora.alpha)
    return headed(net) if towers.frozen else net


def validate_weights(recipe: Mapping[str, Any]) -> None:
    """Refuse a set whose file of pretrained weights is not there, or has changed since.

    Raises:
      BadInput: naming the key by which to give it.
    """
    made, path = recipe.get("weights_digest"), (recipe.get("towers") or {}).get("weights")
    if not made or not path:
        return
    place = Path(path).expanduser()
    here = tensors.digest(place) if place.is_file() else ""
    if here != made:
        found = f"{path} has digest {here}" if here else f"{path} does not exist"
        allowed = f"the file of the set, digest {made}, or --config.towers.weights=FILE with others"
        raise BadInput("config.towers.weights", found, allowed)


@functools.lru_cache(maxsize=4)
def _imported(
    path: str,
    name: str,
    shape: tuple[int, int, int],
    size: int,
    options: tuple[tuple[str, Any], ...],
) -> imported.Imported:
    image = nets.make(name, shape, size, **dict(options))
    return imported.read(Path(path).expanduser(), image, dict(options).get("act", "relu"))


@functools.lru_cache(maxsize=64)
def _net(name: str, shape: tuple[int, int, int], classes: int, options: tuple[Any, ...]) -> Net:
    # One object per net: compiled programs are cached by it.
    return nets.make(name, shape, classes, **dict(options))


def fingerprint(value: Any) -> str:
    """Return a 16-hex-digit hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
