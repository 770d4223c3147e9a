"""How a recovered set is cut: image batches, parts of several, and what these are called."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from jdd.methods import recovery
from tests import runs
from tests.test_decoupled import keys_of


def test_image_batches_cover_the_set_once_in_pieces_as_equal_as_can_be():
    for classes, ipc, size, each in (
        (10, 3, 100, 1),
        (10, 3, 4, 1),
        (10, 10, 100, 10),
        (7, 5, 6, 3),
    ):
        found = recovery.batches(classes, ipc, size, each)
        rows = np.concatenate([b.rows.ravel() for b in found])
        assert sorted(rows.tolist()) == list(range(classes * ipc))
        assert [b.number for b in found] == list(range(len(found)))
        assert max(b.size for b in found) <= size
        for batch in found:  # a rectangle, class by class
            assert {tuple(set(r // ipc)) for r in batch.rows} == {
                (r[0] // ipc,) for r in batch.rows
            }
            assert batch.rows.shape[1] <= each


def test_accelerators_have_batches_of_as_many_images_as_one_may_have(monkeypatch, tiny, tmp_path):
    more = {"ipc": 20, "image_batch": 12, "batches_at_once": 0}
    context = runs.context(keys_of(tiny, "sre2l", **more), tmp_path)
    sizes = {}
    for count in (1, 2):
        monkeypatch.setattr(
            recovery.parallel, "pick", lambda _, n=count: n * [SimpleNamespace(platform="gpu")]
        )
        cut = recovery.parts(context.config, context.problem)
        sizes[count] = [sum(batch.size for batch in part) for part in cut]
    assert sizes == {1: 5 * [12], 2: [24, 24, 12]}  # 20 batches of 3 images


def test_parts_do_not_depend_on_the_number_of_processes(tiny, tmp_path):
    """So a run goes on with its finished parts, with any number of processes."""
    more = {"ipc": 20, "image_batch": 3, "batches_at_once": 0}
    context = runs.context(keys_of(tiny, "sre2l", **more), tmp_path)
    names = [
        [part.name for part in recovery.parts(context.config, given)]
        for given in (context.problem._replace(sharing=count) for count in (0, 1, 4))
    ]
    assert names[0] == names[1] == names[2] and len(names[0]) > 1


def test_parts_have_names_that_a_file_may_have():
    def part(*numbers):
        return recovery.Part(recovery.Batch(n, np.zeros((1, 1), int)) for n in numbers)

    assert part(3).name == "3" and part(0, 1).name == "0-1"
    many = part(*range(400))
    assert many.name.startswith("0-399-") and len(many.name) < 100
    others = part(*(n for n in range(400) if n != 7))
    assert many.name != others.name != part(*range(1, 400)).name
