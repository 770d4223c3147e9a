"""A variational autoencoder of the real images, as a prior and as a generator.

``phase`` trains the autoencoder; other methods have it among their stages. With beta the variance
of a pixel given its latent, a step minimises over a batch (``generative/vae.py``)

    1/d (1/2 |x - decode(z)|^2 + beta KL(q(z | x) || N(0, I)))
    z = mean(x) + sd(x) n,    n ~ N(0, I)

by Adam. The phase's ``scale`` is 1 over the standard deviation of all latents of recent batches, a
running mean with decay 0.99: latents times it have variance 1, as diffusion wants them.

``make`` fits a Gaussian of each class to the latents of its images, mean and covariance of
q(z | y) = mean over the class of q(z | x), and makes a generator of it with the decoder.

Source: Kingma & Welling, Auto-encoding variational Bayes, ICLR 2014. The scale of latents: Rombach
et al., CVPR 2022, appendix G.

Differs from the authors' code: there is none of this size to differ from. The Gaussian of each
class is jdd's.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.data import class_indices
from jdd.data.transform import Transform
from jdd.generative import vae
from jdd.methods.base import Method, Problem, State, recipe, shuffled
from jdd.nets.autoencoder import Autoencoder, autoencoder
from jdd.product.generator import GeneratorSet
from jdd.specs.vae import Config

Tree = Any
DECAY = 0.99  # of the running mean and square of latents
_ENCODED = 256  # images encoded at a time


def net_of(config: Any, shape: tuple[int, int, int]) -> Autoencoder:
    """Return the autoencoder of the keys ``vae.*``."""
    own = config.vae
    return autoencoder(shape, own.channels, own.width, own.levels)


def phase(config: Any, problem: Problem) -> Method:
    """Return the training of the autoencoder; ``variables``: ``params``, the scalar ``scale``."""
    net, own = net_of(config, problem.data.shape), config.vae

    def init(seed: int) -> State:
        params = net.init(rng.key(seed, "vae/init"))
        aux = {"mean": jnp.zeros(()), "square": jnp.zeros(()), "weight": jnp.zeros(())}
        return State({"params": params, "scale": jnp.ones(())}, aux)

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> Any:
        x, params = item["real"]["images"], variables["params"]
        mean, log_variance = net.encode(params, x)
        z = vae.drawn(mean, log_variance, jax.random.normal(key, mean.shape, mean.dtype))
        decoded = net.decode(params, z)
        loss = vae.loss(x, decoded, mean, log_variance, own.beta)
        metrics = {
            "reconstruction": jnp.mean(vae.squared_error(x, decoded)) / math.prod(x.shape[1:]),
            "kl": jnp.mean(vae.kl(mean, log_variance)),
        }
        seen = {"mean": jnp.mean(z), "square": jnp.mean(z * z), "weight": jnp.ones((), z.dtype)}
        moved = jax.tree.map(lambda old, new: DECAY * old + (1 - DECAY) * new, aux, seen)
        return loss, (jax.lax.stop_gradient(moved), metrics)

    def samples(state: State, key: jax.Array, labels: jax.Array) -> jax.Array:
        """Draw from the prior N(0, I), which knows no classes."""
        z = jax.random.normal(key, (len(labels), *net.latent))
        return net.decode(state.variables["params"], z)

    def reconstruct(state: State, images: jax.Array) -> jax.Array:
        mean, _ = net.encode(state.variables["params"], images)
        return net.decode(state.variables["params"], mean)

    def advance(state: State, key: jax.Array) -> State:
        mean, square = (state.aux[n] / state.aux["weight"] for n in ("mean", "square"))
        scale = jax.lax.rsqrt(jnp.maximum(square - mean**2, 1e-12))
        return state._replace(variables={**state.variables, "scale": scale})

    return Method(
        init, batches(problem, "vae/rows", own.batch, own.parts), objective, no_product,
        learned(optax.adam(own.lr), "scale"), advance=advance, simple=True, merged=True,
        samples=samples, reconstruct=reconstruct,
    )  # fmt: skip


def batches(problem: Problem, purpose: str, batch: int, parts: int) -> Any:
    """Return ``(seed, step) -> indices``: rows ``[parts, batch / parts]`` of training images."""
    size = len(problem.data.train.labels)

    def sample(seed: int, step: int) -> dict[str, Any]:
        rows, _ = shuffled(seed, purpose, step, size, batch)
        cut = len(rows) // parts * parts  # of a dataset smaller than a batch
        return {"real": (rows[:cut] if cut else rows[:1]).reshape(-1, max(1, cut // parts))}

    return sample


def learned(optimizer: optax.GradientTransformation, *others: str) -> Any:
    """Return an optimiser of the variable ``params``; ``others`` follow from it in ``advance``."""
    names = {"params": "learned"} | dict.fromkeys(others, "other")
    return optax.multi_transform({"learned": optimizer, "other": optax.set_to_zero()}, names)


def no_product(state: State, steps: int) -> GeneratorSet:
    raise TypeError("a prior is a phase: its method makes the product")


def make(config: Config, problem: Problem) -> Method:
    """Build the generator from the trained autoencoder; there are no steps."""
    data, prior = problem.data, problem.phases["vae"].variables
    net, own = net_of(config, data.shape), config.vae

    def init(seed: int) -> State:
        del seed  # in the autoencoder
        mean, factors = fit(net, prior["params"], data.train.images, data.train.labels,
                            data.classes)  # fmt: skip
        decoder = jax.tree.map(jnp.asarray, prior["params"]["decoder"])
        found = {"mean": jnp.asarray(mean), "factors": jnp.asarray(factors)}
        return State({"decoder": decoder, **found}, {})

    def product(state: State, steps: int) -> GeneratorSet:
        options = {"channels": own.channels, "width": own.width, "levels": own.levels}
        described = architecture("vae", problem, math.prod(net.latent)) | options
        return packed(problem, described, state.variables)

    return Method(init, no_steps, None, product, optax.identity())


def no_steps(seed: int, step: int) -> dict[str, Any]:
    """Raise: a generator is put together from trained priors, without steps of its own."""
    raise ValueError("a generator of trained priors has no steps")


def architecture(name: str, problem: Problem, latent: int) -> dict[str, Any]:
    """Return the plain data common to the generators of priors."""
    data = problem.data
    low, high = pixel_bounds(data.transform)
    return {
        "name": name,
        "shape": list(data.shape),
        "classes": data.classes,
        "latent": latent,
        "low": low,
        "high": high,
        "part": problem.config.sampling.part,  # type: ignore[attr-defined]
    }


def pixel_bounds(transform: Transform) -> tuple[list[float], list[float]]:
    """Return the values of black and white in the nets' input space, of each channel."""
    return tuple(
        [float(v) for v in (value - transform.mean) / transform.std] for value in (0.0, 1.0)
    )  # type: ignore[return-value]


