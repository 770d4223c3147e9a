"""Keys in which runs of a comparison differ: those that change images."""

from __future__ import annotations

from jdd.report import own_keys


def test_keys_that_change_no_image_are_no_difference() -> None:
    one = {"method": "dm", "lr_img": 1.0, "classes_at_once": 1, "steps": 10, "eval": {"n": 1}}
    other = {**one, "lr_img": 2.0, "classes_at_once": 10, "steps": 20, "eval": {"n": 2}}
    found = own_keys.differing([("a", "dm", one), ("b", "dm", other)])
    assert found == {
        "lr_img": {"1": ("a",), "2": ("b",)},
        "steps": {"10": ("a",), "20": ("b",)},
    }
