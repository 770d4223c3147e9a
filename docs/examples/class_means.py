"""Class means: images whose mean feature, in a fresh random net a step, is their class's.

    python -m jdd.main --config=docs/examples/class_means.py:digits,ipc=1 --workdir=runs/means
    python -m jdd.main --config=docs/examples/class_means.py:digits --help

Images start as the mean image of their class plus N(0, noise^2). A step draws a net theta and a
batch R_c of real images of every class c, and moves the images S by SGD:

    L = sum_c || mean_{x in R_c} f(x; theta) - mean_{s in S_c} f(s; theta) ||^2
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.config import AUTO, Common, option
from jdd.data import class_indices
from jdd.methods.base import Method, Problem, State, outer_sgd, recipe
from jdd.product.distilled_set import DistilledSet
from jdd.specs import Spec


@dataclass(frozen=True)
class Config(Common):
    """Keys of class means, with those that every method has."""

    lr_img: float = option(AUTO, "learning rate of the images", minimum=0)
    noise: float = option(0.1, "deviation of the noise at the start", minimum=0)
    batch_real: int = option(32, "real images of each class in a step", minimum=1)


def make(config: Config, problem: Problem) -> Method:
    """Build the method for a resolved config and its problem."""
    net, data = problem.nets["student"], problem.data
    by_class = class_indices(data.train.labels, data.classes)
    labels = np.repeat(np.arange(data.classes, dtype=np.int32), config.ipc)

    def init(seed):
        means = np.stack([np.asarray(data.train.images[rows]).mean(0) for rows in by_class])
        noise = jax.random.normal(rng.key(seed, "class_means/init"), (len(labels), *data.shape))
        images = jnp.asarray(means, jnp.float32)[labels] + config.noise * noise
        return State({"images": images}, {"net": net.init(rng.key(seed, "class_means/net"))})

    def sample(seed, step):
        draw = rng.host(seed, "class_means/sample", step)
        rows = [draw.choice(own, config.batch_real) for own in by_class]
        return {"real": np.concatenate(rows)[None].astype(np.int32)}  # one item

    def means(variables, images):
        features = net.apply(variables, images).features
        return features.reshape(data.classes, -1, features.shape[-1]).mean(1)

    def objective(variables, aux, item, key):
        real = jax.lax.stop_gradient(means(aux["net"], item["real"]["images"]))
        return jnp.sum((means(aux["net"], variables["images"]) - real) ** 2), ({}, {})

    def distilled(state, steps):
        found = recipe(problem, steps, lr=0.01)
        images = np.asarray(state.variables["images"])
        return DistilledSet(images, labels, "hard", None, found, data.transform)

    return Method(
        init=init,
        sample=sample,
        objective=objective,
        distilled=distilled,
        optimizer=outer_sgd({"images": (config.lr_img, 0.5)}),
        advance=lambda state, key: state._replace(aux={"net": net.init(key)}),  # a fresh net
    )


SPEC = Spec(
    name="class_means",
    make=make,
    title="Class means",
    config=Config,
    defaults={"lr_img": 1.0, "steps": 500},  # of the keys that are 'auto'
    starts={"digits": {"net.width": 32, "steps": 200, "eval.epochs": 300}},
    stages=("distill", "evaluate", "report", "full"),
)
