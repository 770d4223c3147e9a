"""CovMatch: pairs by matching cross-covariances, without experts (Lee & Chung, NeurIPS 2025).

u and v are the embeddings of the image and the text tower at weights theta, S the synthetic pairs
and T a batch of real ones. One outer step:

    C_P = 1/(|P| - 1) sum_{i in P} (u_i - mean_P u) (v_i - mean_P v)^T,   P = S, T
    L = ||rho C_T - C_S||_F^2 + lambda (||mean_T u - mean_S u||^2 + ||mean_T v - mean_S v||^2)
    X, E <- SGD(m) steps of rates lr_img, lr_txt with dL/dX, dL/dE
    theta <- SGD(m') step of rate lr_net with grad_theta InfoNCE(T; theta)

Every ``reset_every`` steps theta is drawn anew. No gradient passes through the training of theta,
which is part of the state.

Settled by public summaries of the paper (its equations 11 and 12): the form of L, SGD of rate 1 and
momentum 0.5, one step of both towers on real pairs per outer step, resets every 50 steps, rho of 2
for 100 pairs and 1 for more, lambda of 0.1 and, for 500 pairs, 0.5 or 0.6.

jdd's choices: C is divided by |P| - 1; it is of the unit embeddings, since jdd's text tower is one
head on fixed text vectors (in the paper C is of the encoders' outputs before their projections);
theta is trained on the batch that was matched, by SGD; the rates and sizes of batches.

Differs from the authors' code: not known, it was not read. ``docs/methods/covmatch.md`` has more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.data.pairs import PairSplit
from jdd.matching import contrastive
from jdd.matching.feature import cross_covariance, mean_distance
from jdd.methods.base import Method, Problem, State, outer_sgd, shuffled
from jdd.methods.pairs import draw, nearest_captions, pair_recipe
from jdd.nets import Net
from jdd.product.pairs import PairSet
from jdd.specs.covmatch import Config
from jdd.training import optimisers

Tree = Any


class Towers:
    """Two towers that are trained on real pairs between outer steps.

    Their state has ``variables`` and ``velocity``, the state of SGD with momentum.
    """

    def __init__(self, net: Net, rate: float, momentum: float):
        self.net, self._rate = net, rate
        self._sgd = optimisers.sgd_momentum(momentum)

    def init(self, key: jax.Array) -> Tree:
        """Return the state of fresh towers."""
        variables = self.net.init(key)
        return {"variables": variables, "velocity": self._sgd.init(variables["params"])}

    def embeddings(self, towers: Tree, pairs: Tree) -> tuple[jax.Array, jax.Array]:
        """Return u and v of pairs, ``[n, size]`` each, with running statistics."""
        found = self.net.apply(towers["variables"], pairs).embeddings
        return found["image"], found["text"]

    def train(self, towers: Tree, pairs: Tree) -> Tree:
        """Return the state after one step on a batch of real pairs."""
        variables = towers["variables"]

        def loss(params: Tree) -> tuple[jax.Array, Tree]:
            out = self.net.apply({**variables, "params": params}, pairs, train=True)
            target = jnp.eye(len(out.logits), dtype=out.logits.dtype)
            return contrastive.nce(out.logits, target), out.stats

        grads, stats = jax.grad(loss, has_aux=True)(variables["params"])
        params, velocity = self._sgd.update(
            grads, towers["velocity"], variables["params"], {"lr": self._rate}
        )
        new = {**variables, "params": params} | ({"batch_stats": stats} if stats else {})
        return {"variables": new, "velocity": velocity}


def _objective(config: Config, towers: Towers, batch: int) -> Callable[..., Any]:
    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        learned = {"image": variables["images"], "text": variables["text"]}
        if batch:
            learned = jax.tree.map(lambda a: a[item["rows"]], learned)
        real, now = item["pairs"], aux["towers"]
        wanted = jax.lax.stop_gradient(towers.embeddings(now, real))
        found = towers.embeddings(now, learned)
        covariance = mean_distance(config.rho * cross_covariance(*wanted), cross_covariance(*found))
        means = sum(
            mean_distance(jnp.mean(t, 0), jnp.mean(s, 0))
            for t, s in zip(wanted, found, strict=True)
        )
        # The mean of the items' towers is one SGD step with the mean of their gradients.
        new = {"towers": towers.train(now, real)}
        metrics = {"covariance": covariance, "means": means}
        return covariance + config.feature_weight * means, (new, metrics)

    return objective


def _sampler(config: Config, captions: int, batch: int) -> Callable[[int, int], dict[str, Any]]:
    k = config.real_batches

    def sample(seed: int, step: int) -> dict[str, Any]:
        drawn = [
            shuffled(seed, "covmatch/real", step * k + i, captions, config.batch_real)[0]
            for i in range(k)
        ]
        indices: dict[str, Any] = {"pairs": np.stack(drawn)}
        if batch:
            generator = rng.host(seed, "covmatch/rows", step)
            rows = [generator.permutation(config.pairs)[:batch] for _ in range(k)]
            indices["rows"] = np.stack(rows).astype(np.int32)
        return indices

    return sample


def make(config: Config, problem: Problem) -> Method:
    """Build CovMatch for a resolved config and its problem."""
    train = cast(PairSplit, problem.data.train)
    towers = Towers(problem.nets["student"], config.lr_net, config.net_momentum)
    batch = config.batch_syn if 0 < config.batch_syn < config.pairs else 0

    def init(seed: int) -> State:
        chosen = draw(rng.host(seed, "covmatch/init"), train, config.pairs)
        images, text = train.images[train.image_of[chosen]], train.text[chosen]
        variables = {"images": jnp.asarray(images), "text": jnp.asarray(text, jnp.float32)}
        fresh = towers.init(rng.key(seed, "covmatch/towers"))
        return State(variables, {"towers": fresh, "count": jnp.zeros((), jnp.int32)})

    def advance(state: State, key: jax.Array) -> State:
        count = state.aux["count"] + 1
        reset = count >= config.reset_every
        now = state.aux["towers"]
        fresh = jax.lax.cond(reset, lambda: towers.init(key), lambda: now)
        return state._replace(aux={"towers": fresh, "count": jnp.where(reset, 0, count)})

    def distilled(state: State, steps: int) -> PairSet:
        images, text = (np.asarray(state.variables[name]) for name in ("images", "text"))
        found = pair_recipe(config, problem, steps, lr=config.eval.lr)
        found |= nearest_captions(text, train)
        return PairSet(images, text, found, problem.data.transform)

    return Method(
        init=init,
        sample=_sampler(config, train.size, batch),
        objective=_objective(config, towers, batch),
        distilled=distilled,
        optimizer=outer_sgd(
            {
                "images": (config.lr_img, config.momentum),
                "text": (config.lr_txt, config.momentum),
            }
        ),
        advance=advance,
        simple=True,
    )
