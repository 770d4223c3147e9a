"""Latent matching: a method learns latents of a trained prior in place of pixels.

With g the decoder of a VAE or the generator of a GAN, its weights fixed, z one latent for each
image, y the images' classes and L the method's loss of images S:

    S = g(z, y),    dL/dz = (dg/dz)^T dL/dS
    z <- SGD(momentum) step of rate latent.lr with dL/dz

The outer loop decodes once a step and pulls the gradient back through g (``Method.decode``), so the
method itself is unchanged: it is given images, and returns the gradient with respect to them. The
product is g(z, y) of the last step, a set as any other.

z starts as the encoder's means of the images that the method itself would start from, or, where the
prior has no encoder or they would be noise, as draws for their classes: a VAE's Gaussian of the
class, a GAN's N(0, I).

Sources: GLaD (Cazenavette et al., Generalizing Dataset Distillation via Deep Generative Prior, CVPR
2023), section 3; LD3M (Moser et al., Latent Dataset Distillation with Diffusion Models, 2024).

Differs from both: the prior is jdd's own VAE or GAN, trained on the dataset itself, where theirs
are StyleGAN-XL and a latent diffusion model of ImageNet; z is the prior's own latent, where GLaD
learns features inside the generator.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.data.dataset import Dataset
from jdd.data.placeholder import FINGERPRINT
from jdd.errors import BadInput
from jdd.generative.diffusion import in_parts
from jdd.methods import initial_set
from jdd.methods.base import Method, Problem, State
from jdd.nets import generators
from jdd.nets.autoencoder import autoencoder
from jdd.product import arrays, files
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.schema.common import Common
from jdd.schema.latent import NONE
from jdd.storage import checkpoints

Tree = Any
WHERE = "config.latent.prior"
KINDS = {"vae": "VAE", "acgan": "GAN"}  # architectures of generators that decode latents
_ALLOWED = (
    "the working directory or distilled.npz of a finished run of vae, gan or dim on these images"
)
_PART = 100  # images decoded, or encoded, at a time


class Prior(NamedTuple):
    """A trained VAE or GAN.

    Attributes:
      kind: in words, a value of ``KINDS``.
      decode: ``(params, z [n, *latent], labels int [n]) -> images [n, h, w, c]``, differentiable,
        image i of z_i and label i alone.
      params: its weights.
      encode: ``images [n, h, w, c] -> z``; None: latents are drawn.
      draw: ``(key, labels) -> z``, for classes.
      digest: hash of everything above.
    """

    kind: str
    decode: Callable[[Tree, jax.Array, jax.Array], jax.Array]
    params: Tree
    encode: Callable[[np.ndarray], np.ndarray] | None
    draw: Callable[[jax.Array, jax.Array], jax.Array]
    digest: str


def given(config: Common) -> str:
    """Return the path of the prior whose latents are learned; '' for pixels."""
    own = getattr(config, "latent", None)
    return "" if own is None or own.prior == NONE else str(own.prior)


def read(config: Common, data: Dataset) -> Prior | None:
    """Return the prior of ``config.latent.prior``; None without one.

    Raises:
      BadInput: no finished run of a VAE or a GAN, one of other images, or whitened images.
    """
    if not (path := given(config)):
        return None
    where = f"{WHERE}={path}"
    if data.transform.whitens:
        words = f"{data.transform.kind} with latent.prior"
        raise BadInput("config.data.zca", words, "none: a prior's images are normalised by channel")
    found, file = _product(path)
    _validate(found, data, where)
    prior = _prior(found, _encoder(file, found) if _encodes(config) else None)
    if prior.encode is None and initial_set.given(config):
        words = f"with a {prior.kind} that has no encoder"
        raise BadInput(initial_set.WHERE, words, "the directory of a vae run, or leave it out")
    return prior


def digest(config: Common) -> str:
    """Return a hash of the prior's weights, on which a run's set depends; '' without one.

    The encoder counts where latents start as encoded images.

    Raises:
      BadInput: there is no such prior.
    """
    if not (path := given(config)):
        return ""
    found, file = _product(path)
    return _digest(found, _encoder(file, found) if _encodes(config) else None)


def _encodes(config: Common) -> bool:
    """Return whether the method's images would start as real ones or as those of a set."""
    return bool(initial_set.given(config)) or getattr(config, "pix_init", "real") != "noise"


