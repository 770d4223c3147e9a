"""AC-WGAN-GP: a conditional GAN whose generator stands for the dataset; the first phase of DiM.

For each batch of real images x with labels y, first the generator G, then the critic (D, P):

    L_G = -E[D(G(z, y))] + CE(P(G(z, y)), y)
    L_D = E[D(G(z', y'))] - E[D(x)] + CE(P(G(z', y')), y') + CE(P(x), y) + 10 E[(|grad D(u)| - 1)^2]

z is N(0, I) but for its first entries, the one-hot class; y' is uniform, u between x and G(z', y').
Each is updated by Adam (0, 0.9) at rate 1e-4; images are pixels mapped to [-1, 1]. The product is
the generator: students see ``ipc`` fresh images of each class every epoch.

Sources: Gulrajani et al., Improved Training of Wasserstein GANs (NeurIPS 2017); Odena et al.,
Conditional Image Synthesis with Auxiliary Classifier GANs (ICML 2017); DiM (Wang et al., 2023).

Differs from the authors' code (DiM's): the last generator counts, theirs is chosen by its students'
test accuracy; the head has the dataset's number of classes, theirs 10. docs/methods/gan.md has the
rest.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdd import rng
from jdd.methods.adversaries import Adversaries
from jdd.methods.base import Method, Problem, State, recipe, shuffled
from jdd.product.generator import GeneratorSet
from jdd.schema.common import Common
from jdd.schema.gan import Gan
from jdd.specs.gan import Config

Tree = Any


def make(config: Config, problem: Problem) -> Method:
    """Build the GAN whose product is its generator."""
    return _method(config.gan, config, problem)


def phase(config: Any, problem: Problem) -> Method:
    """Build the GAN as a phase of another method, whose config has the group ``gan``.

    Its output's variables are ``generator`` and ``critic``; ``aux["stats"]`` are the generator's
    running statistics.
    """
    return _method(config.gan, config, problem)


def _method(keys: Gan, config: Common, problem: Problem) -> Method:
    data, train = problem.data, problem.data.train
    both, parts = Adversaries(keys, data), keys.parts
    batch = min(keys.batch, len(train.labels)) // parts * parts

    def init(seed: int) -> State:
        return State(both.pair.init(rng.key(seed, "gan/init")), both.aux())

    def sample(seed: int, step: int) -> dict[str, Any]:
        rows, _ = shuffled(seed, "gan/real", step // 2, len(train.labels), batch)
        return {"real": rows.reshape(parts, -1), "turn": np.full(parts, step % 2, np.int32)}

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        def generator() -> tuple[jax.Array, Tree]:
            return both.generator_half(variables, aux, item["real"], key)[:2]

        def critic() -> tuple[jax.Array, Tree]:
            return both.critic_half(variables, aux, item["real"], key)

        loss, new = jax.lax.cond(item["turn"] == 0, generator, critic)
        return loss, (new, new["seen"])

    def product(state: State, steps: int) -> GeneratorSet:
        found = students(problem, steps)
        return both.product(state.variables, state.aux["stats"], config.ipc, found)

    return Method(
        init, sample, objective, product, both.optimizer(keys.lr), simple=True, samples=both.samples
    )


def students(problem: Problem, steps: int) -> dict[str, Any]:
    """Return the recipe of DiM's students: SGD at a constant rate, all operations in order."""
    rate, epochs = problem.config.eval.lr, problem.config.eval.epochs
    found = recipe(problem, steps, lr=rate, passes=epochs, drop=None)
    if found["augment"]["name"] == "dsa":
        found["augment"] = found["augment"] | {"name": "diffaug"}
    return found
