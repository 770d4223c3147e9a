"""D4M: prototypes of latents, denoised by a diffusion prior (Su et al., CVPR 2024).

With E, D the encoder and decoder of the prior's latents and C_c k-means centres of a class:

    latents     z = E(x), drawn from the posterior and scaled, for every training image x
    prototypes  C_c = k-means of {z : y = c}            generative/prototypes.py
    images      x' = D(denoise(noised(c, strength), class, guidance)),  c in C_c

Of fewer prototypes than images each is noised several times. Images are clipped and quantised,
then labelled by teachers and learned as SRe2L's (squeeze, relabel). With ``weights=clusters`` the
loss of an image is weighted by the size of its prototype's cluster (DDOQ, Tan & Slade, ICLR 2026).

The prior is jdd's own VAE and noise predictor, trained in two phases before, or Stable Diffusion.

Differs from the authors' code: the prior may be trained on the dataset itself; latents after the
last full buffer of a class are fitted too (``ref_bugs``: dropped, but for the class of the last
image); images of a class are buffered in an order drawn from the seed, which is in k-means and in
the draws of latents too; latents are float32, theirs float16; the students of the final step count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.data import class_indices
from jdd.data.quantise import quantised
from jdd.generative import diffusion, guidance, stable_diffusion, vae
from jdd.generative import prototypes as kmeans
from jdd.methods import decoupled
from jdd.methods.base import Method, Problem, State
from jdd.methods.diffusion import predictor, space_of
from jdd.methods.recovery import Batch, Part, bounds
from jdd.product.distilled_set import DistilledSet
from jdd.specs.d4m import Config

Tree = Any
_ENCODED = 256  # images encoded at a time by jdd's own encoder


class Prior(NamedTuple):
    """A diffusion prior.

    Attributes:
      shape: of a latent.
      encode: ``(rows, seed, label) -> latents [n, *shape]`` of training images, in numbered draws.
      generate: ``(centres [classes, k, *shape], classes, seed) -> images`` of some classes,
        ``[len(classes) ipc, h, w, c]``, in the nets' input space.
    """

    shape: tuple[int, ...]
    encode: Callable[[np.ndarray, int, int], Iterator[np.ndarray]]
    generate: Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def prior_of(config: Config, problem: Problem) -> Prior:
    """Return the prior of ``config.prior``."""
    if config.prior == "own":
        return _own(config, problem)
    return _stable_diffusion(config, problem)


def prototypes(config: Config, problem: Problem) -> Callable[[int], State]:
    """Return the construction of the prototypes.

    Its state: variables ``centres`` float32 [classes, k, *latent]; aux ``sizes`` of their clusters,
    int32 [classes, k], and ``fitted``, the latents of each class that k-means was given.
    """
    labels, classes = problem.data.train.labels, problem.data.classes
    count = config.prototypes or config.ipc
    prior = prior_of(config, problem)
    last = int(labels[-1])  # the class whose remainder the authors' loop fits

    def build(seed: int) -> State:
        found: dict[str, list[Any]] = {"centres": [], "sizes": [], "fitted": []}
        for c, group in enumerate(class_indices(labels, classes)):
            rows = rng.host(seed, "d4m/order", c).permutation(group)
            latents = list(prior.encode(rows, seed, c))
            rest = not config.ref_bugs or (c == last and _rest(len(rows), config) >= count)
            if len(rows) < count:  # config.ipc_short: every latent is a prototype, several times
                each = np.concatenate(latents)
                found["centres"].append(np.resize(each, (count, *each.shape[1:])))
                found["sizes"].append(np.ones(count, np.int64))
                found["fitted"].append(len(rows))
                continue
            made = kmeans.fit(latents, count, config.km_expand, seed, c, rest)
            found["centres"].append(made.centres)
            found["sizes"].append(kmeans.sizes(latents, made.centres))
            found["fitted"].append(made.fitted)
        sizes, fitted = (jnp.asarray(found[n], jnp.int32) for n in ("sizes", "fitted"))
        centres = jnp.asarray(np.stack(found["centres"]))
        return State({"centres": centres}, {"sizes": sizes, "fitted": fitted})

    return build


def _rest(images: int, config: Config) -> int:
    """Return the number of latents after the last full buffer."""
    return images % (config.km_expand * (config.prototypes or config.ipc))


def blank(config: Config, problem: Problem) -> State:
    """Return a state of the prototypes' shapes, for estimates of cost."""
    classes, count = problem.data.classes, config.prototypes or config.ipc
    if config.prior == "own":
        shape: tuple[int, ...] = space_of(config, problem)[1]
    else:
        shape = (config.sd.size // 8, config.sd.size // 8, 4)
    centres = np.zeros((classes, count, *shape), np.float32)
    sizes = np.ones((classes, count), np.int32)
    return State({"centres": centres}, {"sizes": sizes, "fitted": sizes.sum(1)})


def parts(config: Config, problem: Problem) -> list[Part]:
    """Return the parts of the set: a class each with Stable Diffusion, [] (at once) else."""
    if config.prior == "own":
        return []
    rows = np.arange(problem.data.classes * config.ipc).reshape(-1, 1, config.ipc)
    return [Part([Batch(c, own)]) for c, own in enumerate(rows)]


def make(config: Config, problem: Problem, part: Part | None = None) -> Method:
    """Build D4M for ``problem``, or for a part of its set: a method without steps."""
    data, ipc = problem.data, config.ipc
    given = problem.phases["prototypes"]
    classes = np.arange(data.classes)
    if part is not None:
        classes = np.asarray([batch.number for batch in part])

    def init(seed: int) -> State:
        centres = np.asarray(given.variables["centres"])
        images = prior_of(config, problem).generate(centres, classes, seed)
        return State({"images": jnp.asarray(images)}, {"rows": jnp.zeros((), jnp.int32)})

    def sample(seed: int, step: int) -> dict[str, Any]:
        raise ValueError("images that are generated have no steps")

    def distilled(state: State, steps: int) -> DistilledSet:
        images = quantised(np.asarray(state.variables["images"]), data.transform, config.quantise)
        made = decoupled.dataset(problem, images, steps)
        if config.weights == "none":
            return made
        sizes = np.asarray(given.aux["sizes"])
        return made._replace(weights=kmeans.weights(sizes, ipc // sizes.shape[1]))

    return Method(init, sample, None, distilled, optax.identity())


def cost(config: Config, problem: Problem) -> tuple[Callable[[], Any] | None, int, str]:
    """Return a call to time, how many such calls a set takes, and what is counted, in words."""
    classes = problem.data.classes
    if config.prior != "own":
        return None, 0, "Stable Diffusion, which is not loaded to be timed"
    centres = np.asarray(problem.phases["prototypes"].variables["centres"])
    generate = prior_of(config, problem).generate
    few = np.arange(min(classes, max(1, config.sampling.part // config.ipc)))
    return (
        lambda: generate(centres, few, 0),
        -(-classes // len(few)),
        f"images of {len(few)} classes at a time",
    )


def _own(config: Config, problem: Problem) -> Prior:
    """Return the prior that jdd trained in the phases before."""
    coder, shape = space_of(config, problem)
    train = problem.data.train
    known = problem.phases["vae"].variables if coder is not None else {}

    @jax.jit
    def latents(params: Tree, scale: jax.Array, x: jax.Array, keys: jax.Array) -> jax.Array:
        assert coder is not None
        mean, log_variance = coder.encode(params, x)
        return vae.drawn(mean, log_variance, diffusion.draw(keys, 0, mean)) * scale

    def encode(rows: np.ndarray, seed: int, label: int) -> Iterator[np.ndarray]:
        for lo in range(0, len(rows), _ENCODED):
            part = rows[lo : lo + _ENCODED]
            # One compiled size: the last part is filled up.
            filled = np.concatenate([part, np.repeat(part[-1:], _ENCODED - len(part))])
            images = np.asarray(train.images[filled], np.float32)
            if coder is None:
                yield images[: len(part)]
                continue
            keys = _keys(rng.stream(seed, "d4m/latents"), jnp.asarray(filled))
            drawn = latents(known["params"], known["scale"], images, keys)
            yield np.asarray(drawn)[: len(part)]

    program = functools.cache(lambda: _sampler(config, problem))

    def generate(centres: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
        numbers = classes[:, None] * config.ipc + np.arange(config.ipc)
        keys = _keys(rng.stream(seed, "d4m/noise"), jnp.asarray(numbers.ravel()))
        own = np.repeat(centres[classes], config.ipc // centres.shape[1], axis=1)
        weights = (problem.phases["diffusion"].variables["ema"], known)
        images = program()(weights, centres, own, classes, keys.reshape(numbers.shape))
        return np.asarray(images).reshape(-1, *problem.data.shape)

    return Prior(shape, encode, generate)


@jax.jit
def _keys(stream: jax.Array, numbers: jax.Array) -> jax.Array:
    """Return a key for each number, [n]."""
    return jax.vmap(lambda i: jax.random.fold_in(stream, i))(numbers)


def _sampler(config: Config, problem: Problem) -> Any:
    """Return the compiled program that makes the images of some classes from their modes.

    ``(weights, centres, modes [count, ipc, *latent], classes [count], keys [count, ipc])``. As many
    whole classes as have ``sampling.part`` images are sampled at a time: images of a class are
    always sampled together, for the guides.
    """
    own, pull = config.sampling, config.guide
    coder, shape = space_of(config, problem)
    net = predictor(config, problem)
    schedule = diffusion.schedule_of(config.diffusion.schedule, config.diffusion.timesteps)
    low, high = (jnp.asarray(a) for a in bounds(problem.data.transform, problem.data.shape))
    limits = (low[None, None, None], high[None, None, None])
    part = max(1, own.part // config.ipc)

    def images(
        weights: Tree, centres: jax.Array, modes: jax.Array, classes: jax.Array, keys: jax.Array
    ) -> jax.Array:
        params, known = weights
        predict = functools.partial(net.apply, params)
        build = guidance.build(
            schedule, centres, pull.mode, pull.representative, pull.diverse, pull.until
        )

        def of_classes(modes: jax.Array, classes: jax.Array, keys: jax.Array) -> jax.Array:
            flat, each = modes.reshape(-1, *shape), keys.reshape(-1)
            found = diffusion.sample(
                predict, schedule, _started(schedule, flat, each, own.steps, own.strength),
                jnp.repeat(classes, config.ipc), own.steps, own.guidance, own.strength, own.eta,
                each, build(flat), limits if coder is None else None,
            )  # fmt: skip
            if coder is not None:
                found = coder.decode(known["params"], found / known["scale"])
            found = jnp.clip(found, *limits)
            return found.reshape(*modes.shape[:2], *found.shape[1:])

        return diffusion.in_parts(of_classes, part, modes, classes, keys)

    return jax.jit(images)


def _started(
    schedule: diffusion.Schedule, modes: jax.Array, keys: jax.Array, steps: int, strength: float
) -> jax.Array:
    """Return what the sampler starts from: of strength 1 it takes noise, here the noised modes."""
    if strength < 1:
        return modes
    first = int(diffusion.timesteps(schedule, steps)[0])
    noise = diffusion.draw(keys, len(schedule.alpha_bar), modes)
    return diffusion.noised(schedule, modes, jnp.asarray(first), noise)


def _stable_diffusion(config: Config, problem: Problem) -> Prior:
    """Return Stable Diffusion as the prior, loaded when it is first used."""
    data, own, sd = problem.data, config.sampling, config.sd
    settings = stable_diffusion.Settings(
        sd.weights, sd.size, own.steps, own.strength, own.guidance, own.eta, sd.scheduler,
        sd.negative, own.part,
    )  # fmt: skip
    pipe = functools.cache(lambda: stable_diffusion.load(settings))
    words = stable_diffusion.prompts(data.class_names, sd.prompt)

    def encode(rows: np.ndarray, seed: int, label: int) -> Iterator[np.ndarray]:
        for lo in range(0, len(rows), own.part):
            numbers = rows[lo : lo + own.part]
            pixels = np.clip(data.transform.inverse(np.asarray(data.train.images[numbers])), 0, 1)
            yield pipe().encode(pixels, seed, [int(n) for n in numbers])

    def generate(centres: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
        modes = np.repeat(centres[classes], config.ipc // centres.shape[1], axis=1)
        numbers = (classes[:, None] * config.ipc + np.arange(config.ipc)).ravel()
        prompts = [words[c] for c in np.repeat(classes, config.ipc)]
        flat = modes.reshape(-1, *modes.shape[2:])
        pixels = pipe().generate(flat, prompts, seed, [int(n) for n in numbers], data.shape)
        return np.asarray(data.transform.forward(pixels))

    return Prior((sd.size // 8, sd.size // 8, 4), encode, generate)
