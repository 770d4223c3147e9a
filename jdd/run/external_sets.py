"""Evaluation of a saved set, jdd's or a foreign one: ``--mode=evaluate --set=PATH``.

The set's own recipe applies; the user's keys override it. The available keys are those of the
method that made the set, or the common ones if the method is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jdd import config as configs
from jdd import data, interop, tasks
from jdd import report as html
from jdd.errors import BadInput
from jdd.evaluation import rules
from jdd.product import files as product_files
from jdd.product import preview
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.run import external_products, metrics, set_schema
from jdd.run import workdir as workdirs
from jdd.run.context import RunContext, fingerprint
from jdd.run.options import Options
from jdd.run.result import finish, read
from jdd.run.session import Session, locked
from jdd.schema.common import COMMON
from jdd.schema.experts import FULL
from jdd.specs import Spec
from jdd.stages import (
    baselines,
    classifier,
    evaluate,
    full,
    protocol,
    quality,
    report,
    scores,
    validation,
)
from jdd.stages.base import guarded, validate_memory
from jdd.stages.label_stores import labels as labels_of
from jdd.stages.label_stores import random as labels_of_random
from jdd.stages.label_stores import stored
from jdd.storage import failures, remote
from jdd.training import recipe as recipes

# Facts about a set that the user may state, by key.
STATED = {
    "data.name": "dataset",
    "data.zca": "zca",
    "eval.lr": "lr",
    "eval.epochs": "epochs",
    "eval.batch": "batch",
    "eval.steps": "steps",
    "data.dsa": "dsa",
    "align_corners": "align_corners",
    "space": "space",
    "net.name": "net",
}
# Values of these keys that defer to the set.
DEFERRED = {"eval.lr": 0.0, "space": "file"}


def run(
    loaded: configs.Loaded, set_path: str, workdir: str | None, command: str, options: Options
) -> dict[str, Any]:
    """Evaluate the set at ``set_path`` on the nets of the config; return result.json.

    Raises:
      BadInput: the set is unreadable, or its dataset is unknown or unavailable.
    """
    source = product_files.set_path(set_path)
    directory = Path(workdir or f"runs/evaluate-{source.resolve().parent.name}-{source.stem}")
    _validate_workdir(directory)
    own = source.is_dir() or source.suffix.lower() == ".npz"
    if own and product_files.kind(source) != "images":
        ready = external_products.prepare(interop.load(source), loaded, directory)
        return _measure(ready, source, directory, command, options)
    flat = configs.flat(loaded.config)
    given = {k: flat[k] for k in loaded.explicit if k in COMMON and flat[k] != configs.AUTO}
    given.pop("method", None)
    stated = {key: v for key, v in given.items() if key in STATED and DEFERRED.get(key) != v}
    known = {STATED[key]: value for key, value in stated.items()}
    with guarded("data", loaded.config):
        dset, dataset = _read(source, known, given)
    train = recipes.with_eval_keys(dset.recipe["train"], _group(given, "eval"))
    dset = dset._replace(recipe=dset.recipe | {"train": train})
    where = f"--set={source}"
    rules.validate_recipe(dset, where)
    spec = set_schema.of_set(dset, loaded.config.spec if loaded.spec else None, directory)
    typed = set_schema.typed(loaded, spec, dset, directory)
    dset = set_schema.retrained(dset, typed)
    rules.validate_recipe(dset, where)
    values = _experts(dset, source) | _values(dset, source, given, spec) | typed
    config, notes = configs.resolve(configs.fill(spec, values), shape=dataset.shape)
    notes = [line for line in notes if line.startswith("nets=")]  # the rest concerns distillation
    workdirs.validate(directory, config)
    assumed = [*dset.notes, *validation.validate_data(dset, dataset)]
    if not dset.recipe["jdd_version"] and dset.lr is None and "lr" not in known:
        assumed.append(f"it names no learning rate: nets are trained at {rules.rate(dset)}")
    dataset = dataset._replace(notes=(*(f"--set: {note}" for note in assumed), *dataset.notes))
    scores.validate(config, tasks.objective(dset.recipe)["kind"])
    protocol.validate(config, tasks.objective(dset.recipe)["kind"])
    return _measure(
        external_products.Ready(dset, dataset, config, notes), source, directory, command, options
    )


def rewrite_report(directory: Path) -> dict[str, Any]:
    """Rewrite the report of a finished evaluation from its files; return result.json.

    Raises:
      BadInput: the evaluation has no result yet.
    """
    if not (directory / "result.json").is_file():
        found = f"the evaluation in {directory} has no result yet"
        raise BadInput("--mode=report", found, "--mode=evaluate --set=... again, to the end")
    with locked(directory):
        html.write(directory)
    return read(directory)


def _measure(
    ready: external_products.Ready, source: Path, directory: Path, command: str, options: Options
) -> dict[str, Any]:
    """Evaluate a product with its data and config already prepared; return result.json."""
    dset, dataset, config, notes = ready
    workdirs.pull_stores(config)
    where = f"--set={source}"
    context = RunContext(config, dataset, directory, command)
    context.set_directory = source.resolve().parent
    # Of the set as it is in its file, before its whitening is fitted to the real images.
    digest, labels = workdirs.digest(dset), list[Any]()
    dset = _fitted(dset, dataset)
    if isinstance(dset, DistilledSet) and stored(dset.recipe):
        labels = _labels(context, dset)
    evaluation_id = fingerprint([digest, labels]) if labels else digest
    # Of the labels only the set's own count: random images may be added later.
    set_digest = fingerprint([digest, labels[0]]) if labels else digest
    _validate_same_set(directory, dset, set_digest, evaluation_id)
    validate_memory(context)
    validation.validate(context, dset, where)
    if config.tensorboard:
        metrics.writer()
    if config.wandb:
        metrics.validate_wandb()
    if measures := quality.STAGE.name in configs.stage_names(config):
        classifier.validate(context)
    protocol.validate_nets(context)
    if measures or protocol.STAGE.on(context) or not full.STAGE.done(context):
        workdirs.writable_cache(context)
    dset = dset.with_recipe(dset.recipe | {"fingerprint": evaluation_id, "seed": config.seed})
    precision = jax.default_matmul_precision(config.train_precision or config.precision)
    with precision, locked(directory), failures.guarded(directory):
        # Another command may have run in the meantime.
        _validate_workdir(directory)
        _validate_same_set(directory, dset, set_digest, evaluation_id)
        session = Session(
            directory, config.tensorboard, config.progress, wandb=config.wandb, options=options
        )
        with session.signals():
            before = context.recall(workdirs.SET_FILE).get("data", dataset.fingerprint)
            context.remember(workdirs.SET_FILE, "digest", set_digest)
            context.remember(workdirs.SET_FILE, "data", dataset.fingerprint)
            if before != dataset.fingerprint:
                session.warn("the real images have changed since the last command: measured anew")
            workdirs.write_config(context)
            made_from = dset.recipe.get("data_fingerprint")
            if made_from and made_from != dataset.fingerprint and not dset.transform.whitens:
                session.say("these are not the real images that the set was made from")
            for line in (*notes, *dataset.notes):
                session.say(line)
            dset.save(context.set_path(config.seed))
            preview.save(dset, directory / "distilled.png")
            if words := preview.unnamed(dset):
                session.say(f"distilled.png: {words}")
            measured = [evaluate.STAGE, full.STAGE, scores.STAGE]
            measured += [quality.STAGE] * measures + [protocol.STAGE]
            for stage in measured:
                if not stage.done(context):
                    with guarded(stage.name, config, dataset):
                        stage.run(context, session)
                    remote.push()
            report.STAGE.run(context, session)
            return finish(context)


def _validate_workdir(directory: Path) -> None:
    if workdirs.holds_run(directory):
        raise BadInput("--workdir", f"{directory} holds its own run", "give --workdir=OTHER")


def _validate_same_set(
    directory: Path, dset: AnyProduct, set_digest: str, evaluation_id: str
) -> None:
    """Refuse a directory with the evaluation of another set or of an older version of this one.

    Args:
      set_digest: the set's digest, as returned by ``workdir.evaluated_digest``.
      evaluation_id: fingerprint of the set's evaluation.
    """
    path, found = directory / "distilled.npz", workdirs.evaluated_digest(directory)
    if found == set_digest or found is None and not path.exists():
        return
    if found is None:  # written before set.json was
        saved = product_files.load(path)
        if rules.rate(saved) is None:  # it was refused because it has no rate
            train = saved.recipe["train"] | {"lr": dset.recipe["train"]["lr"]}
            saved = saved.with_recipe(saved.recipe | {"train": train})
        same_digest = workdirs.digest(saved) == workdirs.digest(dset)
        if saved.recipe["fingerprint"] == evaluation_id or same_digest:
            return
    found = f"{directory} holds the evaluation of another set, or of this one before it changed"
    raise BadInput("--workdir", found, "give --workdir=OTHER")


def _read(
    source: Path, known: dict[str, Any], given: Mapping[str, Any]
) -> tuple[DistilledSet, Any]:
    """Return the set as it is in its file, and its real test data."""
    if not source.exists():
        raise BadInput(f"--set={source}", "no such file or folder", "the path of a distilled set")
    try:
        dset = _loaded(source, **known)
    except interop.NeedsTransform:
        if "data.name" not in given:
            raise
        # Foreign whitened tensors: the whitening is refitted on the real data.
        dataset = data.load(_data({"dataset": given["data.name"], "data": {}}, given))
        known = known | {"transform": dataset.transform}
        return _named(_loaded(source, **known), source, known, dataset), dataset
    if dset.transform.fitted:
        dataset = data.load(_data(dset.recipe, given))
        return _named(dset, source, known, dataset), dataset
    dataset = data.load(_data(dset.recipe, {**given, "data.zca": dset.transform.kind}))
    dset = _named(dset, source, known, dataset)
    if dset.recipe.get("data_fingerprint") != dataset.fingerprint:
        words = "its whitening is fitted to these images, which are not those that it was made from"
        dset = dset._replace(notes=(*dset.notes, words))
    return dset, dataset


def _fitted(dset: AnyProduct, dataset: Any) -> AnyProduct:
    """Return a set with the whitening that its file leaves out, as fitted to the real images."""
    if not isinstance(dset, DistilledSet) or dset.transform.fitted:
        return dset
    return dset._replace(transform=dataset.transform)


def _named(
    dset: DistilledSet, source: Path, known: dict[str, Any], dataset: data.Dataset
) -> DistilledSet:
    """Reread a set without class names, using the class names of the real data."""
    if dset.named or dset.class_names == dataset.class_names:
        return dset
    return _loaded(source, **known, class_names=dataset.class_names)


def _loaded(source: Path, **known: Any) -> DistilledSet:
    """Return the set; errors about entries of ``known`` name the corresponding key."""
    try:
        found = interop.load(source, **known)
    except BadInput as error:
        word = error.allowed.removeprefix("leave out ").partition("=")[0]
        for key, name in STATED.items():
            if error.allowed.startswith("leave out ") and name == word:
                allowed = f"leave out --config.{key}"
                raise BadInput(error.where, error.found, allowed) from error
        raise
    assert isinstance(found, DistilledSet)
    return found


def _group(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values of a group of keys, by the last part of their names."""
    return {k.removeprefix(f"{name}."): v for k, v in given.items() if k.startswith(f"{name}.")}


