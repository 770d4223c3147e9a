"""FRePo: neural feature regression with pooling (Zhou, Nezhadarya & Ba, NeurIPS 2022).

phi_theta are a net's features, the input of its last layer; X, Y the synthetic images and labels.
With a net of a pool, theta, and a real batch x_t with y_t = one-hot - 1/C:

    K = phi(X) phi(X)^T,   K_t = phi(x_t) phi(X)^T
    p = K_t (K + 1e-6 tr(K)/n I)^-1 Y
    L = mean_t 0.5 |p_t - y_t|^2 + w mean_j -min(top1(Y_j) - top2(Y_j), 1/C)
    X, Y <- LAMB step with dL/dX, dL/dY, the rate falling to a tenth by a cosine
    theta <- Adam step with grad_theta mean_j 0.5 |f_theta(X_j) - Y_j|^2
    theta' = any net of the pool, for the next step

No gradient passes through training: theta is a constant. A net is replaced by a fresh one after
more than ``pool_steps`` steps; the counters start evenly spread. With ``flip`` the mirror images of
X, with the same labels, are used in the regression only. Labels are learned, starting from
(one-hot - 1/C) / sqrt(C/10).

The pool (weights, running statistics, Adam's moments, counters and the index of the next member) is
the state's ``aux``: it is checkpointed, and every draw is a function of seed and step.

Differs from the authors' code: a net is replaced in the step in which its counter exceeds
``pool_steps``, theirs at its next draw, after one more matching step of X; a resumed run restores
its pool and equals an uninterrupted one bit for bit; the length of the schedule is ``decay_steps``.
``docs/methods/frepo.md`` has the rest.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import nets, rng
from jdd.matching.losses import centred, squared_error
from jdd.matching.ridge import label_margin, predict
from jdd.methods.base import (
    Method,
    Problem,
    State,
    first_images,
    net_options,
    recipe,
    shuffled,
)
from jdd.nets import Net
from jdd.parallel.parts import each
from jdd.product.distilled_set import DistilledSet
from jdd.specs.frepo import Config
from jdd.training import optimisers

Tree = Any

# Training steps of an evaluation by the number of synthetic images, as published.
STEPS = {10: 1000, 100: 2000, 200: 20000, 400: 5000, 500: 5000, 1000: 10000, 2000: 40000}


def test_steps(n: int) -> int:
    """Return the training steps on ``n`` images: those of the published n nearest by ratio.

    Ties go to the larger n.
    """
    return STEPS[min(STEPS, key=lambda known: (abs(np.log(n / known)), -known))]


def features(net: Net, variables: Tree, images: jax.Array) -> jax.Array:
    """Return a net's features ``[n, d]`` with running statistics, in parts of the images."""
    part = net.part(len(images))
    return each(lambda x: net.apply(variables, x).features, images, part)


def pool_net(config: Config, problem: Problem) -> Net:
    """Return the run's net with the pool's normalisation."""
    options = net_options(config)
    if config.pool_norm != "own":
        options["norm"] = config.pool_norm
    return nets.make(config.net.name, problem.data.shape, problem.data.classes, **options)


class Pool:
    """Pool of nets to match X on: stacked members, optimiser, counters, the next member."""

    def __init__(self, net: Net, size: int, most: int, rate: float, batch: int):
        self.net, self.size, self.most, self.rate, self.batch = net, size, most, rate, batch
        self._adam = optimisers.adam()

    def init(self, key: jax.Array) -> Tree:
        """Return fresh nets with counters 0, most/size, 2 most/size, ...; next is the first."""
        members = jax.vmap(self._fresh)(jax.random.split(key, self.size))
        count = jnp.arange(self.size, dtype=jnp.int32) * self.most // self.size
        return {"members": members, "count": count, "at": jnp.zeros((), jnp.int32)}

    def _fresh(self, key: jax.Array) -> Tree:
        variables = self.net.init(key)
        return {"variables": variables, "adam": self._adam.init(variables["params"])}

    def current(self, pool: Tree) -> Tree:
        """Return the variables of the next member."""
        return jax.tree.map(lambda a: a[pool["at"]], pool["members"]["variables"])

    def advance(self, pool: Tree, images: jax.Array, labels: jax.Array, key: jax.Array) -> Tree:
        """Train the next member one step, reset it beyond ``pool_steps``, choose another.

        Args:
          images, labels: the whole set; a random part if it has more images than ``batch``.
        """
        fresh_key, rows_key, next_key = jax.random.split(key, 3)
        at = pool["at"]
        if len(images) > self.batch:
            rows = jax.random.permutation(rows_key, len(images))[: self.batch]
            images, labels = images[rows], labels[rows]
        member = jax.tree.map(lambda a: a[at], pool["members"])
        member, count = self._train(member, images, labels), pool["count"][at] + 1
        past = count > self.most
        member = jax.lax.cond(past, lambda m: self._fresh(fresh_key), lambda m: m, member)
        members = jax.tree.map(lambda a, new: a.at[at].set(new), pool["members"], member)
        return {
            "members": members,
            "count": pool["count"].at[at].set(jnp.where(past, 0, count)),
            "at": jax.random.randint(next_key, (), 0, self.size, jnp.int32),
        }

    def _train(self, member: Tree, images: jax.Array, labels: jax.Array) -> Tree:
        variables = member["variables"]

        def loss(params: Tree) -> tuple[jax.Array, Tree]:
            out = self.net.apply({**variables, "params": params}, images, train=True)
            return squared_error(out.logits, labels), out.stats

        grads, stats = jax.grad(loss, has_aux=True)(variables["params"])
        params, adam = self._adam.update(
            grads, member["adam"], variables["params"], {"lr": self.rate}
        )
        new = {**variables, "params": params} | ({"batch_stats": stats} if stats else {})
        return {"variables": new, "adam": adam}


