"""G-VBSM: images recovered by matching layer statistics of several nets (Shao et al., CVPR 2024).

Nets f_1 .. f_M of different architectures are trained on the whole dataset (squeeze). Step t
updates a batch of images X of labels y, A(X) a crop, a flip and a shift of all of them, by the
gradient of

    L = CE(f_m(A(X)), y) + r_bn sum_l k_l w_l sum_s |E_ls - T_ls| + density D(X),    m = t mod M
    E_ls <- ema E_ls + (1 - ema) S_ls(A(X)),    its derivative by S_ls set to 1

l runs over the convolutions and batch norms of f_m in execution order, w_1 = first_bn, other
w_l = 1; S_ls are mean and variance of the input of l, of a convolution also those of patches
(``matching/statistics.py``). T are a batch norm's running statistics; a convolution's are means
over real batches (``pretrained/feature_statistics.py``). k_l is 0 with probability ``drop`` for a
convolution, and E_ls then does not change; else 1. D increases the diversity of the images of a
class (``matching/density.py``). Every net has its own E for every batch of images.

Differs from the authors' code: E starts as its first S, theirs at 0 (``ref_bugs``: as theirs); t
and E restart with every batch of images, theirs continue from one to the next, so that batches
depend on their order; D has symmetric eigenvalues, divided by the number of pixels, and is of the
images themselves; draws are a function of seed, batch and step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.augment import views
from jdd.matching import losses, statistics
from jdd.matching.density import density
from jdd.matching.statistics import Average, Hooks, Keep
from jdd.methods import recovery
from jdd.methods.base import Method, Problem
from jdd.nets import Net
from jdd.nets.order import order
from jdd.pretrained import feature_statistics
from jdd.schema.decoupled import Matched
from jdd.specs.gvbsm import Config

Tree = Any
parts = recovery.parts
KINDS = ("conv", "batch")


def validate_teachers(teachers: Sequence[Any]) -> None:
    """Refuse teachers without a convolution or batch norm."""
    for teacher in teachers:
        recovery.hooks(teacher.net, KINDS)


def make(config: Config, problem: Problem, part: recovery.Part | None = None) -> Method:
    """Build G-VBSM for ``problem``: the whole set or one part."""

    def spread(by_class: jax.Array) -> jax.Array:
        return density(by_class, config.tau)

    return matched(config, problem, part, config.ref_bugs, spread=spread, weight=config.density)


def matched(
    config: Matched,
    problem: Problem,
    part: recovery.Part | None,
    zero_start: bool,
    distance: Distance | None = None,
    more: Mapping[str, Tree] = MappingProxyType({}),
    spread: Callable[[jax.Array], jax.Array] | None = None,
    weight: float = 0.0,
) -> Method:
    """Build a recovery from the statistics of several nets in turn: G-VBSM's, EDC's.

    Args:
      config, problem, part: see ``make``.
      zero_start: the moving averages start at 0.
      distance: replaces ``_apart``, the distance of statistics from their targets.
      more: further constants of each net, by its number as text; ``distance`` reads its own.
      spread, weight: a loss of the images of each class ``[classes, n, h, w, c]``, and its weight.
    """
    validate_teachers(problem.teachers)
    drawn = recovery.spec(config, problem.data.shape)
    targets = [feature_statistics.targets(t, problem.data, config.patch) for t in problem.teachers]
    looks = [
        _look(config, teacher.frozen, str(m), own, zero_start, distance or _apart)
        for m, (teacher, own) in enumerate(zip(problem.teachers, targets, strict=True))
    ]
    mine = part or recovery.Part(b for p in parts(config, problem) for b in p)
    rows = mine[0].rows.shape

    def loss(
        images: jax.Array, labels: jax.Array, aux: Tree, item: Tree, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        view_key, drop_key = jax.random.split(key)
        view = views.draw(view_key, len(images), images.shape[1:], drawn)
        x = views.apply(images, view)
        averages = {m: own[item["place"]] for m, own in aux["averages"].items()}
        constants = {name: aux[name] for name in ("teachers", "targets", *(["more"] * bool(more)))}
        fixed = (jax.lax.stop_gradient(x), labels, averages, constants, drop_key)
        # The derivative is taken within a branch: else memory would hold all nets' activations.
        (value, (averages, metrics)), slope = jax.lax.switch(
            aux["step"] % len(looks), [jax.value_and_grad(look, has_aux=True) for look in looks],
            *fixed,
        )  # fmt: skip
        value = value + jnp.vdot(slope, x - fixed[0])
        new = {"averages": _placed(averages, item["place"], len(mine), images.dtype)}
        if spread is None:
            return value, (new, metrics)
        even = spread(images.reshape(*rows, *images.shape[1:]))
        return value + weight * even, (new, {**metrics, "density": even})

    def extra(batches: recovery.Part) -> Tree:
        begun = [packed(statistics.start(own)) for own in targets]
        zeros = [jnp.zeros((len(batches), len(own)), jnp.float32) for own in begun]
        return {"averages": recovery.named(zeros)}

    constants = {
        "teachers": recovery.named(recovery.variables_of(problem)),
        "targets": recovery.named([packed(own) for own in targets]),
        **({"more": dict(more)} if more else {}),
    }
    return recovery.build(problem, part, loss, constants, extra)


Look = Callable[..., tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]]
# (statistics, targets, hooks in order, weight of the first, keep, (labels, own) or None) -> scalar.
Distance = Callable[[Hooks, Hooks, tuple[str, ...], float, Keep, Any], jax.Array]


def packed(tree: Tree) -> jax.Array:
    """Return all numbers of a tree as one vector, flags as 0 and 1.

    The averages of five nets are a thousand arrays: passing them through a step one by one costs
    60 ms of a CPU core (docs/speed.md).
    """
    leaves = [jnp.ravel(x) for x in jax.tree.leaves(tree)]
    return jnp.concatenate([x.astype(leaves[0].dtype) for x in leaves])


def unpacked(vector: jax.Array, like: Tree) -> Tree:
    """Undo ``packed``: return the tree of the shapes of ``like``."""
    leaves, tree = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])
    pairs = zip(leaves, ends, strict=True)
    parts = [vector[end - x.size : end].reshape(x.shape) for x, end in pairs]
    return jax.tree.unflatten(tree, parts)


def _apart(
    found: Hooks, target: Hooks, names: tuple[str, ...], first: float, keep: Keep, own: Any
) -> jax.Array:
    """Return the distance of the statistics from the targets of all real images."""
    del own
    return statistics.statistics_loss(found, target, names, first, keep)[0]


def _look(
    config: Matched, net: Net, name: str, like: Hooks, zero_start: bool, distance: Distance
) -> Look:
    """Return ``f(x, labels, averages, constants, key) -> (loss, (averages, metrics))`` of a net.

    Averages and targets are packed, those of this net like ``like``.
    """
    every, convs, norms = order(net, KINDS), order(net, ["conv"]), order(net, ["batch"])
    begun = jax.eval_shape(lambda: statistics.start(like))

    def look(
        x: jax.Array, labels: jax.Array, averages: Tree, constants: Tree, key: jax.Array
    ) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
        out = net.apply(constants["teachers"][name], x, train=False, taps="all")
        found = statistics.hook_statistics(out.taps, convs, norms, config.patch)
        u = jax.random.uniform(key, (len(convs),), jnp.float32)
        keep = dict(zip(convs, (u >= config.drop).astype(x.dtype), strict=True))
        average: Average = unpacked(averages[name], begun)
        average = average._replace(seen={hook: was != 0 for hook, was in average.seen.items()})
        found, after = statistics.moving(average, found, config.ema, keep, zero_start)
        target, first = unpacked(constants["targets"][name], like), config.first_bn
        own = (labels, constants["more"][name]) if "more" in constants else None
        apart = distance(found, target, every, first, keep, own)
        classes = out.logits.shape[-1]
        ce = losses.cross_entropy(out.logits, jax.nn.one_hot(labels, classes))
        right = jnp.mean(jnp.argmax(out.logits, axis=-1) == labels)
        metrics = {"ce": ce, "statistics": apart, "agreement": right}
        return ce + config.r_bn * apart, ({**averages, name: packed(after)}, metrics)

    return look


def _placed(own: Tree, place: jax.Array, count: int, dtype: Any) -> Tree:
    """Return zeros except for ``count`` times ``own`` at index ``place``.

    The loop averages the results of the ``count`` batches of a part: the mean holds each batch's
    own values.
    """

    def put(x: jax.Array) -> jax.Array:
        return jnp.zeros((count, *x.shape), dtype).at[place].set(count * x.astype(dtype))

    return jax.tree.map(put, own)
