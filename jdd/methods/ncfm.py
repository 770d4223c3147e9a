"""NCFM: neural characteristic function matching (Wang et al., CVPR 2025).

With psi the features that a net's classifier reads, divided by their length, S_c the decoded images
of class c, R_c a batch of its real ones, A one augmentation for both, and phi the characteristic
functions of psi(A(S_c)) and psi(A(R_c)) at K frequencies t:

    m ~ U{1 .. nets},  l ~ U(0, 1),   theta = l theta_m^initial + (1 - l) theta_m^trained
    for each class c:   L_c = 300 mean_t sqrt(alpha (|phi_R| - |phi_S|)^2 + beta phase)
                        S <- AdamW step with dL_c/dS
                        psi_t <- SGD step up L_c                    (sampling_net)
    for each class c:   S <- AdamW step with d CE(f(A(S_c); theta_m^trained), c)/dS   (calibration)
    S <- clip(S, 0, 1);   the rate is halved where the sum of both, a class's mean, has not fallen
                          for ``plateau`` iterations

m and l are drawn once an iteration. A step of jdd's loop is one such optimiser step, of one class:
an iteration has C (1 + calibration) steps, in the order above. So every step of AdamW, which moves
the images of other classes too, is as published. The images are pixels in [0, 1]; a stored image is
decoded into factor x factor training images (``augment/formation.py``).

The nets are those of the experts stage, trained as published: the rate falls after 2/3 and 5/6 of
the epochs, with the matching augmentation but its cutout, and CutMix.

Differs from the authors' code: the last features alone are matched, of deep nets too; MMD as the
distance is left out. ``factor`` has to divide the sides. The sampling net does ascend; in their
code its two gradients cancel. Evaluation reports the last epoch, not the best.
``docs/methods/ncfm.md`` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.augment import formation, idc
from jdd.data import class_indices
from jdd.matching import characteristic as cf
from jdd.matching.losses import cross_entropy
from jdd.methods import initial_set
from jdd.methods.base import Method, Problem, State, first_images, real_images, recipe
from jdd.methods.classwise import padded_rows, widest
from jdd.parallel.parts import each
from jdd.product.distilled_set import DistilledSet
from jdd.specs.ncfm import Config

Tree = Any
MOMENTUM, DECAY = 0.5, 5e-4  # of the sampling net's SGD
THRESHOLD = 1e-4  # a loss is smaller if it is so by this share, as in PyTorch's plateau schedule


class Place(NamedTuple):
    """The place of a step: its iteration, its class, and whether it calibrates."""

    iteration: int
    label: int
    calibrates: bool


def place(step: int, classes: int, calibration: int) -> Place:
    """Return the place of a step among iterations of classes (1 + calibration) steps."""
    iteration, at = divmod(step, classes * (1 + calibration))
    return Place(iteration, at % classes, at >= classes)


class Plateau(NamedTuple):
    """State of ``plateau``: the direction's state, the step within an iteration, sum of its losses
    and smallest one so far, iterations since, and the factor of the rate.
    """

    inner: Tree
    at: jax.Array
    total: jax.Array
    best: jax.Array
    bad: jax.Array
    factor: jax.Array


def plateau(
    direction: optax.GradientTransformation, rate: float, classes: int, length: int, patience: int
) -> optax.GradientTransformationExtraArgs:
    """Return an optimiser whose rate is halved where an iteration's mean loss stops falling.

    x <- x - rate factor d. The loss of an iteration of ``length`` steps is the sum of theirs over
    the number of classes; after more than ``patience`` iterations without one below (1 - 1e-4) of
    the smallest, the factor is halved. A patience of 0 leaves it at 1.
    """

    def init(params: Tree) -> Plateau:
        zero = jnp.zeros((), jnp.int32)
        total, best, factor = (jnp.asarray(x, jnp.float32) for x in (0, np.inf, 1))
        return Plateau(direction.init(params), zero, total, best, zero, factor)

    def update(
        grads: Tree, state: Plateau, params: Tree = None, *, value: jax.Array, **more: Any
    ) -> tuple[Tree, Plateau]:
        found, inner = direction.update(grads, state.inner, params)
        moves = jax.tree.map(lambda d: -rate * state.factor * d, found)
        total = state.total + value
        mean, ends = total / classes, state.at + 1 == length
        better = mean < state.best * (1 - THRESHOLD)
        bad = jnp.where(better, 0, state.bad + 1)
        halved = (bad > patience) & (patience > 0)
        after = Plateau(
            inner,
            jnp.zeros_like(state.at),
            jnp.zeros_like(total),
            jnp.where(better, mean, state.best),
            jnp.where(halved, 0, bad),
            jnp.where(halved, state.factor / 2, state.factor),
        )
        within = state._replace(inner=inner, at=state.at + 1, total=total)
        return moves, jax.tree.map(lambda new, old: jnp.where(ends, new, old), after, within)

    return optax.GradientTransformationExtraArgs(init, update)


def optimizer(config: Config, classes: int) -> optax.GradientTransformation:
    """Return the images' optimiser: AdamW, or SGD with momentum, under ``plateau``."""
    decayed = optax.add_decayed_weights(config.img_decay)
    if config.optimizer == "adamw":
        direction = optax.chain(optax.scale_by_adam(), decayed)
    else:
        direction = optax.chain(decayed, optax.trace(config.img_momentum))
    length = classes * (1 + config.calibration)
    return plateau(direction, config.lr_img, classes, length, config.plateau)


