"""A diffusion model of the real images, of their pixels or of a VAE's latents.

``phase`` trains the noise predictor; other methods have it among their stages. A step minimises

    mean (eps_theta(z_t, t, y) - eps)^2,    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps
    t ~ U{0 .. T - 1},  eps ~ N(0, I),  y replaced by "no class" with probability ``drop``

over a batch by Adam, for z_0 the pixels x in the nets' input space or, of latents,
z_0 = scale (mean(x) + sd(x) n), a draw of the VAE's posterior. Samples are of the averaged weights,

    theta_ema <- a theta_ema + (1 - a) theta,    a = min(ema, (1 + k) / (10 + k)) after k steps

``make`` makes a generator of the averaged predictor, the sampler's settings and the decoder.

Sources: Ho, Jain & Abbeel, NeurIPS 2020, algorithm 1; Ho & Salimans 2022 (label dropout, guidance);
Rombach et al., CVPR 2022 (latents).

Differs from the authors' code: a narrow U-Net with one block a level, attention at the smallest
maps alone, no dropout; the average starts with a short memory, so that short runs do not sample
from initial weights.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jdd import rng
from jdd.generative import diffusion, vae
from jdd.methods.base import Method, Problem, State
from jdd.methods.vae import architecture, batches, learned, net_of, no_product, no_steps, packed
from jdd.nets.autoencoder import Autoencoder
from jdd.nets.unet import Denoiser, unet
from jdd.product.generator import GeneratorSet
from jdd.specs.diffusion import Config

Tree = Any


def space_of(config: Any, problem: Problem) -> tuple[Autoencoder | None, tuple[int, int, int]]:
    """Return the autoencoder of the latents, None for pixels, and the shape of z."""
    if config.diffusion.space == "pixels":
        return None, problem.data.shape
    coder = net_of(config, problem.data.shape)
    return coder, coder.latent


def predictor(config: Any, problem: Problem) -> Denoiser:
    """Return the U-Net of the keys ``diffusion.*``."""
    own = config.diffusion
    _, shape = space_of(config, problem)
    classes = problem.data.classes
    return unet(shape, classes, own.width, own.levels, own.attention, own.timesteps)


def phase(config: Any, problem: Problem) -> Method:
    """Return the training of the predictor; ``variables``: ``params`` and their average ``ema``."""
    own, classes = config.diffusion, problem.data.classes
    coder, shape = space_of(config, problem)
    net, schedule = predictor(config, problem), diffusion.schedule_of(own.schedule, own.timesteps)
    prior = {} if coder is None else problem.phases["vae"].variables
    fixed = {} if coder is None else {
        "encoder": prior["params"]["encoder"], "scale": jnp.asarray(prior["scale"])
    }  # fmt: skip

    def clean(x: jax.Array, aux: Tree, key: jax.Array) -> jax.Array:
        if coder is None:
            return x
        mean, log_variance = coder.encode({"encoder": aux["encoder"]}, x)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return vae.drawn(mean, log_variance, noise) * aux["scale"]

    def init(seed: int) -> State:
        params = net.init(rng.key(seed, "diffusion/init"))
        return State({"params": params, "ema": params}, {"done": jnp.zeros((), jnp.int32)})

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> Any:
        x, labels = item["real"]["images"], item["real"]["labels"]
        of_z, of_t, of_noise, of_drop = jax.random.split(key, 4)
        z0 = clean(x, aux, of_z)
        t = jax.random.randint(of_t, labels.shape, 0, own.timesteps)
        noise = jax.random.normal(of_noise, z0.shape, z0.dtype)
        none = jax.random.uniform(of_drop, labels.shape) < own.drop
        z = diffusion.noised(schedule, z0, t, noise)
        eps = net.apply(variables["params"], z, t, jnp.where(none, classes, labels))
        return jnp.mean((eps - noise) ** 2), ({}, {})

    def samples(state: State, key: jax.Array, labels: jax.Array) -> jax.Array:
        """Draw by the averaged weights, with the run's sampler."""
        start, how = jax.random.normal(key, (len(labels), *shape)), config.sampling
        found = diffusion.sample(
            lambda z, t, y: net.apply(state.variables["ema"], z, t, y),
            schedule, start, labels, how.steps, how.guidance,
        )  # fmt: skip
        return found if coder is None else coder.decode(prior["params"], found / prior["scale"])

    def advance(state: State, key: jax.Array) -> State:
        done = state.aux["done"] + 1
        decay = jnp.minimum(own.ema, (1 + done) / (10 + done))
        now, old = state.variables["params"], state.variables["ema"]
        mean = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, old, now)
        return State({"params": now, "ema": mean}, {**state.aux, "done": done})

    return Method(
        init, batches(problem, "diffusion/rows", own.batch, own.parts), objective, no_product,
        learned(optax.adam(own.lr), "ema"), advance=advance, constants=fixed, simple=True,
        merged=True, samples=samples,
    )  # fmt: skip


def make(config: Config, problem: Problem) -> Method:
    """Build the generator from the trained priors; there are no steps."""
    own, how = config.diffusion, config.sampling
    coder, shape = space_of(config, problem)

    def init(seed: int) -> State:
        del seed  # in the priors
        found = {"unet": problem.phases["diffusion"].variables["ema"]}
        if coder is not None:
            prior = problem.phases["vae"].variables
            found |= {"decoder": prior["params"]["decoder"], "scale": prior["scale"]}
        return State(jax.tree.map(jnp.asarray, found), {})

    def product(state: State, steps: int) -> GeneratorSet:
        described = architecture("diffusion", problem, math.prod(shape)) | {
            "width": own.width, "levels": own.levels, "attention": own.attention,
            "schedule": own.schedule, "timesteps": own.timesteps,
            "steps": how.steps, "guidance": how.guidance,
        }  # fmt: skip
        if coder is not None:
            mine = config.vae
            decoder = {"channels": mine.channels, "width": mine.width, "levels": mine.levels}
            described["decoder"] = decoder
        return packed(problem, described, state.variables)

    return Method(init, no_steps, None, product, optax.identity())
