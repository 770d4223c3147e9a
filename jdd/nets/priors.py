"""Generators made of a trained prior: a VAE's decoder, and a diffusion model with its sampler.

    vae:        x = decode(mean_y + z F_y),          z ~ N(0, I)
    diffusion:  x = decode(sample(z, y) / scale),    z ~ N(0, I) the noise DDIM starts from

Images are clipped to ``low`` and ``high``, the values of black and white in the nets' input space,
[c] each. ``part`` images are computed at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdd.generative.diffusion import in_parts, sample, schedule_of
from jdd.nets.autoencoder import autoencoder
from jdd.nets.generator import Generator
from jdd.nets.unet import unet

Tree = Any
Shape = tuple[int, int, int]


def clipped(x: jax.Array, low: Sequence[float], high: Sequence[float]) -> jax.Array:
    """Clip images [n, h, w, c] to bounds of each channel; without bounds they are unchanged."""
    if not low:
        return x
    bounds = [jnp.asarray(b, x.dtype).reshape(1, 1, 1, -1) for b in (low, high)]
    return jnp.clip(x, *bounds)


def vae(
    shape: Shape,
    classes: int,
    latent: int,
    channels: int,
    width: int,
    levels: int,
    low: Sequence[float] = (),
    high: Sequence[float] = (),
    part: int = 100,
) -> Generator:
    """Return the decoder of an ``autoencoder`` with a Gaussian of each class in latent space.

    Params: ``decoder``; ``mean`` ``[classes, latent]``; ``factors`` ``[classes, latent, latent]``,
    of which a class's covariance is F^T F.
    """
    net = autoencoder(shape, channels, width, levels)
    if latent != math.prod(net.latent):
        raise TypeError(f"latent {latent}, not {math.prod(net.latent)}")

    def init(key: jax.Array) -> Tree:
        factors = jnp.broadcast_to(jnp.eye(latent), (classes, latent, latent))
        decoder = net.init(key)["decoder"]
        return {"decoder": decoder, "mean": jnp.zeros((classes, latent)), "factors": factors}

    def apply(params: Tree, z: jax.Array, labels: jax.Array) -> jax.Array:
        def images(z: jax.Array, labels: jax.Array) -> jax.Array:
            moved = jnp.einsum("nl,nld->nd", z, params["factors"][labels])
            placed = (params["mean"][labels] + moved).reshape(-1, *net.latent)
            return clipped(net.decode(params, placed), low, high)

        return in_parts(images, part, z, labels)

    return Generator(init, apply, latent)


def diffusion(
    shape: Shape,
    classes: int,
    latent: int,
    width: int,
    levels: int,
    attention: bool,
    schedule: str,
    timesteps: int,
    steps: int,
    guidance: float,
    decoder: dict[str, int] | None = None,
    low: Sequence[float] = (),
    high: Sequence[float] = (),
    part: int = 100,
) -> Generator:
    """Return a U-Net with its sampler (DDIM, eta 0) and, of latents, a VAE's decoder.

    Params: ``unet``; with ``decoder``, the options of its ``autoencoder``, also ``decoder`` and the
    scalar ``scale``, which latents were multiplied by.
    """
    coder = autoencoder(shape, **decoder) if decoder else None
    space = coder.latent if coder else shape
    if latent != math.prod(space):
        raise TypeError(f"latent {latent}, not {math.prod(space)}")
    net = unet(space, classes, width, levels, attention, timesteps)
    noise = schedule_of(schedule, timesteps)

    def init(key: jax.Array) -> Tree:
        params = {"unet": net.init(key)}
        if coder is None:
            return params
        return {**params, "decoder": coder.init(key)["decoder"], "scale": jnp.ones(())}

    def apply(params: Tree, z: jax.Array, labels: jax.Array) -> jax.Array:
        def predict(z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
            return net.apply(params["unet"], z, t, labels)

        def images(z: jax.Array, labels: jax.Array) -> jax.Array:
            start = z.reshape(-1, *space)
            limits = None if coder or not low else _bounds(low, high, z.dtype)
            found = sample(predict, noise, start, labels, steps, guidance, limits=limits)
            if coder is not None:
                found = coder.decode(params, found / params["scale"])
            return clipped(found, low, high)

        return in_parts(images, part, z, labels)

    return Generator(init, apply, latent)


def _bounds(low: Sequence[float], high: Sequence[float], dtype: Any) -> tuple[Any, Any]:
    lowest, highest = (jnp.asarray(b, dtype).reshape(1, 1, 1, -1) for b in (low, high))
    return lowest, highest
