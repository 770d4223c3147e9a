"""Relation graphs against NumPy formulas, finite differences and the published derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jdd import nets
from jdd.errors import BadInput
from jdd.matching import relations
from jdd.matching.relations import Features, Weights

B, D = 5, 7


def drawn(seed: int, width: int = D) -> Features:
    draw = np.random.default_rng(seed)
    stages = tuple((draw.normal(size=(B, c)), draw.normal(size=(B, c))) for c in (2, 3))
    return jax.tree.map(jnp.asarray, Features(draw.normal(size=(B, width)), stages))


def graph(f: np.ndarray, most: float | None = None) -> np.ndarray:
    squared = cdist(f, f, "sqeuclidean")
    return squared / (squared.max() if most is None else most)


def moved(first: np.ndarray, last: np.ndarray, most: float | None = None) -> np.ndarray:
    squared = ((last - first) ** 2).sum(1)
    return squared / (squared.max() if most is None else most)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_edges_and_transformations_are_in_0_to_1_and_free_of_scale():
    f = drawn(0)
    found = relations.edges(f.vertices)
    np.testing.assert_allclose(found, graph(np.asarray(f.vertices)), rtol=1e-12, atol=1e-14)
    assert float(found.max()) == 1 and float(found.min()) == 0
    np.testing.assert_array_equal(jnp.diag(found), 0)
    np.testing.assert_allclose(relations.edges(1e4 * f.vertices + 3e3), found, atol=1e-9)
    first, last = f.stages[1]
    found = relations.transformations(first, last)
    np.testing.assert_allclose(found, moved(*map(np.asarray, (first, last))), rtol=1e-12)
    assert float(found.max()) == 1 and float(found.min()) >= 0
    np.testing.assert_allclose(relations.transformations(-7 * first, -7 * last), found, rtol=1e-12)
    # Equal images have no relation, and a derivative.
    same = jnp.ones((B, D))
    assert float(relations.edges(same).max()) == float(relations.transformations(same, same)[0])
    slope = jax.grad(lambda x: relations.edges(x).sum() + relations.transformations(x, x).sum())
    np.testing.assert_array_equal(slope(same), 0)


def test_edges_of_float32_features_far_from_zero_keep_their_digits():
    f = np.asarray(drawn(3).vertices)
    found = relations.edges(jnp.asarray(f + 100, jnp.float32))
    np.testing.assert_allclose(found, graph((f + 100).astype(np.float32)), atol=1e-4)
    assert float(found.min()) == 0 and float(found.max()) == 1


def test_loss_is_that_of_the_released_settings():
    """0.005 / (2 b) |A_T - A_S|_F^2, 0.005 / 2 |L_T - L_S|^2 and w / (2 b) |f_T - f_S|^2."""
    student, teachers = drawn(0), (drawn(1), drawn(2))
    total = 0.0
    ours = jax.tree.map(np.asarray, student)
    for theirs in (jax.tree.map(np.asarray, one) for one in teachers):
        total += 0.3 / (2 * B) * ((theirs.vertices - ours.vertices) ** 2).sum()
        total += 0.005 / (2 * B) * ((graph(theirs.vertices) - graph(ours.vertices)) ** 2).sum()
        for a, b in zip(theirs.stages, ours.stages, strict=True):
            total += 0.005 / 2 * ((moved(*a) - moved(*b)) ** 2).sum()
    found = relations.loss(teachers, student, Weights(0.3, 0.005, 0.005))
    np.testing.assert_allclose(found, total / 2, rtol=1e-12)
    # Edges do not mind how many features a teacher has; a student like its teacher has loss 0.
    wide = relations.loss([drawn(1, 11)], student, Weights(edges=1.0))
    assert float(wide) > 0
    assert float(relations.loss([student], student, Weights(1.0, 1.0, 1.0))) == 0


def test_derivative_by_finite_differences_with_the_maximum_fixed_and_its_published_half():
    student, teacher = drawn(0), drawn(1)
    wanted = graph(np.asarray(teacher.vertices))
    to = [moved(*map(np.asarray, pair)) for pair in teacher.stages]
    most = cdist(student.vertices, student.vertices, "sqeuclidean").max()
    mosts = [((np.asarray(b) - np.asarray(a)) ** 2).sum(1).max() for a, b in student.stages]

    def plain(f: Features) -> float:
        found = ((wanted - graph(f.vertices, most)) ** 2).sum() / (2 * B)
        for target, own, top in zip(to, f.stages, mosts, strict=True):
            found += ((target - moved(*own, top)) ** 2).sum() / 2
        return found

    weights = Weights(edges=1.0, transformations=1.0)
    slope = jax.grad(lambda f: relations.loss([teacher], f, weights))(student)
    leaves, tree = jax.tree.flatten(jax.tree.map(np.array, student))
    for i, leaf in enumerate(leaves):
        for at in np.ndindex(leaf.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moves = [x.copy() for x in leaves]
                moves[i][at] += step
                ends.append(plain(jax.tree.unflatten(tree, moves)))
            exact = jax.tree.leaves(slope)[i][at]
            np.testing.assert_allclose(exact, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-9)

    def of_edges(half: bool) -> jax.Array:
        own = Weights(edges=1.0, half=half)
        return jax.grad(lambda f: relations.loss([teacher], f, own))(student).vertices

    np.testing.assert_allclose(2 * of_edges(True), of_edges(False), rtol=1e-9, atol=1e-15)


def test_stages_are_runs_of_blocks_of_equal_width():
    taps = {f"block{i}": jnp.full((B, 2, 2, c), float(i)) for i, c in enumerate([2, 3, 3, 3, 4], 1)}
    taps["block10"] = jnp.full((B, 4), 10.0)  # a flat output, after block 5
    taps["norm1"] = jnp.ones((B, 4))
    found = relations.stages(taps)
    assert [(float(a[0, 0]), float(b[0, 0]), a.shape) for a, b in found] == [
        (2.0, 4.0, (B, 3)), (5.0, 10.0, (B, 4)),
    ]  # fmt: skip


def test_nets_that_cannot_be_compared_are_refused():
    with jax.enable_x64(False):
        net = nets.make("ConvNet", (8, 8, 1), 3, width=4, depth=2)
        wide = nets.make("ConvNet", (8, 8, 1), 3, width=8, depth=2)
        flat = nets.make("ConvNet", (8, 8, 1), 3, width=4, depth=1)
        relations.validate([("A", wide)], net, Weights(edges=1.0, transformations=1.0))
        with pytest.raises(BadInput, match="irg_vertices: on, and A has 72 features, ConvNet 36"):
            relations.validate([("A", net), ("A", wide)], net, Weights(vertices=1.0))
        with pytest.raises(BadInput, match="irg_transformations: on, and A has 1 stages, ConvNet"):
            relations.validate([("A", net)], flat, Weights(transformations=1.0))
