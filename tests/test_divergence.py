"""Reports of diverged steps: the quantity that went bad, and keys that are not in force already."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

from jdd import config as configs
from jdd.errors import BadInput, Diverged
from jdd.methods.base import Method, State
from jdd.pretrained import train
from jdd.run import divergence
from jdd.run.loop import Carry
from jdd.schema.common import Common


def resolved(method: str, **keys: object) -> Common:
    return configs.resolve(configs.load(f"{method}:digits", keys).config)[0]


def cause(
    config: Common, loss: float, grads: dict[str, float], lr: float | None = 0.01
) -> divergence.Cause:
    """Return the cause of one step of SGD at rate 1 from images and a learned rate."""
    variables = {"images": jnp.asarray(0.5)} | ({} if lr is None else {"lr": jnp.asarray(lr)})
    optimizer = optax.sgd(1.0)
    carry = Carry(State(variables, {}), optimizer.init(variables), jnp.asarray(3))
    given = {name: jnp.asarray(grads.get(name, 0.0)) for name in variables}
    method = Method(State, dict, None, None, optimizer)  # type: ignore[arg-type]
    return divergence.cause(method, config, 0, carry, ((jnp.asarray(loss), ({}, {})), given))


def test_the_quantity_that_went_bad_is_named() -> None:
    mtt, nan = resolved("mtt"), float("nan")
    fell = cause(mtt, 1.0, {"lr": 0.03})
    assert fell == ("the learned rate fell from 0.01 to -0.02", ("lr_lr",))
    assert cause(mtt, 1.0, {"images": nan}).what.startswith("the gradient of the images became")
    assert cause(mtt, 1.0, {"images": 3e38 * 2}).keys[0] == "lr_student"
    student = cause(mtt, nan, {})
    assert student.what.startswith(
        "the parameters of the student, trained at the learned rate 0.01"
    )
    assert student.keys[0] == "lr_student"
    grown = cause(mtt, nan, {}, lr=10 * mtt.lr_student)
    assert grown.keys == ("lr_lr", "lr_img")
    assert cause(resolved("dm"), nan, {}, lr=None).what == "the loss became nan"


def test_advice_is_of_what_is_not_in_force() -> None:
    noise, real = (resolved("dm", pix_init=start) for start in ("noise", "real"))
    assert "--config.pix_init=real" in divergence.remedies(noise)
    assert "--config.pix_init=real" not in divergence.remedies(real)
    assert divergence.remedies(resolved("mtt"), ("lr_lr",)) == ["--config.lr_lr=1e-07"]
    assert divergence.remedies(resolved("mtt", lr_lr=0), ("lr_lr",)) == ["--config.seed=1"]


def test_step_0_is_no_good_set_and_trained_nets_serve_again() -> None:
    found = divergence.Cause("the learned rate fell from 0.01 to -0.02", ("lr_lr",))
    line = divergence.message(resolved("mtt"), Path("w"), "distill", 0, found)
    assert line.startswith("distill diverged at step 1: the learned rate fell")
    assert "no step was completed" in line and "good state" not in line
    assert "with a new --workdir and --config.experts.dir=w/experts" in line
    given = resolved("mtt", **{"experts.dir": "shared"})
    assert "--config.experts.dir=shared" in divergence.message(given, Path("w"), "x", 2, found)
    assert "of step 2, is kept" in divergence.message(given, Path("w"), "x", 2, found)
    assert ".dir" not in divergence.message(resolved("dm"), Path("w"), "distill", 2, found)
    assert "squeeze.dir=w/squeeze" in divergence.message(
        resolved("sre2l"), Path("w"), "recover", 2, found
    )


def test_another_config_is_advised_to_reuse_the_experts(tmp_path: Path) -> None:
    saved, place = resolved("mtt"), str(tmp_path)
    (tmp_path / "experts").mkdir()
    flag = f"--workdir with --config.experts.dir={place}/experts to reuse its experts; "
    for change, advised in (({"lr_img": 3}, True), ({"lr_img": 3, "net.width": 8}, False)):
        with pytest.raises(BadInput) as caught:
            configs.validate_resume(configs.flat(saved), resolved("mtt", **change), place)
        assert (flag in str(caught.value)) == advised


@pytest.mark.parametrize("given", [False, True])
def test_another_folder_of_experts_is_advised_where_one_is_given(given: bool) -> None:
    with pytest.raises(Diverged, match="the loss of a net became nan in epoch 3") as caught:
        train._finite(float("nan"), "experts", 2, 0.1, "experts", given)
    assert ("another --config.experts.dir" in str(caught.value)) == given
