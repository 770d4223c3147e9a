"""Diffusion: schedules, forward process, posterior, DDIM in both directions, guidance, sampling.

With a schedule abar_t, t = 0 .. T - 1, and abar = 1 for clean data,

    q(z_t | z_0) = N(sqrt(abar_t) z_0, (1 - abar_t) I)
    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps,    eps ~ N(0, I)

A predictor gives eps of z_t. A step of DDIM from abar to abar' > abar is

    z0_hat  = (z - sqrt(1 - abar) eps) / sqrt(abar)
    sigma^2 = eta^2 (1 - abar') / (1 - abar) (1 - abar / abar')
    z'      = sqrt(abar') z0_hat + sqrt(1 - abar' - sigma^2) eps + sigma n,    n ~ N(0, I)

eta = 0 is deterministic and can be inverted; eta = 1 with all T steps is DDPM. Guidance g combines
predictions for a class and for none: eps = eps_none + g (eps_class - eps_none).

Sources: Ho, Jain & Abbeel, NeurIPS 2020 (DDPM); Nichol & Dhariwal, ICML 2021 (cosine schedule);
Song, Meng & Ermon, ICLR 2021, eq. 12 and 16 (DDIM); Ho & Salimans 2022 (classifier-free guidance,
whose w is g - 1); Rombach et al., CVPR 2022 (scaled-linear schedule, latents).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

NO_CLASS = -1
# (z_t, t int [n], labels int [n]) -> eps; a negative label is "no class".
Predict = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# (z0_hat, z_t, t int [n], labels int [n]) -> what is added to z after the step from t.
Guide = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


class Schedule(NamedTuple):
    """Noise schedule: ``alpha_bar`` [T], decreasing, the share of z_0's variance in z_t."""

    alpha_bar: jax.Array


MOST = 0.999  # beta of a step, at most: abar stays above 0


def cosine(timesteps: int) -> Schedule:
    """Return the cosine schedule.

        abar_t = prod_{s <= t} (1 - beta_s),    beta_s = min(1 - f(s + 1) / f(s), 0.999)
        f(s) = cos^2((s / T + 0.008) / 1.008 pi / 2)

    Source: Nichol & Dhariwal, ICML 2021, eq. 17.
    """
    f = np.cos((np.arange(timesteps + 1) / timesteps + 0.008) / 1.008 * np.pi / 2) ** 2
    return _schedule(1 - f[1:] / f[:-1])


def scaled_linear(timesteps: int, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """Return the schedule whose sqrt(beta_t) is linear from sqrt(first) to sqrt(last).

    The defaults are those of T = 1000; for another T multiply both by 1000 / T to keep abar.
    Source: Rombach et al., CVPR 2022, as released.
    """
    return _schedule(np.linspace(first**0.5, last**0.5, timesteps) ** 2)


def _schedule(beta: np.ndarray) -> Schedule:
    return Schedule(jnp.asarray(np.cumprod(1 - np.minimum(beta, MOST))))


def schedule_of(name: str, timesteps: int) -> Schedule:
    """Return the schedule cosine or scaled_linear, whose betas are scaled to fit any T."""
    if name == "cosine":
        return cosine(timesteps)
    return scaled_linear(timesteps, 0.85 / timesteps, 12.0 / timesteps)


def _each(values: jax.Array, like: jax.Array) -> jax.Array:
    """Shape a number of each image, [n], or one for all, [], for products with ``like``."""
    return values.astype(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))