def _product(path: str) -> tuple[GeneratorSet, Path]:
    """Return the generator at a path, and its file."""
    where, file = f"{WHERE}={path}", files.set_path(Path(path).expanduser())
    try:
        state = file.stat()
    except OSError:
        raise BadInput(where, "no such file or folder", _ALLOWED) from None
    if file.is_dir():
        raise BadInput(where, "a folder without distilled.npz", _ALLOWED)
    try:
        found = _loaded(str(file), state.st_mtime_ns, state.st_size)
    except BadInput as error:
        raise BadInput(where, f"{file}: {error.found}", _ALLOWED) from error
    if not isinstance(found, GeneratorSet):
        raise BadInput(where, f"a product of kind {found.kind!r}", _ALLOWED)
    if (name := str(found.architecture.get("name"))) not in KINDS:
        raise BadInput(where, f"a generator of kind {name!r}", _ALLOWED)
    return found, file


@functools.lru_cache(maxsize=2)
def _loaded(file: str, changed: int, size: int) -> AnyProduct:
    return files.load(file)


def _validate(found: GeneratorSet, data: Dataset, where: str) -> None:
    """Refuse a prior of other images."""
    if found.shape != tuple(data.shape):
        words = f"images of {_by(found.shape)}"
        raise BadInput(where, words, f"{_by(data.shape)}, the size of {data.name}")
    if found.class_names != tuple(data.class_names):
        words = f"{found.classes} classes ({', '.join(found.class_names[:3])} ...)"
        allowed = f"the {data.classes} of {data.name} ({', '.join(data.class_names[:3])} ...)"
        raise BadInput(where, words, allowed)
    made_from = found.recipe.get("data_fingerprint")
    if FINGERPRINT not in (made_from, data.fingerprint) and made_from != data.fingerprint:
        words = f"a prior of other images than those of {data.name}, or of another split"
        raise BadInput(where, words, f"{_ALLOWED}, with the same config.data keys")


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _encoder(file: Path, found: GeneratorSet) -> Tree | None:
    """Return the encoder of a VAE from the run that made it; None if it is not there.

    A set's file has the decoder alone. The checkpoint next to it counts if its decoder is the same.
    """
    if found.architecture["name"] != "vae" or not file.stem.startswith("distilled"):
        return None
    folder = file.parent / "checkpoints" / f"vae{file.stem.removeprefix('distilled')}"
    if (at := checkpoints.latest(folder)) is None:
        return None
    stored = _checkpoint(str(folder / str(at) / "default"))["params"]
    ours, theirs = (arrays.flat(tree) for tree in (found.params["decoder"], stored["decoder"]))
    same = ours.keys() == theirs.keys() and all(np.array_equal(ours[n], theirs[n]) for n in ours)
    return stored["encoder"] if same else None


@functools.lru_cache(maxsize=2)
def _checkpoint(path: str) -> Tree:
    return checkpoints.read(path)["state"]["variables"]


