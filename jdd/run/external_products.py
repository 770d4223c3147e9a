"""Prepares a saved product of pairs or a saved generator for evaluation: its data and config."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from jdd import config as configs
from jdd import data, specs
from jdd.data import pairs as paired
from jdd.data import text
from jdd.errors import BadInput
from jdd.evaluation import rules
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.run import set_schema
from jdd.run import workdir as workdirs
from jdd.run.context import validate_weights
from jdd.schema.common import Common
from jdd.schema.pairs import PairConfig
from jdd.schema.protocols import OWN, PAIRS, of_pairs
from jdd.specs import Spec
from jdd.stages import protocol, validation
from jdd.training import recipe as recipes

# Entries of ``recipe["train"]`` that config keys replace.
_TRAIN = {"eval.lr": "lr", "eval.epochs": "epochs", "eval.batch": "batch", "eval.steps": "steps"}
# Facts that the product itself states.
_OWN = ("method", "pairs", "ipc", "per_class", "steps", "runs")
# The method whose keys apply if the product's own method is unknown.
_KEYS_OF = {"pairs": "random_pairs", "generator": "gaussian"}


class Ready(NamedTuple):
    """A product, its test data, the config of its evaluation and lines for the user."""

    product: AnyProduct
    dataset: Any
    config: Common
    notes: list[str]


def prepare(product: AnyProduct, loaded: configs.Loaded, directory: Path) -> Ready:
    """Return the product with the data and config named by its recipe and the user's keys.

    Raises:
      BadInput: the recipe or a key is invalid, or the product does not match the data.
    """
    assert isinstance(product, PairSet | GeneratorSet)  # the file names its kind
    given = {k: v for k, v in configs.flat(loaded.config).items() if k in loaded.explicit}
    given = {k: v for k, v in given.items() if v != configs.AUTO and k not in _OWN}
    given |= {k: v for k, v in loaded.apart.items() if k not in _OWN}
    if "towers.weights" not in given:
        validate_weights(product.recipe)
    if isinstance(product, GeneratorSet) and "ipc" in loaded.explicit:
        _validate_ipc(product, loaded.config.ipc)
    product = _retrained(product, given)
    rules.validate_recipe(product, "the product's recipe")
    spec = _spec(product, loaded, directory)
    for key in given:
        if key not in spec.keys:
            raise BadInput(f"config.{key}", f"no key of {spec.title or 'its kind'}", "leave it out")
    values = {k: v for k, v in _values(product).items() if k in spec.keys} | given
    if "ipc" in values:  # of a method with another least IPC, whose keys stand in for its own
        values["ipc"] = max(values["ipc"], int(spec.keys["ipc"].minimum or 1))
    config, _ = configs.resolve(configs.fill(spec, values))
    if config.scores:
        found = f"true, of a product of kind {product.kind!r}"
        raise BadInput("config.scores", found, "false: scores are of fixed sets of images")
    protocol.validate(config, "distill")
    workdirs.validate(directory, config)
    dataset: Any
    if isinstance(product, PairSet):
        own = cast(PairConfig, config)
        dataset = paired.load(own.data, own.text, text.of_set(product.recipe.get("text"), own.text))
    else:
        dataset = data.load(config.data)
    config, added = configs.resolve(config, shape=dataset.shape)
    notes = [*product.notes, *validation.validate_data(product, dataset)]
    dataset = dataset._replace(notes=(*(f"--set: {n}" for n in notes), *dataset.notes))
    return Ready(product, dataset, config, [n for n in added if n.startswith("nets=")])


def _validate_ipc(generator: GeneratorSet, ipc: int) -> None:
    """Refuse another IPC than the generator's own: it is stored with it."""
    if ipc != (own := generator.recipe["ipc"]):
        remedy = f"{own}, its own; another one: jdd.load(FILE).with_per_class({ipc}).save(OTHER)"
        raise BadInput("config.ipc", str(ipc), remedy)


