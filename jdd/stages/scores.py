"""Stage ``scores``: DD-Ranking's scores (``jdd/evaluation/scores.py``); off by default.

Every accuracy is measured once and stored in ``checkpoints/scores.json``; accuracies already
measured by the stages evaluate and full are reused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jdd.data import Dataset
from jdd.data.catalogue import default_dsa, lookup
from jdd.errors import BadInput
from jdd.evaluation.predict import outputs
from jdd.evaluation.scores import scores
from jdd.matching import losses
from jdd.nets import Net
from jdd.product.distilled_set import DistilledSet
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.schema.common import Common
from jdd.stages import baselines, costs, evaluate, full
from jdd.stages.base import Estimate, Stage

PROTOCOL = (
    "accuracies are those of the final step, never the best on test data",
    "the learning rate is the recipe's, never searched for",
    "each accuracy is measured once; std is the population's over its n nets",
    "nets start and shuffle alike with and without augmentation, and whatever the labels",
    "the whole set trains one net, by the recipe of the full baseline",
)


def validate(config: Common, kind: str) -> None:
    """Refuse scores where they are undefined. ``kind`` is that of ``tasks.objective``.

    Raises:
      BadInput: naming the conflicting key.
    """
    if not config.scores:
        return
    if config.spec.task != "classify":
        allowed = "false: scores are of sets of labelled images"
        raise BadInput("config.scores", f"true, of a set for {config.spec.task}", allowed)
    if kind != "distill":
        allowed = "false: scores are of sets that train fresh nets"
        raise BadInput("config.scores", f"true, of a set to {kind} trained nets", allowed)
    if not config.baselines.full:
        allowed = "--config.baselines.full=true with it, the whole set's accuracy"
        raise BadInput("config.scores", "true with baselines.full=false", allowed)


def switched(dset: DistilledSet, data: Dataset) -> DistilledSet:
    """Return the set with augmentation switched on if its recipe has none, and off otherwise.

    The added augmentation is DSA with the strategy of the data, or the dataset's usual strategy if
    the data have none.
    """
    augment = dset.recipe["augment"]
    if augment["name"] != "none":
        new = {"name": "none", "strategy": ""}
    else:
        facts = lookup(data.name)
        usual = facts.dsa if facts else default_dsa(data.shape[-1])
        new = {"name": "dsa", "strategy": usual if data.dsa in ("", "none") else data.dsa}
    return dset._replace(recipe=dset.recipe | {"augment": augment | new})


def hardened(dset: DistilledSet) -> DistilledSet:
    """Return the set with its labels replaced by their classes, as targets on the same scale."""
    hard = dset.classes_of_images
    if dset.label_kind == "centred":
        return dset._replace(labels=np.asarray(losses.centred(hard, dset.classes)))
    return dset._replace(labels=hard, label_kind="hard")


def _net(context: RunContext) -> Net:
    """Return the net of every accuracy: the first of the baselines' nets."""
    return context.make_net(context.baseline_nets[0])


def _draws(context: RunContext) -> int:
    return context.config.baselines.random or context.config.eval.n


def _jobs(context: RunContext, dset: DistilledSet) -> dict[str, str]:
    """Return the measurements to make: name -> the key of its stored result."""
    identity = evaluate.settings(context) | {
        "set": dset.recipe["fingerprint"],
        "seed": context.seeds[0],
    }
    soft, net = dset.label_kind != "hard", _net(context).name
    other = [] if net == context.net.name else [net]  # the run's own net is in ``identity``
    names = ["syn", "syn_switched", *(["syn_hard"] if soft else []), "random", "random_switched"]
    teacher = full.STAGE.fingerprint(context) if soft else ""
    return {name: fingerprint([identity, name, _draws(context), teacher, *other]) for name in names}


def _taken(context: RunContext, dset: DistilledSet, name: str) -> dict[str, Any] | None:
    """Return the measurement of stage evaluate, None if there is none."""
    hard, random = dset.label_kind == "hard", context.config.baselines.random
    job = evaluate.Job(context.seeds[0], context.baseline_nets[0])
    if name == "syn":
        return evaluate.measured(context, job)
    same = name == "random" and hard and random
    return evaluate.measured(context, job._replace(kind=evaluate.RANDOM)) if same else None


