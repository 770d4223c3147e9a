import numpy as np

from jdd import rng
from jdd.data import class_indices, draw_per_class, lacking
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


def test_a_small_class_gives_its_images_several_times():
    labels = np.repeat(np.arange(3), (1, 2, 60)).astype(np.int32)
    rows = draw_per_class(rng.host(0, "draw"), labels, 3, 5, "repeat")
    assert labels[rows].tolist() == np.repeat(np.arange(3), 5).tolist()
    assert rows[:5].tolist() == [0] * 5
    assert sorted(np.bincount(rows[5:10] - 1, minlength=2)) == [2, 3]
    assert len(set(rows[10:].tolist())) == 5
    again = draw_per_class(rng.host(0, "draw"), labels, 3, 5, "repeat")
    assert np.array_equal(rows, again)
    # Where no class is short, the draw is the one without the key.
    for short in ("repeat", "noise"):
        plain = draw_per_class(rng.host(0, "draw"), LABELS, 3, 2)
        assert np.array_equal(draw_per_class(rng.host(0, "draw"), LABELS, 3, 2, short), plain)
    places = lacking(labels, 3, 5).reshape(3, 5).sum(1)
    assert places.tolist() == [4, 3, 0]


def test_a_class_without_images_is_refused_however_short():
    draw = lambda: draw_per_class(rng.host(0, "draw"), LABELS, 4, 1, "repeat")  # noqa: E731
    refused(draw, "config.data", "no training image of class 3", "one or more of each")
    draw = lambda: draw_per_class(rng.host(0, "draw"), LABELS, 3, 9)  # noqa: E731
    refused(draw, "config.ipc", "9", "1 to 2", "--config.ipc_short=repeat")
