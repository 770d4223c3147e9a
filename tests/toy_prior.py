"""The toy method of two phases with a prior that is looked at while it trains."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax

from jdd.methods.base import Method, Problem, State
from jdd.schema.key import group
from jdd.schema.quality import Quality
from jdd.stages.registry import Phase
from tests import toy_generator


@dataclass(frozen=True)
class Config(toy_generator.Config):
    """Keys of the toy, and of what is seen of it."""

    quality: Quality = group(Quality, images=0, every=2, keep=2, curve=12, epochs=1, width=4)


def make_prior(config: Any, problem: Problem) -> Method:
    shape = problem.data.shape

    def samples(state: State, key: jax.Array, labels: jax.Array) -> jax.Array:
        z = jax.random.normal(key, (len(labels), config.rank)) + labels[:, None]
        return (z @ state.variables["decoder"]).reshape(-1, *shape)

    def reconstruct(state: State, images: jax.Array) -> jax.Array:
        latents = images.reshape(len(images), -1) @ state.variables["encoder"]
        return (latents @ state.variables["decoder"]).reshape(images.shape)

    made = toy_generator.make_prior(config, problem)
    return made._replace(samples=samples, reconstruct=reconstruct)


def stages(values: dict[str, Any]) -> tuple[Any, ...]:
    return (PRIOR, "distill", "evaluate", "report", "full")


PRIOR = Phase("prior", make=make_prior, steps="prior_steps")
SPEC = dataclasses.replace(
    toy_generator.SPEC, name="toy_prior", title="toy_prior", config=Config, stages=stages
)