def packed(problem: Problem, described: dict[str, Any], params: Tree) -> GeneratorSet:
    """Return the product: ``ipc`` images of each class are drawn for every epoch."""
    config, data = problem.config, problem.data
    arrays = jax.tree.map(np.asarray, params)
    found = recipe(problem, 0, lr=config.eval.lr)
    return GeneratorSet(described, arrays, config.ipc, found, data.transform)


def fit(
    net: Autoencoder, params: Tree, images: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return means ``[classes, l]`` and factors F ``[classes, l, l]`` of the classes' latents.

    The covariance F^T F of a class is that of its images' mean latents plus the mean of their
    posterior variances; F is upper triangular.

    Args:
      images: ``[n, h, w, c]``; labels: int ``[n]``.
    """
    size = math.prod(net.latent)
    encode = jax.jit(net.encode)
    mean = np.zeros((classes, size), np.float32)
    factors = np.zeros((classes, size, size), np.float32)
    for c, group in enumerate(class_indices(labels, classes)):
        means, log_variances = _encoded(encode, params, images, group, size)
        mean[c] = means.mean(0)
        centred = means - means.mean(0)
        covariance = centred.T @ centred / len(group) + np.diag(np.exp(log_variances).mean(0))
        factors[c] = np.linalg.cholesky(covariance).T
    return mean, factors


def _encoded(
    encode: Any, params: Tree, images: Any, rows: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return means and log variances of some images' latents, float64 ``[k, size]`` each."""
    found: list[list[np.ndarray]] = [[], []]
    for lo in range(0, len(rows), _ENCODED):
        part = rows[lo : lo + _ENCODED]
        # One compiled size: the last part is filled up.
        filled = np.concatenate([part, np.repeat(part[-1:], _ENCODED - len(part))])
        for kind, values in zip(found, encode(params, images[filled]), strict=True):
            kind.append(np.asarray(values, np.float64)[: len(part)])
    means, log_variances = (np.concatenate(kind).reshape(-1, size) for kind in found)
    return means, log_variances
