"""The interface of a method, pure functions over explicit state, and of the problem it solves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import __version__, nets, rng
from jdd.data import Rows, draw_per_class, lacking
from jdd.data.dataset import Dataset
from jdd.data.pairs import PairSplit
from jdd.data.transform import NAMES
from jdd.matching.losses import cross_entropy_sum
from jdd.methods import initial_set
from jdd.nets import Net
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.schema.common import Common
from jdd.schema.experts import FULL
from jdd.schema.values import section
from jdd.training.recipe import protocol, with_eval_keys

Tree = Any


class State(NamedTuple):
    """``variables``: learned by the outer optimiser; ``aux``: all other state of the run."""

    variables: Tree
    aux: Tree


class Experts(Protocol):
    """Variables of trained nets by expert and epoch; untrained ones where a cost is estimated."""

    trained: bool

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the nets are trained with, JSON-able; {} of untrained ones."""
        ...

    def read(self, expert: int, epoch: int) -> Tree:
        """Return the variables of an expert after ``epoch`` epochs."""
        ...


class Problem(NamedTuple):
    """Immutable inputs of a method: data, nets by role, expert store (or None), resolved config.

    ``teachers`` are the ``pretrained.teachers.Teacher``s of methods that squeeze the dataset.
    ``phases`` holds the outputs of the method's own finished phases, by name
    (``jdd.stages.registry.Phase``). ``sharing`` is the number of devices that share a step; 0:
    those of this process.
    """

    data: Dataset
    nets: dict[str, Net]
    experts: Experts | None
    config: Common
    teachers: tuple[Any, ...] = ()
    phases: Mapping[str, State] = MappingProxyType({})
    sharing: int = 0

    def gather(self, indices: dict[str, Any]) -> dict[str, Any]:
        """Replace a step's indices by the arrays they select, items on axis 0.

        ``snapshots`` maps a name to ``[k, 2]`` pairs (expert, epoch) and becomes that name's
        stacked variables. ``real`` holds rows of training images, ``[k, b]``, and becomes their
        ``images``, read lazily per item (``data.Rows``), and ``labels``. ``pairs`` holds rows of
        training captions, ``[k, b]``, and becomes ``image`` and ``text`` of these pairs. ``shared``
        holds only such a ``real``, common to all items of the step: axis 0 is not items, and it is
        read at once. Everything else passes through.
        """
        apart = ("snapshots", "real", "pairs", "shared")
        batch = {name: value for name, value in indices.items() if name not in apart}
        train = self.data.train
        if "real" in indices:
            rows = indices["real"]
            batch["real"] = {"images": Rows(train.images, rows), "labels": train.labels[rows]}
        if "pairs" in indices:
            rows, pairs = indices["pairs"], cast(PairSplit, train)
            images = pairs.images[pairs.image_of[rows]]
            batch["pairs"] = {"image": images, "text": pairs.text[rows]}
        if "shared" in indices:
            rows = indices["shared"]["real"]
            batch["shared"] = {"real": {"images": train.images[rows], "labels": train.labels[rows]}}
        for name, chosen in indices.get("snapshots", {}).items():
            assert self.experts is not None
            trees = [self.experts.read(int(expert), int(epoch)) for expert, epoch in chosen]
            batch[name] = jax.tree.map(lambda *xs: np.stack(xs), *trees)
        return batch


class Method(NamedTuple):
    """A method that optimises a synthetic set or, if ``objective`` is None, selects one.

    If the indices of ``sample`` have ``keys``, integers, one per item, the items' PRNG keys are
    folded from these instead of the items' indices in the step.

    Attributes:
      init: ``(seed) -> State``.
      sample: ``(seed, step) -> indices``, on the host, small; never the arrays.
      objective: ``(variables, aux, item, key) -> (loss, (new, metrics))``, with ``new`` the changed
        entries of ``aux``, averaged over the items like the loss. ``aux`` also holds the arrays of
        the step's ``shared`` indices. None: there are no steps.
      distilled: ``(state, steps) -> product``: a set, pairs, or a generator (``jdd/product``).
      optimizer: the outer optimiser over ``variables``; one with extra arguments is given the
        step's loss as ``value``.
      prepare: ``(aux) -> new``: the entries of ``aux`` that change once per step, before its items.
      advance: ``(state, key) -> state`` between steps.
      accept: ``(loss) -> bool array``; False skips the update of a step, which still counts.
      valid: ``(state) -> bool array``; False stops the run before it adopts the state.
      constants: entries of the objective's ``aux`` in addition to the state's; constant over the
        run and not in checkpoints.
      simple: True if the objective contains no inner differentiation; selects XLA's default CPU
        emitter (``parallel.compiled``).
      merged: on accelerators, vmap over a step's items instead of looping; for few items with large
        shared inputs.
      samples: of a prior, ``(state, key, labels) -> images``: what it draws in ``state`` for
        classes ``[n]``, ``[n, h, w, c]`` in the nets' input space; for pictures and figures while
        it trains. A generator's are those of its product, without this.
      reconstruct: of a prior that encodes, ``(state, images) -> images``, decoded again.
      decode: ``(variables) -> variables`` that ``objective`` is given in their place, a pure
        function: of methods that learn latents (``methods/latents.py``). The outer loop computes
        it once a step and pulls the gradient back through it.
    """

    init: Callable[[int], State]
    sample: Callable[[int, int], dict[str, Any]]
    objective: Callable[..., tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]] | None
    distilled: Callable[[State, int], AnyProduct]
    optimizer: optax.GradientTransformation
    prepare: Callable[[Tree], Tree] | None = None
    advance: Callable[[State, jax.Array], State] = lambda state, key: state
    accept: Callable[[jax.Array], jax.Array] = lambda loss: jnp.asarray(True)
    valid: Callable[[State], jax.Array] = lambda state: all_finite(state.variables)
    constants: Tree = {}
    simple: bool = False
    merged: bool = False
    samples: Callable[[State, jax.Array, jax.Array], jax.Array] | None = None
    reconstruct: Callable[[State, jax.Array], jax.Array] | None = None
    decode: Callable[[Tree], Tree] | None = None