def _objective(config: Config, pool: Pool, classes: int) -> Any:
    weight, flip = config.margin_weight, bool(config.flip)

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        images, labels, real = variables["images"], variables["labels"], item["real"]
        net = jax.tree.map(lambda a: a.astype(images.dtype), pool.current(aux))
        margin = label_margin(labels, 1 / classes)
        learned = labels
        if flip:
            images = jnp.concatenate([images, images[:, :, ::-1]])
            learned = jnp.concatenate([labels, labels])
        queries = features(pool.net, net, real["images"])
        found, ridge = predict(pool.net.apply(net, images).features, learned, queries)
        target = jax.nn.one_hot(real["labels"], classes, dtype=found.dtype) - 1 / classes
        regression = squared_error(found, target)
        right = jnp.argmax(found, axis=-1) == real["labels"]
        metrics = {
            "regression": regression,
            "margin": margin,
            "ridge": ridge,
            "real_accuracy": jnp.mean(right.astype(found.dtype)),
        }
        return regression + weight * margin, ({}, metrics)

    return objective


def lamb(config: Config) -> optax.GradientTransformation:
    """Return LAMB for images and labels: betas 0.9, 0.999, eps 1e-6, no weight decay.

    u = m^ / (sqrt(v^) + eps),   X <- X - rate_t (|X| / |u|) u,   |.| over the whole of X, or of Y

    rate_t decreases from the rate to a tenth of it over ``decay_steps`` by a cosine, then stays.

    Source: You et al., Large Batch Optimization for Deep Learning, ICLR 2020, algorithm 2.
    """

    def one(rate: float) -> optax.GradientTransformation:
        steps = max(1, config.decay_steps)
        schedule = optax.cosine_decay_schedule(rate, steps, alpha=0.1)
        return optax.lamb(schedule, b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.0)

    parts = {"images": one(config.lr_img), "labels": one(config.lr_label)}
    return optax.multi_transform(parts, {name: name for name in parts})


def training(config: Config, n: int) -> dict[str, Any]:
    """Return the training on ``n`` images as a recipe's section ``train``."""
    steps = config.eval.steps or test_steps(n)
    return {
        "optimizer": "adam",
        "lr": config.lr_student,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "batch": min(n, 500),
        "drop": None,
        "loss": "squared_error",
        "steps": steps,
        "schedule": {"kind": "warmup_cosine", "warmup": 500, "final": 0.01},
    }


def make(config: Config, problem: Problem) -> Method:
    """Build FRePo for a resolved config and its problem."""
    data = problem.data
    hard = np.repeat(np.arange(data.classes, dtype=np.int32), config.ipc)
    parts, n = config.real_parts, len(data.train.labels)
    batch = min(config.batch_real, n) // parts * parts
    pool = Pool(
        pool_net(config, problem), config.pool_size, config.pool_steps,
        config.lr_pool, config.batch_pool,
    )  # fmt: skip

    def init(seed: int) -> State:
        images = jnp.asarray(
            first_images(problem, config.pix_init, seed, "frepo/init"), jnp.float32
        )
        variables = {"images": images, "labels": centred(jnp.asarray(hard), data.classes)}
        return State(variables, pool.init(rng.key(seed, "frepo/pool")))

    def sample(seed: int, step: int) -> dict[str, Any]:
        rows, _ = shuffled(seed, "frepo/real", step, n, batch)
        return {"real": rows.reshape(parts, -1)}

    def advance(state: State, key: jax.Array) -> State:
        now = state.variables
        return state._replace(aux=pool.advance(state.aux, now["images"], now["labels"], key))

    def distilled(state: State, done: int) -> DistilledSet:
        own = {"name": "none" if config.augment == "none" else "frepo"}
        own["strategy"] = "" if config.augment == "none" else config.augment
        how = recipe(problem, done, **training(config, len(hard)))
        return DistilledSet(
            images=np.asarray(state.variables["images"]),
            labels=np.asarray(state.variables["labels"]),
            label_kind="centred",
            lr=None,
            recipe=how | {"augment": how["augment"] | own},
            transform=data.transform,
        )

    return Method(
        init=init,
        sample=sample,
        objective=_objective(config, pool, data.classes),
        distilled=distilled,
        optimizer=lamb(config),
        advance=advance,
    )
