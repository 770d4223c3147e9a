import numpy as np

from jdd import rng
from jdd.data import class_indices, draw_per_class
from tests.data.tiny_sets import refused

LABELS = np.array([2, 0, 1, 0, 2, 2, 1, 0], np.int32)


def test_class_indices_partition_the_set():
    groups = class_indices(LABELS, 4)
    assert [g.tolist() for g in groups] == [[1, 3, 7], [2, 6], [0, 4, 5], []]


def test_a_draw_is_class_major_without_repeats_and_repeatable():
    first = draw_per_class(rng.host(0, "draw"), LABELS, 3, 2)
    assert LABELS[first].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(first.tolist())) == 6
    assert np.array_equal(first, draw_per_class(rng.host(0, "draw"), LABELS, 3, 2))
    others = [draw_per_class(rng.host(s, "draw"), LABELS, 3, 2).tolist() for s in range(1, 9)]
    assert any(other != first.tolist() for other in others)


def test_an_ipc_outside_the_class_sizes_is_refused():
    for ipc in (0, -1, 3):
        draw = lambda ipc=ipc: draw_per_class(rng.host(0, "draw"), LABELS, 3, ipc)  # noqa: E731
        refused(draw, "config.ipc", str(ipc), "1 to 2", "smallest class")
