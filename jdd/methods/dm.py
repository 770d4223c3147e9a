"""DM: dataset condensation with distribution matching (Zhao & Bilen, WACV 2023).

With psi the embedding of a fresh net (the features its classifier reads), S_c the synthetic and R_c
a batch of real images of class c, A_c one Siamese augmentation per class and step:

    psi ~ p(psi)
    L = sum_c || mean_{x in R_c} psi(A_c(x)) - mean_{s in S_c} psi(A_c(s)) ||^2
    S <- SGD(0.5) step of rate lr_img with dL/dS

With ``irg_edges`` the loss has a term more, of the graph of the classes' means m_c, real and
synthetic (``matching/relations.py``; jdd's own, not in the paper):

    L + irg_edges / (2 classes) sum_cd (A_cd(real) - A_cd(synthetic))^2,  A_cd ~ |m_c - m_d|^2

No net is trained. Classes are processed in groups (``methods/classwise.py``), except with
``irg_edges`` and for a net with batch norm: then all real images, and all synthetic ones, pass
together in training mode, so that graph and statistics are over all classes.

Differs from the authors' code: any IPC is allowed (theirs stops outside DC's table, which DM does
not need); batches of classes that have fewer real images than a batch hold each of them once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.matching import relations
from jdd.matching.feature import mean_distance, weighted_mean
from jdd.methods.base import Method, Problem, State, first_images, outer_sgd, recipe
from jdd.methods.classwise import Classwise
from jdd.parallel.parts import cut
from jdd.product.distilled_set import DistilledSet
from jdd.specs.dm import Config

Tree = Any


def make(config: Config, problem: Problem) -> Method:
    """Build DM for a resolved config and its problem."""
    net, data = problem.nets["student"], problem.data
    together = "batch_stats" in jax.eval_shape(net.init, jax.random.key(0)) or config.irg_edges > 0
    own = Classwise(config, problem, augmented=True, whole=together)

    def init(seed: int) -> State:
        images = jnp.asarray(first_images(problem, config.pix_init, seed, "dm/init"), jnp.float32)
        return State({"images": images}, {"net": net.init(rng.key(seed, "dm/net"))})

    def advance(state: State, key: jax.Array) -> State:
        return state._replace(aux={"net": net.init(key)})

    def distilled(state: State, steps: int) -> DistilledSet:
        images = np.asarray(state.variables["images"])
        found = recipe(problem, steps, lr=0.01)
        return DistilledSet(images, own.labels, "hard", None, found, data.transform)

    return Method(
        init=init,
        sample=lambda seed, step: own.sample(seed, step, "dm"),
        objective=_objective(own, together, config.irg_edges),
        distilled=distilled,
        optimizer=outer_sgd({"images": (config.lr_img, config.img_momentum)}),
        advance=advance,
    )


def _objective(own: Classwise, together: bool, edges: float) -> Any:
    net, items = own.net, len(own.groups)

    def embedded(variables: Tree, images: jax.Array, weight: jax.Array) -> jax.Array:
        """Return the weighted mean embedding of a class, a part of its images at a time."""
        part = own.part(len(images))

        def piece(rows: tuple[jax.Array, jax.Array]) -> jax.Array:
            return weighted_mean(net.apply(variables, rows[0]).features, rows[1])

        if part == len(images):
            return piece((images, weight))
        # Recomputed in the backward pass: only one part's activations are stored.
        pieces, _ = cut((images, weight), part)
        return jnp.sum(jax.lax.map(jax.checkpoint(piece), pieces), 0)

    def one(variables: Tree, synthetic: jax.Array, real: Tree) -> jax.Array:
        given = own.augment(real["seed"], real["images"])
        wanted = jax.lax.stop_gradient(
            embedded(variables, given, real["weight"].astype(given.dtype))
        )
        weight = jnp.full((own.ipc,), 1 / own.ipc, synthetic.dtype)
        images = own.augment(real["seed"], synthetic)
        return mean_distance(wanted, embedded(variables, images, weight))

    def mixed(variables: Tree, synthetic: jax.Array, real: Tree) -> jax.Array:
        """Return the loss of every class, ``[classes]``: all of them in one pass."""

        def features(images: jax.Array) -> jax.Array:
            classes, n = images.shape[:2]
            images = jax.vmap(own.augment)(real["seed"], images)
            flat = images.reshape(classes * n, *images.shape[2:])
            return net.apply(variables, flat, train=True).features.reshape(classes, n, -1)

        weight = jnp.full(synthetic.shape[:2], 1 / own.ipc, synthetic.dtype)
        given = real["weight"].astype(synthetic.dtype)
        wanted = jax.lax.stop_gradient(weighted_mean(features(real["images"]), given))
        found = weighted_mean(features(synthetic), weight)
        apart = jax.vmap(mean_distance)(wanted, found)
        if not edges:
            return apart
        graphs = relations.edges(wanted), relations.edges(found)
        return apart + edges * relations.edge_loss(*graphs) / len(found)

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        del key  # a class has its own seed
        synthetic, real = own.item(variables["images"], item)
        if together:
            found = mixed(aux["net"], synthetic, real)
        else:
            found = own.over_classes(lambda s, r: one(aux["net"], s, r), synthetic, real)
        # The step's loss is a sum over classes; the loop takes the mean over items.
        return items * jnp.sum(found * item["weight"]), ({}, {})

    return objective