def _data(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    stated = {key.removeprefix("data."): v for key, v in given.items() if key.startswith("data.")}
    zca = stated.get("zca", "none")
    merged = {**dict(recipe.get("data") or {}), "name": recipe["dataset"], **stated, "zca": zca}
    if not merged.get("source"):
        merged["source"] = "auto"
    return merged


def _values(
    dset: DistilledSet, source: Path, given: Mapping[str, Any], spec: Spec
) -> dict[str, Any]:
    """Return the config's values: the set's own settings, overridden by the user's."""
    recipe = dset.recipe
    train, options = recipe["train"], recipe["net"].get("options") or {}
    values: dict[str, Any] = {f"net.{k}": v for k, v in options.items()}
    values |= {f"data.{k}": v for k, v in (recipe.get("data") or {}).items()}
    full = recipe.get("full") or {}  # older and foreign sets do not state it: the defaults
    values |= {f"experts.{name}": full[name] for name in FULL if name in full}
    values |= {f"baselines.{name}": full[name] for name in ("full_epochs",) if name in full}
    values |= {
        "align_corners": bool(recipe["augment"]["align_corners"]),
        "data.name": recipe["dataset"],
        "net.name": recipe["net"]["name"],
        "nets": (recipe["net"]["name"],),
        "ipc": max(1, len(dset.images) // dset.classes),
        "seed": int(recipe.get("seed") or 0),
        "steps": int(recipe.get("steps") or 0),
        "eval.epochs": int(train["epochs"]),
        "eval.batch": int(train["batch"]),
        "eval.steps": int(train["steps"] or 0),
        **recipes.eval_keys(train),
        # Hours on a large set: enabled by --config.baselines.full=true, or by scores.
        "baselines.full": bool(given.get("scores", False)),
        "baselines.hard": False,  # twice the nets: enabled by --config.baselines.hard=true
    }
    if stored(recipe):  # random images have teachers' labels only where the run made them
        draws = [p for p in (source.resolve().parent / "labels").glob("random-*") if p.is_dir()]
        values["baselines.random"] = len(draws)
        values |= set_schema.learning(recipe)
    known = {k: v for k, v in values.items() if k in spec.keys}
    fixed = {k: values[k] for k in ("ipc", "steps")} | {"runs": 1, "data.zca": dset.transform.kind}
    return known | dict(given) | fixed


def _labels(context: RunContext, dset: DistilledSet) -> list[Any]:
    """Return the settings of the stored labels next to a set; refuse labels that do not match it.

    Raises:
      BadInput: the labels are missing, too few, or of other images; or scores are requested.
    """
    if context.config.scores:
        allowed = "false: the random images next to the set show what stored labels do"
        raise BadInput("config.scores", "true, of a set of stored labels", allowed)
    stores = [labels_of(context, dset)]
    if draws := context.config.baselines.random:
        stores += labels_of_random(context, dset, baselines.random_sets(context, dset, draws)[0])
    return [store.settings for store in stores]


def _experts(dset: DistilledSet, source: Path) -> dict[str, Any]:
    """Return the path of the trained nets that a set was made for, if they are next to it."""
    experts = source.resolve().parent / "experts"
    made_for = dset.recipe["train"]["init"]["kind"] == "experts"
    return {"experts.dir": str(experts)} if made_for and experts.is_dir() else {}