def chosen(problem: Problem, select: Callable[[int], np.ndarray]) -> Method:
    """Return a method without steps: real images, selected once, with their labels.

    The recipe stores the rows as ``selected``: rows of the training split of the dataset with
    ``data_fingerprint``.

    Args:
      problem: the problem.
      select: ``(seed) -> rows`` of ``data.train``, ``[classes ipc]``, class-major.
    """
    data, train = problem.data, problem.data.train

    def init(seed: int) -> State:
        rows = np.asarray(select(seed), np.int32)
        images = jnp.asarray(train.images[rows], jnp.float32)
        return State({"images": images}, {"rows": jnp.asarray(rows)})

    def sample(seed: int, step: int) -> dict[str, Any]:
        raise ValueError("images that are chosen have no steps")

    def distilled(state: State, steps: int) -> DistilledSet:
        rows = np.asarray(state.aux["rows"])
        lr = problem.config.eval.lr
        return DistilledSet(
            images=np.asarray(state.variables["images"]),
            labels=np.asarray(train.labels[rows], np.int32),
            label_kind="hard",
            lr=None,
            recipe=recipe(problem, steps, lr=lr)
            | {"selected": rows.tolist()}
            | wrong_labels(data, rows),
            transform=data.transform,
        )

    return Method(init, sample, None, distilled, optax.identity())


def wrong_labels(data: Dataset, rows: np.ndarray) -> dict[str, dict[str, int]]:
    """Return how many labels of chosen training images are not the dataset's own, for a recipe.

    {} unless the training labels were replaced (``data.label_noise``).
    """
    if data.clean is None:
        return {}
    count = int(np.sum(data.train.labels[rows] != data.clean[rows]))
    return {"wrong_labels": {"count": count, "of": len(rows)}}


def all_finite(tree: Tree) -> jax.Array:
    """Return True (boolean scalar) if every number of a tree is finite."""
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def outer_sgd(rates: dict[str, tuple[float, float]]) -> optax.GradientTransformation:
    """Return SGD over a dict of variables, ``name -> (rate, momentum)``, as in PyTorch.

    v <- m v + g,  x <- x - rate v;  optax's trace form equals it.
    """
    parts = {n: optax.sgd(rate, momentum=m or None) for n, (rate, m) in rates.items()}
    return optax.multi_transform(parts, {name: name for name in rates})


def student_loss(net: Net) -> Callable[[Tree, Tree, Tree], jax.Array]:
    """Return the inner loss of an ``unroll.Inner`` whose constant holds the net's other variables.

    sum_i weight_i CE(net(images_i), target_i) over the rows; the weights of a batch sum to 1, and
    padding has weight 0.
    """

    def loss(theta: Tree, rows: Tree, step: Tree) -> jax.Array:
        out = net.apply({**step[1]["rest"], "params": theta}, rows["images"], train=True)
        return cross_entropy_sum(out.logits, rows["target"], rows["weight"])

    return loss