def _digest(found: GeneratorSet, encoder: Tree | None) -> str:
    made = {k: v for k, v in found.architecture.items() if k != "part"}
    trees = {"params": found.params} | ({} if encoder is None else {"encoder": encoder})
    named = sorted(arrays.flat(trees).items())
    hashes = [[n, hashlib.sha256(np.asarray(a, order="C").tobytes()).hexdigest()] for n, a in named]
    text = json.dumps([made, hashes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _prior(found: GeneratorSet, encoder: Tree | None) -> Prior:
    own, digest = found.architecture, _digest(found, encoder)
    kind = KINDS[own["name"]]
    if own["name"] == "acgan":
        net = generators.make(own)

        def noise(key: jax.Array, labels: jax.Array) -> jax.Array:
            return jax.random.normal(key, (len(labels), net.latent))

        return Prior(kind, net.apply, found.params, None, noise, digest)
    coder = autoencoder(found.shape, own["channels"], own["width"], own["levels"])
    mean, factors = (jnp.asarray(found.params[name]) for name in ("mean", "factors"))

    def decode(params: Tree, z: jax.Array, labels: jax.Array) -> jax.Array:
        del labels  # a VAE's decoder knows no classes
        return coder.decode(params, z)

    def draw(key: jax.Array, labels: jax.Array) -> jax.Array:
        n = jax.random.normal(key, (len(labels), math.prod(coder.latent)))
        z = mean[labels] + jnp.einsum("nl,nld->nd", n, factors[labels])
        return z.reshape(-1, *coder.latent)

    def encode(images: np.ndarray) -> np.ndarray:
        one = jax.jit(lambda params, x: coder.encode(params, x)[0])
        parts = [images[lo : lo + _PART] for lo in range(0, len(images), _PART)]
        return np.concatenate([np.asarray(one({"encoder": encoder}, part)) for part in parts])

    params = {"decoder": found.params["decoder"]}
    return Prior(kind, decode, params, None if encoder is None else encode, draw, digest)


def decoded(prior: Prior, params: Tree, z: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the images of latents, [n, h, w, c]: ``_PART`` at a time, recomputed for the gradient.

    Args:
      params: ``prior.params``, or these in another precision.
      z: [n, *latent]; labels: int [n].
    """
    return in_parts(jax.checkpoint(functools.partial(prior.decode, params)), _PART, z, labels)


def started(prior: Prior, images: np.ndarray, labels: jax.Array, seed: int) -> jax.Array:
    """Return the latents of step 0, of images ``[n, h, w, c]`` and classes int ``[n]``."""
    if prior.encode is None:
        return prior.draw(rng.key(seed, "latent/start"), labels)
    return jnp.asarray(prior.encode(images), jnp.float32)


def sentence(config: Common, data: Dataset) -> str:
    """Return one line on what is learned and how it starts; '' for pixels."""
    if (prior := read(config, data)) is None:
        return ""
    start = "encoded images" if prior.encode is not None else "draws for their classes"
    return f"latents of the {prior.kind} {given(config)} are learned; they start as {start}"


def wrapped(build: Callable[[Any], Method], config: Any, problem: Problem, prior: Prior) -> Method:
    """Return a method that learns latents of a prior in place of ``variables["images"]``.

    Args:
      build: ``config -> Method``, of pixels at the rate ``lr_img``; its ``advance`` may change
        ``aux`` alone.
    """
    method = build(with_rate(config))
    labels = jnp.asarray(np.repeat(np.arange(problem.data.classes), config.ipc), jnp.int32)

    def decode(variables: Tree) -> Tree:
        images = decoded(prior, prior.params, variables["latents"], labels)
        return _renamed(variables, "latents", "images") | {"images": images}

    compiled = jax.jit(decode)

    def init(seed: int) -> State:
        state = method.init(seed)
        z = started(prior, np.asarray(state.variables["images"]), labels, seed)
        variables = _renamed(state.variables, "images", "latents") | {"latents": z}
        if "images" in state.aux:  # an average of the images: of the first one alone yet
            return State(variables, state.aux | {"images": compiled(variables)["images"]})
        return State(variables, state.aux)

    def advance(state: State, key: jax.Array) -> State:
        after = method.advance(state._replace(variables=decode(state.variables)), key)
        return state._replace(aux=after.aux)

    def distilled(state: State, steps: int) -> AnyProduct:
        made = method.distilled(state._replace(variables=compiled(state.variables)), steps)
        start = "drawn" if prior.encode is None else "encoded"
        record = {"prior": prior.kind, "digest": prior.digest, "start": start}
        return made.with_recipe(made.recipe | {"latent": record})

    return method._replace(
        init=init, decode=decode, advance=advance, distilled=distilled,
        optimizer=_of_latents(method.optimizer),
    )  # fmt: skip


def with_rate(config: Any) -> Any:
    """Return the config of the method itself, whose ``lr_img`` is the rate of the latents."""
    return dataclasses.replace(config, lr_img=config.latent.lr or config.lr_img)


def _renamed(variables: Tree, old: str, new: str) -> Tree:
    return {new if name == old else name: value for name, value in variables.items()}


def _of_latents(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return an optimiser of latents, from one of images: it goes by the names of variables."""
    inner = optax.with_extra_args_support(optimizer)

    def init(variables: Tree) -> Tree:
        return inner.init(_renamed(variables, "latents", "images"))

    def update(grads: Tree, state: Tree, variables: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        given = None if variables is None else _renamed(variables, "latents", "images")
        moves, state = inner.update(_renamed(grads, "latents", "images"), state, given, **extra)
        return _renamed(moves, "images", "latents"), state

    return optax.GradientTransformationExtraArgs(init, update)