def noised(schedule: Schedule, z0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """Return z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) noise, a draw of q(z_t | z_0).

    Args:
      z0, noise: [n, ...].
      t: int [n], or one for all.
    """
    kept = _each(schedule.alpha_bar[t], z0)
    return jnp.sqrt(kept) * z0 + jnp.sqrt(1 - kept) * noise


def posterior(
    schedule: Schedule, z0: jax.Array, z: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return mean [n, ...] and variance [n, 1, ...] of q(z_{t-1} | z_t, z_0).

        mean = sqrt(abar') beta / (1 - abar) z_0 + sqrt(1 - beta) (1 - abar') / (1 - abar) z_t
        variance = beta (1 - abar') / (1 - abar),    abar' = abar_{t-1}, beta = 1 - abar / abar'

    At t = 0 it is z_0 itself. Source: Ho et al. 2020, eq. 6 and 7.
    """
    now, before = (_each(a, z) for a in (schedule.alpha_bar[t], _earlier(schedule, t)))
    beta = 1 - now / before
    of_z0 = jnp.sqrt(before) * beta / (1 - now)
    of_z = jnp.sqrt(1 - beta) * (1 - before) / (1 - now)
    return of_z0 * z0 + of_z * z, beta * (1 - before) / (1 - now)


def _earlier(schedule: Schedule, t: jax.Array) -> jax.Array:
    """Return abar_{t-1}, 1 for t = 0."""
    t = jnp.asarray(t)
    one = jnp.ones((), schedule.alpha_bar.dtype)
    return jnp.where(t > 0, schedule.alpha_bar[jnp.maximum(t - 1, 0)], one)


def denoised(z: jax.Array, eps: jax.Array, now: jax.Array) -> jax.Array:
    """Return z0_hat = (z - sqrt(1 - abar) eps) / sqrt(abar), with ``now`` = abar, [n] or []."""
    kept = _each(now, z)
    return (z - jnp.sqrt(1 - kept) * eps) / jnp.sqrt(kept)


def ddim_step(
    z: jax.Array,
    eps: jax.Array,
    now: jax.Array,
    after: jax.Array,
    eta: float = 0.0,
    noise: jax.Array | None = None,
) -> jax.Array:
    """Return z' of a DDIM step, as in the module's text.

    Args:
      z, eps, noise: [n, ...]; the noise is not read where eta is 0.
      now, after: abar of z and of z', [n] or []; after = 1 gives z0_hat.
    """
    z0 = denoised(z, eps, now)
    now, after = _each(now, z), _each(after, z)
    if not eta:
        return jnp.sqrt(after) * z0 + jnp.sqrt(1 - after) * eps
    assert noise is not None
    variance = eta**2 * (1 - after) / (1 - now) * (1 - now / after)
    rest = jnp.maximum(1 - after - variance, 0)
    return jnp.sqrt(after) * z0 + jnp.sqrt(rest) * eps + jnp.sqrt(variance) * noise


def timesteps(schedule: Schedule, steps: int) -> np.ndarray:
    """Return the steps that DDIM visits, decreasing: floor(i T / steps), i = steps - 1 .. 0.

    Source: Song et al. 2021, appendix D.2, "linear". More steps than T are T.
    """
    total = len(schedule.alpha_bar)
    count = min(steps, total)
    return (np.arange(count) * total // count)[::-1].copy()


def guided(predict: Predict, guidance: float) -> Predict:
    """Return the predictor eps_none + g (eps_class - eps_none), g = ``guidance``.

    g = 1 is the prediction for the class, g = 0 that for none: one evaluation each. Otherwise both
    are one evaluation of twice as many images.
    """
    if guidance == 1:
        return predict

    def unconditional(z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        return predict(z, t, jnp.full_like(labels, NO_CLASS))

    def both(z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        none = jnp.full_like(labels, NO_CLASS)
        pair = predict(*(jnp.concatenate(a) for a in ((z, z), (t, t), (labels, none))))
        of_class, of_none = jnp.split(pair, 2)
        return of_none + guidance * (of_class - of_none)

    return both if guidance else unconditional


def image_keys(key: jax.Array, count: int) -> jax.Array:
    """Return a key for each of ``count`` images: those given, or folded from one."""
    if key.ndim:
        return key
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))


def draw(keys: jax.Array, step: int | jax.Array, like: jax.Array) -> jax.Array:
    """Return N(0, I) noise of ``like``'s shape from the images' keys [n] and a step."""

    def one(key: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, step)
        return jax.random.normal(own, like.shape[1:], like.dtype)

    return jax.vmap(one)(keys)


def sample(
    predict: Predict,
    schedule: Schedule,
    z: jax.Array,
    labels: jax.Array,
    steps: int,
    guidance: float = 1.0,
    strength: float = 1.0,
    eta: float = 0.0,
    key: jax.Array | None = None,
    guide: Guide | None = None,
    limits: tuple[Any, Any] | None = None,
) -> jax.Array:
    """Return samples z_0 of the classes ``labels``, [n, ...], by DDIM.

    Args:
      predict: ``(z_t, t, labels) -> eps``; a label below 0 is "no class".
      z: with strength 1 the noise to start from; below 1 clean z_0, which is noised to the first
        of the last ``floor(strength steps)`` steps and denoised from there. Strength 0 returns z.
      labels: int [n].
      steps: DDIM steps of the whole schedule.
      guidance: g of ``guided``.
      eta: share of fresh noise in every step, 0 to 1.
      key: one key, or one for each image, [n]; needed where strength < 1 or eta > 0. An image's
        noise depends on its own key alone.
      guide: ``(z0_hat, z_t, t, labels) -> shift``, added to z after the step from t.
      limits: lowest and highest values of z_0, to which z0_hat is clipped in every step.

    Raises:
      ValueError: a key is needed and missing.
    """
    whole = timesteps(schedule, steps)
    times = whole[len(whole) - int(strength * len(whole) + 1e-9) :]
    if not len(times):
        return z
    if key is None and (strength < 1 or eta):
        raise ValueError("sampling with strength below 1 or eta above 0 draws noise: give a key")
    keys = None if key is None else image_keys(key, len(z))
    if strength < 1:
        assert keys is not None
        z = noised(schedule, z, jnp.asarray(times[0]), draw(keys, len(schedule.alpha_bar), z))
    now = schedule.alpha_bar[times]
    after = jnp.concatenate([now[1:], jnp.ones(1, now.dtype)])
    eps_of = guided(predict, guidance)

    def step(z: jax.Array, at: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        time, here, there = at
        t = jnp.full(len(z), time, jnp.int32)
        eps = eps_of(z, t, labels)
        if limits is not None or guide is not None:
            z0 = denoised(z, eps, here)
        if limits is not None:
            z0 = jnp.clip(z0, *limits)
            kept = _each(here, z)
            eps = (z - jnp.sqrt(kept) * z0) / jnp.sqrt(1 - kept)
        noise = draw(keys, time, z) if eta and keys is not None else None
        moved = ddim_step(z, eps, here, there, eta, noise)
        return (moved if guide is None else moved + guide(z0, z, t, labels)), None

    found, _ = lax.scan(step, z, (jnp.asarray(times, jnp.int32), now, after))
    return found


def invert(
    predict: Predict,
    schedule: Schedule,
    z0: jax.Array,
    labels: jax.Array,
    steps: int,
    guidance: float = 1.0,
    rounds: int = 10,
) -> jax.Array:
    """Return the noise from which ``sample`` with eta 0 gives ``z0``.

    A step from z to z' is z' = a z + b eps(z, t); its inverse solves z = (z' - b eps(z, t)) / a by
    fixed-point iteration from eps(z', t). One round is the usual approximate inversion.

    Args:
      rounds: iterations for each step.
    """
    times = timesteps(schedule, steps)[::-1]
    now = schedule.alpha_bar[times]
    after = jnp.concatenate([jnp.ones(1, now.dtype), now[:-1]])
    eps_of = guided(predict, guidance)

    def step(moved: jax.Array, at: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        time, here, there = at
        t = jnp.full(len(moved), time, jnp.int32)
        here, there = _each(here, moved), _each(there, moved)
        a = jnp.sqrt(there / here)
        b = jnp.sqrt(1 - there) - a * jnp.sqrt(1 - here)

        def better(_: jax.Array, z: jax.Array) -> jax.Array:
            return (moved - b * eps_of(z, t, labels)) / a

        return lax.fori_loop(0, rounds, better, moved), None

    found, _ = lax.scan(step, z0, (jnp.asarray(times, jnp.int32), now, after))
    return found


def in_parts(make: Callable[..., jax.Array], part: int, *arrays: jax.Array) -> jax.Array:
    """Return ``make(*arrays)``, computed for ``part`` images at a time in one compiled loop.

    Memory grows with ``part`` alone. ``make`` treats its images, axis 0 of every array, one by one.
    The last part is filled up with repetitions, whose results are dropped.
    """
    count = arrays[0].shape[0]
    parts = -(-count // max(part, 1))
    if parts == 1:
        return make(*arrays)
    size = -(-count // parts)
    rows = jnp.minimum(jnp.arange(parts * size), count - 1).reshape(parts, size)
    found = lax.map(lambda own: make(*(a[own] for a in arrays)), rows)
    return found.reshape(parts * size, *found.shape[2:])[:count]
