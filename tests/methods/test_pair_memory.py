"""Memory of an outer step of pairs: it grows with the student's steps by the weights alone."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jdd import methods, rng
from jdd.parallel import temporaries
from jdd.parallel.devices import compiled
from tests.methods.test_pair_methods import context

KEYS = {
    "pairs": 50, "net.width": 16, "net.depth": 2, "text.size": 64, "towers.size": 32,
    "sim_rank": 2, "max_start_epoch": 1,
}  # fmt: skip


def planned(how: str, steps: int) -> tuple[int, int]:
    """Return XLA's temporaries of a step's gradient and the bytes of both towers' weights."""
    found = context("lors", Path("unused"), **KEYS, unroll=how, syn_steps=steps)
    method = methods.make(found.config, found.blank)
    item = jax.tree.map(lambda a: a[0], found.blank.gather(method.sample(0, 0)))
    step = jax.jit(jax.value_and_grad(method.objective, has_aux=True))
    variables = jax.tree.map(jnp.asarray, method.init(0).variables)
    program = compiled(step.lower(variables, {}, item, rng.key(0, "test")))
    return temporaries(program), sum(np.asarray(a).nbytes for a in jax.tree.leaves(item["start"]))


def test_a_student_step_adds_the_weights_and_less_than_plain_reverse():
    (short, weights), (long, _) = planned("mixed", 4), planned("mixed", 12)
    assert 0 < (long - short) / 8 <= 1.5 * weights
    assert long < planned("reverse", 12)[0] / 4