class _Matching:
    """The losses of a step."""

    def __init__(self, config: Config, problem: Problem):
        data = problem.data
        self.config, self.net = config, problem.nets["student"]
        self.classes, self.shape = data.classes, data.shape
        self.mean, self.std = data.transform.mean, data.transform.std

    def seen(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Return images in the net's space, augmented alike."""
        return idc.siamese(key, images, self.config.augment, self.config.align_corners)

    def decoded(self, pixels: jax.Array, label: jax.Array) -> jax.Array:
        """Return the training images of a class in the net's space, ``[ipc factor^2, h, w, c]``."""
        own = pixels.reshape(self.classes, -1, *self.shape)[label]
        mean, std = (
            jnp.asarray(x, pixels.dtype).reshape(1, 1, 1, -1) for x in (self.mean, self.std)
        )
        return (formation.decode(own, self.config.factor) - mean) / std

    def features(self, variables: Tree, images: jax.Array) -> jax.Array:
        """Return features of length 1, ``[n, d]``, with running statistics of batch norm."""
        return cf.unit(self.net.apply(variables, images).features)

    def matching(
        self, pixels: jax.Array, aux: Tree, item: Tree, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """Return L_c, and the sampling net after its step up it."""
        noise, view = jax.random.split(key)
        mix = item["mix"].astype(pixels.dtype)
        theta = jax.tree.map(
            lambda a, b: (mix * a + (1 - mix) * b).astype(a.dtype), item["initial"], item["trained"]
        )
        real = self.seen(view, item["real"]["images"])
        part = self.net.part(len(real))
        wanted = jax.lax.stop_gradient(each(lambda x: self.features(theta, x), real, part))
        made = self.features(theta, self.seen(view, self.decoded(pixels, item["class"])))
        weight = item["real_weight"].astype(wanted.dtype)

        def loss(sampler: Tree, synthetic: jax.Array) -> jax.Array:
            t = cf.frequencies(noise, self.config.num_freqs, made.shape[1], made.dtype, sampler)
            phis = cf.characteristic(wanted, t, weight), cf.characteristic(synthetic, t)
            return cf.distance(*phis, self.config.alpha, self.config.beta)

        if not self.config.sampling_net:
            return loss(None, made), {}
        grads = jax.grad(loss)(aux["sampler"], jax.lax.stop_gradient(made))
        return loss(aux["sampler"], made), self.ascended(aux, grads)

    def ascended(self, aux: Tree, grads: Tree) -> Tree:
        """Return the sampling net and its momentum after an SGD step up the loss."""
        velocity = jax.tree.map(
            lambda v, g, p: MOMENTUM * v - g + DECAY * p, aux["velocity"], grads, aux["sampler"]
        )
        rate = self.config.sampling_lr
        sampler = jax.tree.map(lambda p, v: p - rate * v, aux["sampler"], velocity)
        return {"sampler": sampler, "velocity": velocity}

    def calibrating(
        self, pixels: jax.Array, aux: Tree, item: Tree, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """Return the cross entropy of the trained net on a class's images."""
        images = self.seen(key, self.decoded(pixels, item["class"]))
        logits = self.net.apply(item["trained"], images).logits
        target = jax.nn.one_hot(
            jnp.full(len(images), item["class"]), self.classes, dtype=logits.dtype
        )
        return cross_entropy(logits, target), {name: aux[name] for name in _sampled(self.config)}

    def objective(self, variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        """Return a step's loss, and the sampling net and the sum of losses after it."""
        given = variables["images"], aux, item, key
        loss, new = jax.lax.cond(item["calibrates"], self.calibrating, self.matching, *given)
        own = jax.lax.stop_gradient(jnp.where(item["calibrates"], 0.0, loss))
        return loss, (new | {"total": aux["total"] + own}, {"matching": aux["matching"]})


def _sampled(config: Config) -> tuple[str, ...]:
    return ("sampler", "velocity") if config.sampling_net else ()


def strategy(data_dsa: str, cutmix: float) -> str:
    """Return the operations of the evaluation: a shift, and the dataset's own of DSA.

    With CutMix there is no cutout, as in the authors' code.
    """
    ops = [op for op in data_dsa.split("_") if op not in ("", "none")]
    return "_".join(["pad", *(op for op in ops if not (cutmix and op == "cutout"))] if ops else [])


def _init(config: Config, problem: Problem) -> Callable[[int], State]:
    data, net = problem.data, problem.nets["student"]

    def first(seed: int) -> np.ndarray:
        if config.pix_init != "mix" or initial_set.given(config):
            return first_images(problem, config.pix_init, seed, "ncfm/init")
        images = real_images(problem, config.ipc * config.factor**2, seed, "ncfm/init")
        return formation.mixed(np.asarray(images), config.factor)

    def init(seed: int) -> State:
        pixels = np.clip(data.transform.inverse(first(seed)), 0, 1)
        aux: dict[str, Any] = {"at": jnp.zeros((), jnp.int32)}
        aux |= {"total": jnp.zeros(()), "matching": jnp.zeros(())}
        if config.sampling_net:
            one = jax.ShapeDtypeStruct((1, *data.shape), jnp.float32)
            variables = jax.eval_shape(net.init, jax.random.key(0))
            d = jax.eval_shape(net.apply, variables, one).features.shape[1]
            aux["sampler"] = cf.sampling_net(rng.key(seed, "ncfm/sampler"), d)
            aux["velocity"] = jax.tree.map(jnp.zeros_like, aux["sampler"])
        return State({"images": jnp.asarray(pixels, jnp.float32)}, aux)

    return init


def _sample(config: Config, problem: Problem) -> Callable[[int, int], dict[str, Any]]:
    data = problem.data
    by_class = class_indices(data.train.labels, data.classes)
    width = widest(by_class, config.batch_real)

    def sample(seed: int, step: int) -> dict[str, Any]:
        now = place(step, data.classes, config.calibration)
        once = rng.host(seed, "ncfm/net", now.iteration)
        net, mix = int(once.integers(config.experts.count)), once.random()
        own = by_class[now.label]
        rows, weight = padded_rows(rng.host(seed, "ncfm/sample", step), own, width)
        return {
            "snapshots": {"initial": [(net, 0)], "trained": [(net, config.experts.epochs)]},
            "real": rows[None],
            "real_weight": weight[None],
            "class": np.asarray([now.label], np.int32),
            "calibrates": np.asarray([now.calibrates]),
            "mix": np.asarray([mix], np.float32),
        }

    return sample


def make(config: Config, problem: Problem) -> Method:
    """Build NCFM for a resolved config and its problem."""
    data = problem.data
    labels = np.repeat(np.arange(data.classes, dtype=np.int32), config.ipc)
    length = data.classes * (1 + config.calibration)

    def advance(state: State, key: jax.Array) -> State:
        del key
        aux, images = state.aux, state.variables["images"]
        ends = aux["at"] + 1 == length
        return State(
            {"images": jnp.where(ends, jnp.clip(images, 0, 1), images)},
            aux
            | {
                "at": jnp.where(ends, 0, aux["at"] + 1),
                "total": jnp.where(ends, 0.0, aux["total"]),
                "matching": jnp.where(ends, aux["total"] / data.classes, aux["matching"]),
            },
        )

    def distilled(state: State, steps: int) -> DistilledSet:
        pixels = np.clip(np.asarray(state.variables["images"]), 0, 1)
        found = recipe(
            problem, steps, optimizer="adamw", lr=0.001, weight_decay=0.01,
            passes=config.eval.epochs, factor=config.factor,
        )  # fmt: skip
        ops = strategy(data.dsa, found["train"].get("cutmix", 0.0))
        how = found["augment"] | {"name": "idc" if ops else "none", "strategy": ops}
        if config.factor == 1:
            del found["train"]["factor"]
        images = data.transform.forward(pixels)
        return DistilledSet(images, labels, "hard", None, found | {"augment": how}, data.transform)

    return Method(
        init=_init(config, problem),
        sample=_sample(config, problem),
        objective=_Matching(config, problem).objective,
        distilled=distilled,
        optimizer=optimizer(config, data.classes),
        advance=advance,
    )
