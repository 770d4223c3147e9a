"""DiM: distilling a dataset into a generative model (Wang et al., 2023, arXiv 2303.04707).

Phase ``gan`` trains the conditional GAN of ``methods/gan.py``. Then, at a lower rate, its generator
also matches real images in a net f, one drawn anew for each epoch from a list; before each update
of the generator f takes k steps of SGD on augmented real images:

    L_G = -E[D(G(z, y))] + CE(P(G(z, y)), y) + w M(f; A(x), A(G(z, y)))
    logit:     M = mean (log p_f(A(x_i)) - log p_f(A(G_i)))^2,  G_i of the class of x_i
    gradient:  M = sum_l |g_l(A(x)) - g_l(A(G))|_1,  g_l the gradients of f's kernels
    feature:   M = sum_b |mean f_b(A(x)) - mean f_b(A(G))|_1,  f_b the outputs of f's blocks

A is one draw of the augmentation for both batches. The critic is trained as before. The product is
the generator: students see ``ipc`` fresh images of each class every epoch, with hard labels.

f, with its optimiser, is the state's ``aux["net"]``: it is checkpointed, and every draw is a
function of seed and step.

Differs from the authors' code: images are normalised for f as for students, theirs stay in [-1, 1]
where only the normalisation is applied; Adam's moments start anew with the second phase; logit
matching is the default; the feature loss is jdd's definition, theirs does not run; the last
generator counts, not the best on test data. docs/methods/dim.md has the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.augment import dsa
from jdd.data.dataset import Dataset
from jdd.matching import generated
from jdd.methods.adversaries import Adversaries
from jdd.methods.base import Method, Problem, State, shuffled
from jdd.methods.gan import students
from jdd.methods.net_pool import NetPool
from jdd.nets import gan, words
from jdd.product.generator import GeneratorSet
from jdd.schema.gan import Match
from jdd.specs.dim import Config

Tree = Any


def pool_of(keys: Match, data: Dataset) -> NetPool:
    """Return the nets of ``match.nets``.

    Raises:
      BadInput: an unknown net or width, or images that are too small for one of them.
    """
    members = [
        words.make(word, data.shape, data.classes, "config.match.nets") for word in keys.nets
    ]
    return NetPool(members, keys.net_lr, keys.net_momentum, keys.net_weight_decay)


def make(config: Config, problem: Problem) -> Method:
    """Build DiM's matching phase for a resolved config and its problem, after the phase ``gan``."""
    keys, data, train = config.match, problem.data, problem.data.train
    both, pool = Adversaries(config.gan, data), pool_of(config.match, data)
    n = len(train.labels)
    batch, steps = min(keys.batch, n), keys.net_steps if keys.loss != "none" else 0

    def init(seed: int) -> State:
        del seed  # the GAN of this seed
        begun = jax.tree.map(jnp.asarray, problem.phases["gan"])
        aux = both.aux() | {"stats": begun.aux["stats"], "net": jnp.zeros(pool.size)}
        aux["seen"] = aux["seen"] | {"match": jnp.zeros(())}
        return State(begun.variables, aux)

    def sample(seed: int, step: int) -> dict[str, Any]:
        at, turn = divmod(step, 2)
        rows, epoch = shuffled(seed, "dim/real", at, n, batch)
        more = [shuffled(seed, "dim/net", at * steps + j, n, batch)[0] for j in range(steps)]
        which = rng.host(seed, "dim/which", epoch).integers(len(pool.members))
        fresh = at % (n // batch) == 0
        return {
            "real": np.concatenate([rows, *more])[None],
            "turn": np.full(1, turn, np.int32),
            "which": np.full(1, which, np.int32),
            "fresh": np.full(1, fresh),
        }

    match = _matching(keys, both, pool, batch)

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        real = jax.tree.map(lambda x: x[:batch], item["real"])

        def generator() -> tuple[jax.Array, Tree]:
            loss, new, images = both.generator_half(variables, aux, real, key)
            found, net = match(aux["net"], item, images, jax.random.fold_in(key, 1))
            new["seen"] = {**new["seen"], "match": jax.lax.stop_gradient(found)}
            return loss + keys.weight * found, {**new, "net": net}

        def critic() -> tuple[jax.Array, Tree]:
            loss, new = both.critic_half(variables, aux, real, key)
            return loss, {**new, "net": aux["net"]}

        loss, new = jax.lax.cond(item["turn"] == 0, generator, critic)
        return loss, (new, new["seen"])

    def product(state: State, done: int) -> GeneratorSet:
        return both.product(
            state.variables, state.aux["stats"], config.ipc, students(problem, done)
        )

    return Method(
        init, sample, objective, product, both.optimizer(keys.lr), simple=True, samples=both.samples
    )


Matching = Callable[[jax.Array, Tree, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _matching(keys: Match, both: Adversaries, pool: NetPool, batch: int) -> Matching:
    """Return ``f(vector, item, images, key) -> (M, vector)``: the net is trained, then matched.

    ``vector`` holds the net; ``images`` are generated ones in [-1, 1], of the labels of the first
    ``batch`` real images of the item; the others train the net.
    """

    def shown(key: jax.Array, images: jax.Array, strategy: str, siamese: bool) -> jax.Array:
        return dsa.dsa(key, images, strategy, siamese, align_corners=False, mode="M")

    def run(
        vector: jax.Array, item: Tree, images: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if keys.loss == "none":
            return jnp.zeros((), images.dtype), vector
        fresh_key, net_key, pair_key = jax.random.split(key, 3)
        real = jax.tree.map(lambda x: x[:batch], item["real"])
        train = jax.tree.map(lambda x: x[batch:].reshape(-1, batch, *x.shape[1:]), item["real"])
        fake = gan.normalised(images, both.mean, both.std)
        pairs = jnp.concatenate([real["images"], fake])
        pairs = shown(pair_key, pairs, keys.augment, True)

        def matched(net: Any, held: Tree) -> tuple[Tree, jax.Array]:
            held = pool.trained(
                net, held, train["images"], train["labels"],
                lambda k, x: shown(k, x, keys.net_augment, False), net_key,
            )  # fmt: skip
            held = jax.lax.stop_gradient(held)
            first = {"images": pairs[:batch], "labels": real["labels"]}
            return held, generated.LOSSES[keys.loss](net, held["variables"], first, pairs[batch:])

        vector, found = pool.use(item["which"], vector, item["fresh"], fresh_key, matched)
        return found, vector

    return run
