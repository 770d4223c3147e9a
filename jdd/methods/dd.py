"""DD: dataset distillation (Wang, Zhu, Torralba, Efros 2018).

With S batches X_0 .. X_{S-1} of k images per class, E passes over them, T = S E:

    theta_0 ~ p(theta_0)
    theta_{t+1} = theta_t - eta_t grad_theta l(X_{t mod S}, y; theta_t),      t = 0 .. T-1
    L = l(real batch; theta_T)
    X, r <- Adam(0.01, betas 0.5, 0.999) with dL/dX, dL/dr;   eta_t = softplus(r_t)

With ``objective=adapt``, theta_0 is pretrained on another dataset than that of the real batch. With
``objective=attack``, real images of a class K get the label of class T:

    L = l(real batch, labels K replaced by T; theta_T)

l is cross-entropy, y are fixed hard labels, every step has its own rate. Both rates of Adam are
halved every 40 epochs of the real loader. p is the net's random initialisation, one fixed draw of
it, or the last snapshots of a pool of pretrained nets (``init``).

A set is stored batch by batch, in the order of use: image (s, c, i) has index (s C + c) k + i.

Differs from the authors' code: memory does not grow with activations (``config.unroll``); the
starts averaged in one step (``inits``) share its real batch; the fixed start is a function of the
seed. ``docs/methods/dd.md`` has the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.augment.crop_flip import crop_flip
from jdd.data.relabel import class_of
from jdd.matching.losses import cross_entropy, targets
from jdd.meta import unroll
from jdd.methods.base import Method, Problem, State, recipe, shuffled, student_loss
from jdd.product.distilled_set import DistilledSet
from jdd.specs.dd import Config
from jdd.training import optimisers

Tree = Any
FIXED = "dd/fixed"  # purpose of the key that the fixed start is drawn from


def raw_rate(rate: float) -> float:
    """Return r with softplus(r) = ``rate``, for rates above 0."""
    return float(rate + np.log(-np.expm1(-rate)))


def labels_of(classes: int, per_class: int, batches: int) -> np.ndarray:
    """Return the labels of a set, batch by batch and class-major within: int32 [n]."""
    return np.tile(np.repeat(np.arange(classes, dtype=np.int32), per_class), batches)


def pool(config: Config) -> tuple[range, range]:
    """Return the experts used for distillation, and those held out for evaluation."""
    count, last = config.experts.count, config.held_out
    return range(count - last), range(count - last, count)


def objective_of(config: Config, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the evaluation objective, as the recipe stores it.

    ``{"kind": "distill"}``, ``{"kind": "adapt", "source": dataset}`` or ``{"kind": "attack",
    "attack_class": K, "target_class": T}``, classes as labels.

    Raises:
      BadInput: an unknown class name.
    """
    found: dict[str, Any] = {"kind": config.objective}
    if config.objective == "adapt":
        found["source"] = config.source.name
    if config.objective == "attack":
        for name in ("attack_class", "target_class"):
            found[name] = class_of(getattr(config, name), class_names, f"config.{name}")
    return found


def _wanted(labels: jax.Array, goal: dict[str, Any]) -> jax.Array:
    """Return the labels that the trained net should predict; in an attack, K replaced by T."""
    if goal["kind"] != "attack":
        return labels
    return jnp.where(labels == goal["attack_class"], goal["target_class"], labels)


