"""A method of two phases for the tests: a linear generator is learned, then images through it.

Phase ``prior`` learns an autoencoder of rank ``rank`` from batches of real images; the set is the
output of its decoder for latents that match the real images' class means. This file is all there is
of the method: no file of ``jdd/`` knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import nets, rng
from jdd.methods.base import Method, Problem, State, recipe, shuffled
from jdd.product.distilled_set import DistilledSet
from jdd.schema.common import Common
from jdd.schema.key import option
from jdd.specs.base import Spec
from jdd.stages.phases import Training
from jdd.stages.registry import Phase
from jdd.training import trainer


@dataclass(frozen=True)
class Config(Common):
    """Keys of the toy."""

    prior_steps: int = option(4, "steps of the generator", minimum=0, resumable=True)
    rank: int = option(3, "latents of an image", minimum=1)
    lr_latent: float = option(0.1, "learning rate of the latents", above=0)
    critic_epochs: int = option(1, "epochs of the critic", minimum=1, resumable=True)
    means_of: int = option(0, "images of a class in its mean (0: all)", minimum=0, resumable=True)
    with_rest: bool = option(False, "with a training and a construction before")


PRIOR = Phase(
    "prior", make="toy_generator:make_prior", help="learn the generator of the images",
    steps="prior_steps", smaller=("rank",),
)  # fmt: skip
MEANS = Phase("means", make="toy_generator:make_means", kind="construction",
              keys=("lr_latent", "means_of"))  # fmt: skip
CRITIC = Phase("critic", make="toy_generator:make_critic", kind="training", keys=("critic_epochs",))


def stages(values: dict[str, Any]) -> tuple[Any, ...]:
    more = (CRITIC, MEANS) if values["with_rest"] else ()
    return (PRIOR, *more, "distill", "evaluate", "report", "full")


def make_prior(config: Any, problem: Problem) -> Method:
    size, train = int(np.prod(problem.data.shape)), problem.data.train

    def init(seed: int) -> State:
        keys = jax.random.split(rng.key(seed, "toy/prior"))
        shapes = {"encoder": (size, config.rank), "decoder": (config.rank, size)}
        pairs = zip(shapes.items(), keys, strict=True)
        return State(
            {name: 0.05 * jax.random.normal(key, shape) for (name, shape), key in pairs},
            {"seen": jnp.zeros(())},
        )

    def sample(seed: int, step: int) -> dict[str, Any]:
        return {"real": shuffled(seed, "toy/rows", step, len(train.labels), 8)[0][None]}

    def objective(variables: Any, aux: Any, item: Any, key: jax.Array) -> Any:
        x = item["real"]["images"].reshape(-1, size)
        x = x + 0.01 * jax.random.normal(key, x.shape)
        loss = jnp.mean((x @ variables["encoder"] @ variables["decoder"] - x) ** 2)
        return loss, ({"seen": aux["seen"] + 1}, {})

    def distilled(state: State, steps: int) -> DistilledSet:
        raise AssertionError("a prior makes no set")

    return Method(init, sample, objective, distilled, optax.adam(0.01))


def make_means(config: Any, problem: Problem) -> Any:
    train = problem.data.train

    def build(seed: int) -> State:
        some = slice(config.means_of or None)
        means = [train.images[train.labels == c][some].mean(0) for c in range(problem.data.classes)]
        return State({"means": jnp.asarray(np.stack(means))}, {})

    return build


def make_critic(config: Any, problem: Problem) -> Training:
    data = problem.data
    net = nets.make("MLP", data.shape, data.classes)
    return Training(net, trainer.Recipe(batch=16, classes=data.classes), 0.01, config.critic_epochs)


def make(config: Any, problem: Problem) -> Method:
    data, train, count = problem.data, problem.data.train, int(config.ipc) * problem.data.classes
    labels = np.repeat(np.arange(data.classes, dtype=np.int32), int(config.ipc))
    decoder = jnp.asarray(problem.phases["prior"].variables["decoder"])
    if config.with_rest:
        assert problem.phases["means"].variables["means"].shape == (data.classes, *data.shape)
        assert all(len(x) == 1 for x in jax.tree.leaves(problem.phases["critic"].variables))

    def images(variables: Any) -> jax.Array:
        return (variables["latents"] @ decoder).reshape(count, *data.shape)

    def init(seed: int) -> State:
        drawn = jax.random.normal(rng.key(seed, "toy/latents"), (count, decoder.shape[0]))
        return State({"latents": drawn}, {})

    def sample(seed: int, step: int) -> dict[str, Any]:
        return {"real": shuffled(seed, "toy/rows", step, len(train.labels), 12)[0][None]}

    def objective(variables: Any, aux: Any, item: Any, key: jax.Array) -> Any:
        real = item["real"]
        weight = (real["labels"][:, None] == labels[None, :]).astype(jnp.float32)
        weight = weight / jnp.maximum(weight.sum(0, keepdims=True), 1.0)
        wanted = jnp.einsum("bn,bhwc->nhwc", weight, real["images"])
        return jnp.mean((images(variables) - wanted) ** 2), ({}, {})

    def distilled(state: State, steps: int) -> DistilledSet:
        made = np.asarray(images(state.variables))
        return DistilledSet(
            made, labels, "hard", None, recipe(problem, steps, lr=0.01), data.transform
        )

    return Method(init, sample, objective, distilled, optax.sgd(config.lr_latent))


SPEC = Spec("toy_generator", make, config=Config, defaults={"steps": 4}, stages=stages)
