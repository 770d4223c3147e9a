"""Window policies of RaT-BPTT: where the steps lie that are differentiated through.

``uniform``  W steps from a uniform start (``ratbptt.window_start``);
``whole``    all T steps;
``at``       AT-BPTT's. At the start of every pass over the real images a fresh net is trained T
             steps on the set without a meta-gradient, g_t being the length of its gradient at step
             t. Start s and size w of the pass are, with d = ``window_radius``,

             stage 1   u ~ softmax(g),  w = W - d + floor(2 d r_u / T),  s = min(u, T - w)
             stage 2   w = W + d,       s ~ U{0 .. T - w}
             stage 3   w = W - d,       u ~ softmax(g),  s = max(0, T - u - w)

             r_u is the number of steps whose change |g_t - g_{t-1}| is below that of u; the change
             of step 0 is 0. Stage 1 ends once the accuracy of .15 T passes in a row rose by less
             than 1.5 points, stage 2 once that of .125 T passes in a row rose by less than 1. The
             accuracy of a pass is the mean over its real batches, each by the net of its window.

The state of ``at`` is in the checkpoint. Of several nets in a step each draws its own window from
the same lengths.

Differs from the authors' code: a stage ends at the first pass that fills .15 T or .125 T. Theirs
asks for equality, so that stage 2 never ends where .125 T is no whole number (T = 300).

Source: AT-BPTT (NeurIPS 2025), by the rule of its code; RaT-BPTT (Feng et al., ICLR 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd import rng
from jdd.specs.ratbptt import Config

Tree = Any
Norms = Callable[[jax.Array, Tree], jax.Array]  # (key, variables) -> [T]
# Of stages 1 and 2: the rise below which a pass counts, and how many in a row end it, of T.
RISES, PATIENCE = (0.015, 0.01), (Fraction(15, 100), Fraction(1, 8))
_WINDOW = "window"


class Policy(NamedTuple):
    """A policy's entries of ``aux``: at the start, and after a step."""

    begin: Callable[[int, Tree], Tree]  # (seed, variables) -> aux
    after: Callable[[jax.Array, Tree, Tree], Tree]  # (key, variables, aux) -> aux


NONE = Policy(lambda seed, variables: {}, lambda key, variables, aux: aux)


class Passes(NamedTuple):
    """How steps make passes: the real batches of a step, and those of a pass."""

    a_step: int
    a_pass: int


def longest(config: Config) -> int:
    """Return the steps of the longest window of a policy, T or fewer."""
    if config.window_policy == "whole":
        return config.unroll_steps
    return config.window + (config.window_radius if config.window_policy == "at" else 0)


def of_item(aux: Tree, item: Tree) -> tuple[jax.Array, jax.Array]:
    """Return start and size of an item's window."""
    window = aux[_WINDOW]
    return window["start"][item["place"]], window["size"][item["place"]]


def metrics(aux: Tree, start: jax.Array, size: jax.Array | None) -> dict[str, jax.Array]:
    """Return the stage, and the window of an item, as scalars to log."""
    found = {"stage": aux[_WINDOW]["stage"], "start": start, "size": size}
    return {f"window_{name}": jnp.asarray(value, jnp.float32) for name, value in found.items()}


def choose(
    key: jax.Array, norms: jax.Array, stage: jax.Array, window: int, radius: int
) -> tuple[jax.Array, jax.Array]:
    """Return start and size of one window, int32.

    Args:
      norms: g, ``[T]``.
      stage: 1, 2 or 3.
      window, radius: W and d.
    """
    steps = len(norms)
    drawn, uniform = jax.random.split(key)
    u = jax.random.categorical(drawn, norms)
    change = jnp.abs(jnp.diff(norms, prepend=norms[:1]))
    rank = jnp.sum(change < change[u])
    least, most = window - radius, window + radius
    by_rank = (least + (2 * radius * rank) // steps).astype(jnp.int32)
    size = jnp.select([stage == 1, stage == 2], [by_rank, most], least)
    early = jnp.minimum(u, steps - size)
    middle = jax.random.randint(uniform, (), 0, steps - most + 1)
    late = jnp.maximum(0, steps - u - size)
    start = jnp.select([stage == 1, stage == 2], [early, middle], late)
    return start.astype(jnp.int32), size.astype(jnp.int32)


def judged(window: Tree, steps: int) -> Tree:
    """Return the state after a pass: its accuracy, how long it has hardly risen, the stage."""
    accuracy = window["total"] / window["count"]
    at = jnp.clip(window["stage"] - 1, 0, 1)
    low = accuracy - window["last"] < jnp.asarray(RISES)[at]
    stalled = jnp.where(low, window["stalled"] + 1, 0)
    enough = jnp.asarray([math.ceil(share * steps) for share in PATIENCE])  # exact, unlike floats
    over = (window["stage"] < 3) & (stalled >= enough[at])
    return window | {
        "stage": window["stage"] + over,
        "stalled": jnp.where(over, 0, stalled),
        "last": accuracy,
        "total": jnp.zeros(()),
        "count": jnp.zeros((), jnp.int32),
    }


def adaptive(config: Config, passes: Passes, norms: Norms) -> Policy:
    """Return the policy ``at``.

    Args:
      norms: ``(key, variables) -> [T]``, the lengths of the gradients of a plain training.
    """

    def renewed(key: jax.Array, variables: Tree, window: Tree) -> Tree:
        trained, drawn = jax.random.split(key)
        g = norms(trained, variables)
        keys = jax.random.split(drawn, passes.a_step)
        found = jax.vmap(
            lambda k: choose(k, g, window["stage"], config.window, config.window_radius)
        )(keys)
        return window | dict(zip(("start", "size"), found, strict=True))

    @jax.jit
    def first(key: jax.Array, variables: Tree) -> Tree:
        none, zero = jnp.zeros(passes.a_step, jnp.int32), jnp.zeros((), jnp.int32)
        window = {
            "stage": zero + 1, "stalled": zero, "count": zero, "steps": zero, "start": none,
            "size": none, "total": jnp.zeros(()), "last": -jnp.ones(()),
        }  # fmt: skip
        # The first pass counts as a rise: no accuracy is below 0.
        return {"accuracy": jnp.zeros(()), _WINDOW: renewed(key, variables, window)}

    def begin(seed: int, variables: Tree) -> Tree:
        found: Tree = first(rng.key(seed, "ratbptt/first"), variables)
        return found

    def after(key: jax.Array, variables: Tree, aux: Tree) -> Tree:
        window = aux[_WINDOW]
        steps = window["steps"] + 1
        window = window | {
            "steps": steps,
            "total": window["total"] + aux["accuracy"],
            "count": window["count"] + 1,
        }
        before, now = ((s * passes.a_step) // passes.a_pass for s in (steps - 1, steps))

        def ended() -> Tree:
            return renewed(key, variables, judged(window, config.unroll_steps))

        return aux | {_WINDOW: jax.lax.cond(before != now, ended, lambda: window)}

    return Policy(begin, after)