def _objective(config: Config, problem: Problem, labels: np.ndarray) -> Any:
    net, data = problem.nets["student"], problem.data
    batches = config.distill_steps
    steps = batches * config.distill_epochs
    goal = objective_of(config, data.class_names)
    target = targets(jnp.asarray(labels[: len(labels) // batches]), "hard", data.classes)

    def rows(moved: Tree, step: Tree) -> Tree:
        images = moved[step[0]["batch"]]
        weight = jnp.full(len(images), 1 / len(images), images.dtype)
        return {"images": images, "target": step[1]["target"], "weight": weight}

    def begin(item: Tree, key: jax.Array, dtype: Any) -> Tree:
        if config.init == "pretrained":
            return item["start"]
        own = rng.key(item["seed"], FIXED) if config.init == "fixed" else key
        return jax.tree.map(lambda x: x.astype(dtype), net.init(own))

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        images, rates = variables["images"], jax.nn.softplus(variables["raw"])
        init_key, augment_key = jax.random.split(key)
        variables_0 = begin(item, init_key, images.dtype)
        rest = {k: v for k, v in variables_0.items() if k != "params"}
        part = net.part(len(labels) // batches, "batch_stats" in variables_0)
        theta = unroll.unroll(
            unroll.Inner(student_loss(net), rows, part), optimisers.sgd(),
            variables_0["params"], {"lr": rates},
            images.reshape(batches, -1, *images.shape[1:]),
            {"batch": jnp.arange(steps) % batches}, config.unroll,
            {"rest": rest, "target": target.astype(images.dtype)},
            config.estimator, config.window,
        )  # fmt: skip
        real, truth = item["real"]["images"], _wanted(item["real"]["labels"], goal)
        if config.real_augment == "crop_flip":
            real = crop_flip(augment_key, real)
        out = net.apply({**rest, "params": theta}, real, train=False)
        loss = cross_entropy(out.logits, targets(truth, "hard", data.classes))
        return loss, ({}, {"lr": jnp.mean(rates)})

    return objective


def adam(config: Config, per_epoch: int) -> optax.GradientTransformation:
    """Return the outer optimiser: Adam(0.5, 0.999), halved every ``decay_epochs`` epochs."""

    def one(rate: float) -> optax.GradientTransformation:
        every = config.decay_epochs * per_epoch
        schedule = optax.exponential_decay(rate, every, 0.5, staircase=True)
        return optax.adam(schedule, b1=0.5, b2=0.999)

    parts = {"images": one(config.lr_img), "raw": one(config.lr_lr)}
    return optax.multi_transform(parts, {name: name for name in parts})


def initial_variables(config: Config, store: Any) -> dict[str, Any]:
    """Return the initial variables of an evaluation's nets, as the recipe stores them.

    Nets of an expert store have the store's settings, which identify it.
    """
    if config.init == "random":
        return {"kind": "fresh"}
    if config.init == "fixed":
        return {"kind": "fixed", "seed": config.seed, "purpose": FIXED}
    return {
        "kind": "experts",
        "experts": list(pool(config)[1]),
        "epoch": config.experts.epochs,
        "store": dict(store.settings),
    }


def make(config: Config, problem: Problem) -> Method:
    """Build DD for a resolved config and its problem."""
    data = problem.data
    ipc, classes = config.ipc, data.classes
    batches, repeats = config.distill_steps, config.distill_epochs
    k, n = config.inits, len(data.train.labels)
    labels = labels_of(classes, ipc // batches, batches)
    real = min(config.batch_real, n)

    def init(seed: int) -> State:
        images = jax.random.normal(rng.key(seed, "dd/init"), (len(labels), *data.shape))
        raw = jnp.full((batches * repeats,), raw_rate(config.lr_student), jnp.float32)
        return State({"images": images, "raw": raw}, {})

    def sample(seed: int, step: int) -> dict[str, Any]:
        rows, _ = shuffled(seed, "dd/real", step, n, real)
        indices: dict[str, Any] = {"real": np.broadcast_to(rows, (k, len(rows)))}
        if config.init == "fixed":
            indices["seed"] = np.full(k, seed, np.int32)
        if config.init == "pretrained":
            draw = rng.host(seed, "dd/start", step)
            expert = draw.choice(pool(config)[0], k)
            epoch = np.full(k, config.experts.epochs)
            indices["snapshots"] = {"start": np.stack([expert, epoch], axis=1)}
        return indices

    def distilled(state: State, steps: int) -> DistilledSet:
        rates = [float(r) for r in np.asarray(jax.nn.softplus(state.variables["raw"]))]
        train = {
            "optimizer": "sgd",
            "lr": rates,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "batch": len(labels) // batches,
            "order": "sequential",
            "steps": len(rates),
            "epochs": repeats,
            "passes": repeats,
            "drop": None,
            "init": initial_variables(config, problem.experts),
        }
        return DistilledSet(
            images=np.asarray(state.variables["images"]),
            labels=labels,
            label_kind="hard",
            lr=None,
            recipe=recipe(problem, steps, **train)
            | {"objective": objective_of(config, data.class_names)},
            transform=data.transform,
        )

    return Method(
        init=init,
        sample=sample,
        objective=_objective(config, problem, labels),
        distilled=distilled,
        optimizer=adam(config, n // real),
    )