def shuffled(seed: int, purpose: str, step: int, n: int, batch: int) -> tuple[np.ndarray, int]:
    """Return the rows ``[min(batch, n)]`` of one step of a shuffled loader, and its epoch.

    An epoch is a permutation cut into full batches; the remainder is dropped.
    """
    batch = min(batch, n)
    epoch, place = divmod(step, n // batch)
    order = rng.host(seed, purpose, epoch).permutation(n)
    return order[place * batch : (place + 1) * batch], epoch


def first_images(problem: Problem, pix_init: str, seed: int, purpose: str) -> np.ndarray:
    """Return the images of step 0, class-major: real ones, N(0, 1), or those of another set.

    ``[classes ipc, ...]``; ``config.init_set`` takes the place of ``pix_init``.
    """
    data, ipc = problem.data, problem.config.ipc
    if (found := initial_set.read(problem.config, data)) is not None:
        return found
    if pix_init == "real":
        return real_images(problem, ipc, seed, purpose)
    noise = jax.random.normal(rng.key(seed, purpose), (ipc * data.classes, *data.shape))
    return np.asarray(noise)


def real_images(problem: Problem, count: int, seed: int, purpose: str) -> np.ndarray:
    """Return ``count`` real images of each class, ``[classes count, ...]``, class-major.

    A class with fewer gives them as ``config.ipc_short`` has it: repeated, or with noise for those
    that it lacks (``noised``).
    """
    data, short = problem.data, problem.config.ipc_short
    draw = rng.host(seed, purpose)
    rows = draw_per_class(draw, data.train.labels, data.classes, count, short)
    return noised(problem, data.train.images[rows], seed, purpose)


def noised(
    problem: Problem,
    images: np.ndarray,
    seed: int,
    purpose: str,
    places: np.ndarray | None = None,
    part: int = 0,
) -> np.ndarray:
    """Return the real images that a set starts from, with N(0, 1) for those that a class lacks.

    Images are unchanged unless ``config.ipc_short`` is "noise".

    Args:
      images: ``[k, ...]``: the images of a whole set, class-major, or of a part of it.
      places: of these images in the set, int [k]; None: all of them.
      part: the number of the part, for the draw.
    """
    data = problem.data
    if problem.config.ipc_short != "noise":
        return images
    count = len(images) // data.classes if places is None else problem.config.ipc
    lacks = lacking(data.train.labels, data.classes, count)
    lacks = lacks if places is None else lacks[places]
    if not lacks.any():
        return images
    noise = jax.random.normal(rng.key(seed, f"{purpose}/short", part), images.shape)
    return np.where(lacks[:, None, None, None], np.asarray(noise), images)


def net_options(config: Common) -> dict[str, Any]:
    """Return the options of the run's own net that differ from their defaults."""
    takes = nets.options_of(config.net.name)
    given = {k: v for k, v in section(config.net).items() if k in takes and v != "auto"}
    return {k: v for k, v in given.items() if (k, v) != ("init", nets.init_of(config.net.name))}


def full(config: Common) -> dict[str, Any]:
    """Return the training recipe of the whole-set baseline, one for all sets of a method."""
    return {name: getattr(config.experts, name) for name in FULL} | {
        "full_epochs": config.baselines.full_epochs
    }


def recipe(problem: Problem, outer_steps: int, **train: Any) -> dict[str, Any]:
    """Return the recipe of a set: the published protocol, overridden by ``train``.

    Settings of ``config.eval`` that differ from their default override both: ``steps``, and the
    options of ``training.recipe.with_eval_keys``.
    """
    config, data = problem.config, problem.data
    options = {
        **protocol(config.eval.epochs, config.eval.batch).to_json(),
        "init": {"kind": "fresh"},
        **train,
        "steps": config.eval.steps or train.get("steps"),
    }
    strategy = "none" if data.dsa in ("", "none") else data.dsa
    return {
        "schema": 1,
        "jdd_version": __version__,
        "method": config.method,
        "dataset": data.name,
        "class_names": list(data.class_names),
        "shape": list(data.shape),
        "ipc": config.ipc,
        "seed": config.seed,
        "steps": outer_steps,
        "net": {"name": config.net.name, "options": net_options(config)},
        "train": with_eval_keys(options, section(config.eval)),
        "augment": {
            "name": "none" if strategy == "none" else "dsa",
            "strategy": "" if strategy == "none" else strategy,
            "align_corners": config.align_corners,
        },
        "normalisation": {
            "mean": [float(x) for x in data.transform.mean],
            "std": [float(x) for x in data.transform.std],
        },
        "whitening": NAMES[data.transform.kind],
        "selection": "last",
        "full": full(config),
        "data": _data(config),
        "data_fingerprint": data.fingerprint,
        **_started(config),
    }


def _started(config: Common) -> dict[str, Any]:
    """Return the set that the images started from, as a recipe's entry; {} for none."""
    path = initial_set.given(config)
    return {"init_set": path} if path else {}


def _data(config: Common) -> dict[str, Any]:
    """Return the source of the real images, as a recipe's section."""
    # Keys newer than some sets are named only if used.
    newer = {"layout"} | {
        name.removeprefix("data.") for name, key in config.spec.keys.items() if key.sparse
    }
    own = section(type(config.data)())
    return {
        name: value
        for name, value in section(config.data).items()
        if name not in ("cache_dir", "stream") and not (name in newer and value == own[name])
    }