def _retrained(product: PairSet | GeneratorSet, given: Mapping[str, Any]) -> PairSet | GeneratorSet:
    """Return the product with the user's training keys in its recipe.

    A rate replaces all rates. With E epochs the rate drops after epoch E // 2 + 1, if it drops.
    """
    train = dict(product.recipe["train"])
    longer = 1 if train.get("passes") is None else train["passes"] - train["epochs"]
    if isinstance(product, PairSet) and "protocol" in given:
        product = _by_protocol(product, str(given["protocol"]))
        lengths = (int(given.get(key) or 0) for key in ("eval.epochs", "eval.batch"))
        if published := of_pairs(str(given["protocol"]), *lengths):
            train, longer = train | published | {"loss": train["loss"]}, 0
    for key, entry in _TRAIN.items():
        if given.get(key):
            train[entry] = given[key]
    if epochs := given.get("eval.epochs"):
        train["passes"] = epochs + longer
        if train.get("drop"):
            train["drop"] = train["drop"] | {"after_epoch": epochs // 2 + 1}
        if not given.get("eval.steps"):
            train["steps"] = None
    group = {k.removeprefix("eval."): v for k, v in given.items() if k.startswith("eval.")}
    recipe = product.recipe | {"train": recipes.with_eval_keys(train, group)}
    if isinstance(product, PairSet):
        rates = {} if given.get("eval.lr") else product.rates
        return product._replace(recipe=recipe, rates=rates)
    return product.with_recipe(recipe)


def _by_protocol(product: PairSet, name: str) -> PairSet:
    """Return the pairs with the name of the protocol of their evaluation in their recipe."""
    stated = product.recipe.get("protocol", "own")
    if name not in PAIRS or name == OWN != stated:
        others = ", ".join(other for other in PAIRS if other != "own" or stated == "own")
        found = f"{name} of a set whose recipe is by {stated}"
        raise BadInput("config.protocol", found, f"one of {others}")
    return product if name == "own" else product.with_recipe(product.recipe | {"protocol": name})


def _spec(product: PairSet | GeneratorSet, loaded: configs.Loaded, directory: Path) -> Spec:
    """Return the spec of the product's method; if unknown, one with the keys of its kind."""
    found = set_schema.of_set(product, loaded.config.spec if loaded.spec else None, directory)
    if found.config is not Common:
        return found
    other = specs.get(_KEYS_OF[product.kind])
    return dataclasses.replace(found, config=other.config, task=other.task)


def _values(product: PairSet | GeneratorSet) -> dict[str, Any]:
    """Return the config values stated by a recipe, by dotted name."""
    recipe = product.recipe
    train, net = recipe["train"], recipe["net"]
    found: dict[str, Any] = {f"net.{k}": v for k, v in (net.get("options") or {}).items()}
    found |= {f"data.{k}": v for k, v in (recipe.get("data") or {}).items()}
    for section in ("text", "towers", "lora"):
        found |= {f"{section}.{k}": v for k, v in (recipe.get(section) or {}).items()}
    found |= {
        "data.name": recipe["dataset"],
        "net.name": net["name"],
        "nets": (net["name"],),
        "seed": int(recipe.get("seed") or 0),
        "steps": int(recipe.get("steps") or 0),
        "eval.epochs": int(train["epochs"]),
        "eval.batch": int(train["batch"]),
        "eval.steps": int(train["steps"] or 0),
        "eval.lr": float(train["lr"] or 0.0),
        "baselines.full": False,
        **recipes.eval_keys(train),
    }
    if isinstance(product, PairSet):
        return found | {"pairs": product.size, "protocol": recipe.get("protocol", "own")}
    # The classifier of the figures trains for minutes: enabled by --config.quality.images=1000.
    found["quality.images"] = 0
    return found | {"ipc": int(recipe["ipc"]), "per_class": product.per_class}