def _teacher(
    context: RunContext, dset: DistilledSet, session: Session
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return a function from training rows to soft labels by the full baseline's net.

    The labels are logits z, their softmax p, or p - 1/classes, by the set's label kind; None for a
    set with hard labels.
    """
    if dset.label_kind == "hard":
        return None
    variables, train = full.trained(context, session), context.data.train
    net = _net(context)

    def soft(rows: np.ndarray) -> np.ndarray:
        logits = outputs(net, variables, train.images[rows], session).logits
        if dset.label_kind == "logits":
            return logits
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = shifted / shifted.sum(axis=1, keepdims=True)
        return np.asarray(losses.centre(p)) if dset.label_kind == "centred" else p

    return soft


# What the progress bar of each measurement is called.
_LABELS = {
    "syn": "the set", "syn_switched": "the set, augmentation switched",
    "syn_hard": "the set, hard labels", "random": "random images",
    "random_switched": "random images, augmentation switched",
}  # fmt: skip


def _measure(
    context: RunContext, dset: DistilledSet, name: str, session: Session
) -> dict[str, Any]:
    sets = {"switched": switched(dset, context.data), "hard": hardened(dset)}
    kind, _, change = name.partition("_")
    label = f"scores, {_LABELS[name]}"
    one, net = sets.get(change, dset), _net(context)
    if kind == "random":
        soft = _teacher(context, dset, session)
        return baselines.measure_random(context, one, _draws(context), session, soft, net, label)
    n, test = context.config.eval.n, context.data.test
    return evaluate.measure(context, one, net, n, test, "evaluate", session, label=label)


def _run(context: RunContext, session: Session) -> None:
    session.metrics.start("scores")
    dset, known = context.fixed_set(context.seeds[0]), context.recall("scores")
    for step, (name, key) in enumerate(_jobs(context, dset).items(), 1):
        here = known.get(key)
        if here is None:
            found = _taken(context, dset, name) or _measure(context, dset, name, session)
            here = {k: found[k] for k in ("mean", "std", "n", "values")}
        session.metrics.log("scores", step, accuracy=here["mean"], n=here["n"], what=name)
        if key not in known:  # last: with it the accuracy is complete
            context.remember("scores", key, here)
            known = context.recall("scores")


def results(context: RunContext) -> dict[str, Any] | None:
    """Return the scores as stored in result.json; None if they are off or not yet measured."""
    whole = full.result(context)
    if (
        not context.config.scores
        or whole is None
        or not context.set_path(context.seeds[0]).exists()
    ):
        return None
    dset, known = context.fixed_set(context.seeds[0]), context.recall("scores")
    jobs = _jobs(context, dset)
    if not all(key in known for key in jobs.values()):
        return None
    at = {name: known[key] for name, key in jobs.items()} | {"whole": whole}
    soft, augments = "syn_hard" in at, dset.recipe["augment"]["name"] != "none"
    at.setdefault("syn_hard", at["syn"])
    for kind in ("syn", "random"):
        pair = (at[kind], at.pop(f"{kind}_switched"))
        at[f"{kind}_aug"], at[f"{kind}_noaug"] = pair if augments else pair[::-1]
    weight, gamma = context.config.scores_weight, context.config.scores_gamma
    found = scores({name: a["mean"] for name, a in at.items()}, soft, weight, gamma)
    added = switched(dset, context.data).recipe["augment"]["strategy"]
    return {
        **found._asdict(),
        "weight": weight,
        "gamma": gamma,
        "net": _net(context).name,
        "labels": dset.label_kind,
        "random_labels": "hard" if not soft else f"{dset.label_kind} of the whole set's net",
        "augmentation": dset.recipe["augment"]["strategy"] if augments else added,
        "augmentation_of": "the recipe" if augments else "the data; the recipe has none",
        "accuracy": at,
        "protocol": list(PROTOCOL),
    }


def _done(context: RunContext) -> bool:
    return not context.config.scores or results(context) is not None


def _estimate(context: RunContext) -> Estimate:
    """Estimate the measurements that evaluate and full have not made."""
    dset = costs.example(context)
    soft = isinstance(dset, DistilledSet) and dset.label_kind != "hard"
    nets = context.config.eval.n * (1 + soft) + _draws(context) * (1 + soft)
    one = costs.cost(context, _net(context), nets)
    return one._replace(note=f"{one.note}, beyond what evaluate trains")


STAGE = Stage(
    name="scores",
    fingerprint=lambda context: fingerprint(results(context)),
    run=_run,
    estimate=_estimate,
    done=_done,
    on=lambda context: context.config.scores,
)
