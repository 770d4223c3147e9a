"""Instance relationship graphs: relations between the images of a batch, compared across two nets.

A graph has the images' features as vertices and their pairwise distances as edges. Edges are free
of scale and exist between any two nets; features of unequal length cannot be compared themselves.

Source: IRG (Liu et al., CVPR 2019). Factors are those of the authors' Caffe settings, whose
Euclidean loss is half the squared distance over the length of the first axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdd.errors import BadInput
from jdd.nets import Net, Output


class Weights(NamedTuple):
    """Weights of the three terms of ``loss``; ``half``: the derivative of edges as published."""

    vertices: float = 0.0
    edges: float = 0.0
    transformations: float = 0.0
    half: bool = False

    @property
    def any(self) -> bool:
        """True if a term has a weight."""
        return max(self.vertices, self.edges, self.transformations) > 0


class Features(NamedTuple):
    """What a net's graphs are made of.

    vertices: [b, d], the features that its classifier reads.
    stages: of every stage the features of its first and last block, [b, c] each.
    """

    vertices: jax.Array
    stages: tuple[tuple[jax.Array, jax.Array], ...] = ()


def edges(features: jax.Array, half: bool = False) -> jax.Array:
    """Return the edges of a batch, in [0, 1]; a scale or a shift of all features changes nothing.

        A_ij = |f_i - f_j|^2 / max_kl |f_k - f_l|^2

    The maximum is a constant in the derivative; if it is 0, so is A.

    Args:
      features: f, [b, d].
      half: A_ij has a derivative by f_i only, as in the authors' code. Of a symmetric loss this is
        half the derivative.

    Returns:
      A, [b, b], symmetric, its diagonal 0.

    Source: IRG (Liu et al., CVPR 2019), section 3.2.
    """
    # The mean changes no distance, and without it the products below cancel less.
    rows = features - jax.lax.stop_gradient(jnp.mean(features, axis=0, keepdims=True))
    columns = jax.lax.stop_gradient(rows) if half else rows
    products = jnp.einsum("id,jd->ij", rows, columns, precision=jax.lax.Precision.HIGHEST)
    lengths = jnp.sum(jnp.square(rows), 1)[:, None] + jnp.sum(jnp.square(columns), 1)[None]
    apart = ~jnp.eye(len(features), dtype=bool)
    squared = jnp.where(apart, jnp.maximum(lengths - 2 * products, 0), 0)
    return _to_one(squared)


def transformations(first: jax.Array, last: jax.Array) -> jax.Array:
    """Return how far each image moves between two layers of equal width, in [0, 1].

        L_i = |g_i - f_i|^2 / max_k |g_k - f_k|^2

    The maximum is a constant in the derivative; if it is 0, so is L.

    Args:
      first, last: f and g, [b, c].

    Returns:
      L, [b].

    Source: IRG (Liu et al., CVPR 2019), section 3.3.
    """
    return _to_one(jnp.sum(jnp.square(last - first), axis=1))


def _to_one(values: jax.Array) -> jax.Array:
    largest = jax.lax.stop_gradient(jnp.max(values))
    return values / jnp.where(largest > 0, largest, 1)


def edge_loss(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """Return 1/(2 b) sum_ij (A_ij - B_ij)^2 of two graphs' edges, [b, b] each."""
    return jnp.sum(jnp.square(teacher - student)) / (2 * len(student))


def vertex_loss(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """Return 1/(2 b) sum_i |f_i - g_i|^2 of two nets' features, [b, d] each."""
    return jnp.sum(jnp.square(teacher - student)) / (2 * len(student))


def transformation_loss(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """Return 1/2 sum_i (L_i - M_i)^2 of two nets' transformations, [b] each."""
    return jnp.sum(jnp.square(teacher - student)) / 2


def loss(teachers: Sequence[Features], student: Features, weights: Weights) -> jax.Array:
    """Return the distance of a student's graphs from its teachers', a mean over the teachers:

        vertices 1/(2 b) sum_i |f_i - g_i|^2 + edges 1/(2 b) sum_ij (A_ij - B_ij)^2
        + transformations sum_l 1/2 sum_i (L_li - M_li)^2

    The derivative of the mean over teachers is that of the distance from their mean graph.

    Args:
      teachers, student: features of the same batch.

    Source: IRG (Liu et al., CVPR 2019), equations of L_IRG and L_MTK; released settings: edges of
      the last features 0.005, transformations of three stages 0.005 each.
    """
    total = jnp.zeros((), student.vertices.dtype)
    for teacher in teachers:
        if weights.vertices:
            total += weights.vertices * vertex_loss(teacher.vertices, student.vertices)
        if weights.edges:
            own = edges(student.vertices, weights.half)
            total += weights.edges * edge_loss(edges(teacher.vertices), own)
        if weights.transformations:
            for theirs, ours in zip(teacher.stages, student.stages, strict=True):
                pair = transformations(*theirs), transformations(*ours)
                total += weights.transformations * transformation_loss(*pair)
    return total / len(teachers)


def read(out: Output) -> Features:
    """Return the features of a forward pass; its stages only if its blocks were tapped."""
    return Features(out.features, stages(out.taps))


def stages(taps: Mapping[str, jax.Array]) -> tuple[tuple[jax.Array, jax.Array], ...]:
    """Return the first and last block's output of every stage, means over the map, [b, c] each.

    A stage is a run of two or more consecutive blocks whose outputs have equally many channels.
    """
    names = [name for name in taps if name.startswith("block") and name[5:].isdigit()]
    maps = [taps[name] for name in sorted(names, key=lambda name: int(name[5:]))]
    found: list[list[jax.Array]] = []
    for x in maps:
        if not found or found[-1][0].shape[-1] != x.shape[-1]:
            found.append([])
        found[-1].append(x.mean(tuple(range(1, x.ndim - 1))))
    return tuple((run[0], run[-1]) for run in found if len(run) > 1)


def validate(teachers: Sequence[tuple[str, Net]], student: Net, weights: Weights) -> None:
    """Refuse nets whose features or stages cannot be compared.

    Args:
      teachers: each with its name in the config.

    Raises:
      BadInput: naming the key, both nets and what fits.
    """
    ours = _shapes(student)
    for word, net in teachers:
        theirs = _shapes(net)
        wide, own = theirs.vertices.shape[1], ours.vertices.shape[1]
        if weights.vertices and wide != own:
            found = f"on, and {word} has {wide} features, {student.name} {own}"
            allowed = "0, or nets of as many features; edges fit any: --config.post.irg_edges=0.005"
            raise BadInput("config.post.irg_vertices", found, allowed)
        many, few = len(theirs.stages), len(ours.stages)
        if weights.transformations and (many != few or not few):
            found = f"on, and {word} has {many} stages, {student.name} {few}"
            allowed = "0, or nets of as many stages (blocks of equal width), one or more"
            raise BadInput("config.post.irg_transformations", found, allowed)


def _shapes(net: Net) -> Features:
    def features(x: jax.Array) -> Features:
        return read(net.apply(net.init(jax.random.key(0)), x, taps=True))

    return jax.eval_shape(features, jax.ShapeDtypeStruct((2, *net.shape), jnp.float32))
