"""DC: dataset condensation with gradient matching (Zhao et al., ICLR 2021).

With S_c the synthetic and R_c a batch of real images of class c, theta a net's weights:

    for k = 1 .. K:   theta ~ p(theta)
      for t = 1 .. T:
        L = sum_c D( grad_theta l(A_c(S_c); theta), grad_theta l(A_c(R_c); theta) )
        S <- SGD(0.5) step of rate lr_img with dL/dS
        theta <- E epochs of SGD on S                                        (not after t = T)

l is cross-entropy, D the distance by output units (``matching/gradient.py``); A_c is the identity,
or in DSA (``methods/dsa.py``) one Siamese augmentation per class and step. A step of the run is one
(k, t): K T in total.

Differs from the authors' code: T and E have a rule for every IPC (theirs stops outside 1, 10, 20,
30, 40, 50); gradients and the derivative by the images are computed for a part of the images at a
time; batches of classes with fewer real images than a batch hold each of them once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.matching import gradient
from jdd.matching.losses import cross_entropy_sum
from jdd.methods.base import Method, Problem, State, first_images, outer_sgd, recipe
from jdd.methods.classwise import Classwise, real_rows
from jdd.product.distilled_set import DistilledSet
from jdd.specs.dc import Matching
from jdd.training import orders, trainer
from jdd.training.recipe import Recipe

Tree = Any
BN_IMAGES = 16  # real images per class in the forward pass that updates a net's batch statistics


def _objective(own: Classwise, name: str) -> Any:
    net, items = own.net, len(own.groups)
    distance = gradient.DISTANCES[name]

    def one(variables: Tree, synthetic: jax.Array, real: Tree) -> jax.Array:
        """Return D for one class."""
        rest = {name: value for name, value in variables.items() if name != "params"}

        def loss(params: Tree, rows: Tree) -> jax.Array:
            out = net.apply({**rest, "params": params}, rows["images"], train=False)
            target = jax.nn.one_hot(rows["labels"], own.classes)
            return cross_entropy_sum(out.logits, target, rows["weight"])

        def about(images: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
            labels = jnp.broadcast_to(real["class"], (len(images),))
            return {"labels": labels, "weight": weight.astype(images.dtype)}

        given, images = (own.augment(real["seed"], x) for x in (real["images"], synthetic))
        weight = jnp.full((own.ipc,), 1 / own.ipc)
        match = gradient.matched(loss, distance, (own.part(own.ipc), own.part(len(given))))
        rows = {"images": given, **about(given, real["weight"])}
        return match(images, about(images, weight), variables["params"], rows)

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        del key  # a class has its own seed
        synthetic, real = own.item(variables["images"], item)
        found = own.over_classes(lambda s, r: one(aux["net"], s, r), synthetic, real)
        # The step's loss is a sum over classes; the loop takes the mean over items.
        return items * jnp.sum(found * item["weight"]), ({}, {})

    return objective


def make(config: Matching, problem: Problem) -> Method:
    """Build DC for a resolved config and its problem."""
    return build(config, problem, augmented=False)


def build(config: Matching, problem: Problem, augmented: bool) -> Method:
    """Build DC, or with ``augmented`` DSA, for a resolved config and its problem."""
    own = Classwise(config, problem, augmented)
    name, net, data = config.method, own.net, problem.data
    outer, n = config.outer_loop, len(own.labels)
    training = Recipe(
        momentum=0.0, weight_decay=0.0, batch=config.batch_net, classes=own.classes,
        strategy=own.strategy, align_corners=config.align_corners,
    )  # fmt: skip
    run = trainer.make(net, training, n)
    epochs = config.inner_epochs * run.steps_per_epoch
    statistics = "batch_stats" in jax.eval_shape(net.init, jax.random.key(0))

    def init(seed: int) -> State:
        images = jnp.asarray(
            first_images(problem, config.pix_init, seed, f"{name}/init"), jnp.float32
        )
        fresh = net.init(rng.key(seed, f"{name}/net"))
        return State({"images": images}, {"net": fresh, "t": jnp.zeros((), jnp.int32)})

    def sample(seed: int, step: int) -> dict[str, Any]:
        indices = own.sample(seed, step, name)
        if statistics:
            draw = rng.host(seed, f"{name}/bn", step)
            rows, weight = real_rows(draw, own.by_class, BN_IMAGES)
            indices["shared"] = {"real": rows[weight > 0]}
        return indices

    def renewed(aux: Tree) -> Tree:
        """Update the running statistics by one pass of real images of all classes."""
        stats = net.apply(aux["net"], aux["real"]["images"], train=True).stats
        return {"net": {**aux["net"], "batch_stats": stats}}

    def trained(state: State, key: jax.Array) -> Tree:
        carry = run.init(key)
        carry["variables"] = state.aux["net"]
        keys = orders.Keys(jax.random.fold_in(key, 0), jax.random.fold_in(key, 1))
        images, labels = state.variables["images"], jnp.asarray(own.labels)
        lr = jnp.asarray(config.lr_net, images.dtype)
        return run.advance(carry, keys, images, labels, lr, 0, epochs)[0]["variables"]

    def advance(state: State, key: jax.Array) -> State:
        if outer == 1:
            return state._replace(aux=state.aux | {"net": net.init(key)})
        last = state.aux["t"] == outer - 1
        after = jax.lax.cond(last, lambda: net.init(key), lambda: trained(state, key))
        t = jnp.where(last, 0, state.aux["t"] + 1)
        return state._replace(aux=state.aux | {"net": after, "t": t})

    def distilled(state: State, steps: int) -> DistilledSet:
        found = recipe(problem, steps, lr=0.01)
        strategy = getattr(config, "dc_aug", "none")
        if strategy != "none":
            found["augment"] = found["augment"] | {"name": "dc", "strategy": strategy}
        images = np.asarray(state.variables["images"])
        return DistilledSet(images, own.labels, "hard", None, found, data.transform)

    return Method(
        init=init,
        sample=sample,
        objective=_objective(own, config.distance),
        distilled=distilled,
        optimizer=outer_sgd({"images": (config.lr_img, config.img_momentum)}),
        prepare=renewed if statistics else None,
        advance=advance,
    )
