"""Settings of data without published ones: the nearest row, fitted; all others as they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jdd
from jdd import api, specs
from jdd import config as configs
from jdd.config import expected, fitting, nearest
from jdd.config.helptext import help_text
from jdd.config.keyhelp import key_text
from jdd.config.nearest import Size
from jdd.errors import BadInput
from jdd.run import workdir
from jdd.schema.common import Common
from jdd.schema.key import checked

SHAPES = Size((32, 32, 3), 3, 144)  # 180 images, of which a fifth are test images
METHODS = [name for name in specs.names() if specs.get(name).task == "classify"]


def loaded(method: str, data: str = "shapes", **given: Any) -> configs.Loaded:
    keys = {"data.name": data, "data.path": "x.npz"} | given
    return configs.load(method, {n.replace("__", "."): v for n, v in keys.items()})


def settled(found: configs.Loaded, size: Size = SHAPES) -> tuple[Common, list[str]]:
    """Return the config of data of one's own: before they are loaded, and then."""
    given = found.explicit
    first, notes = configs.resolve(found.config, given=given)
    assert not any(line.startswith("settings") for line in notes)
    return configs.resolve(first, size.shape, given=given, size=size)


@pytest.mark.parametrize("method", METHODS)
def test_published_rows_and_tuned_starts_are_as_they_were(method: str) -> None:
    spec = specs.get(method)
    cells = [*spec.published, *((name, ipc) for name in spec.starts for ipc in (2, 3))]
    for dataset, ipc in dict.fromkeys(cells):
        keys = {"data.size": 224} if dataset == "imagenet" else {}
        source = {"data.path": ""} if dataset == "digits" else {}
        found = loaded(method, dataset, ipc=ipc, **keys, **source)
        shape = (nearest.size_of(dataset) or SHAPES).shape
        plain, notes = configs.resolve(found.config, absent=True)
        again, _ = configs.resolve(plain, shape, absent=True)
        given = found.explicit
        first = configs.resolve(found.config, absent=True, given=given)
        assert first == (plain, notes)
        assert configs.resolve(first[0], shape, True, given, SHAPES)[0] == again
        values = configs.flat(again)
        row = spec.published.get((dataset, ipc), {"values": spec.starts.get(dataset, {})})
        want = {n: checked(n, v, spec.keys) for n, v in row["values"].items()}
        assert {name: values[name] for name in want} == want


def test_the_nearest_row_is_by_size_channels_classes_and_ipc() -> None:
    def row(method: str, size: Size, ipc: int) -> tuple[str, int]:
        found = nearest.nearest(specs.get(method), size, ipc, "ConvNet")
        assert found is not None
        return found.dataset, found.ipc

    assert row("mtt", SHAPES, 1) == ("cifar10", 1)
    assert row("mtt", SHAPES, 20) == ("cifar10", 10)
    assert row("mtt", Size((32, 32, 3), 80, 40_000), 50) == ("cifar100", 50)
    assert row("mtt", Size((64, 64, 3), 200, 60_000), 1) == ("tiny_imagenet", 1)
    assert row("mtt", Size((12, 12, 1), 10, 1000), 1) == ("digits", 1)
    assert row("dm", Size((28, 28, 1), 10, 600), 10) == ("mnist", 10)
    assert nearest.nearest(specs.get("gan"), SHAPES, 1, "ConvNet") is None  # no row in colour
    assert nearest.nearest(specs.get("dd"), SHAPES, 1, "ConvNet") is None  # rows of other nets
    exact = nearest.Row("own", 1, SHAPES, {})
    assert nearest.distance(SHAPES, 1, exact) == 0
    other = nearest.Row("own", 4, Size((64, 16, 1), 12, 144), {})
    assert nearest.distance(SHAPES, 1, other) == 0 + 2 + 1 + 1 + 0.5


def test_lengths_experts_and_width_are_fitted_to_few_images() -> None:
    config, notes = settled(loaded("mtt"))
    values = configs.flat(config)
    assert (values["steps"], values["experts.count"], values["experts.epochs"]) == (250, 5, 3)
    assert (values["experts.batch"], values["experts.lr"], values["net.width"]) == (16, 0.1, 32)
    assert (values["lr_img"], values["syn_steps"], values["data.zca"]) == (100.0, 50, "none")
    assert "the MTT row of (cifar10, ipc 1), fitted to 144 training images" in notes[0]
    assert "steps 5000 -> 250, experts.count 100 -> 5" in notes[0] and len(notes) == 1
    many, _ = settled(loaded("mtt"), Size((32, 32, 3), 10, 50_000))
    assert (many.steps, many.experts.count, many.net.width) == (5000, 100, 128)
    assert (many.experts.batch, many.experts.lr) == (256, 0.01)
    some, _ = settled(loaded("mtt", ipc=10), Size((32, 32, 3), 10, 12_500))
    assert (some.steps, some.experts.count, some.net.width) == (1250, 50, 64)
    assert configs.flat(some)["max_start_epoch"] == 10


def test_adam_moves_images_as_far_and_datm_has_experts_that_fit() -> None:
    config, _ = settled(loaded("ratbptt"))  # the row: 12,000 steps at 0.001
    values = configs.flat(config)
    assert (values["steps"], values["lr_img"]) == (300, 0.04)
    given, _ = settled(loaded("ratbptt", steps=3000))
    assert configs.flat(given)["lr_img"] == 0.004
    assert configs.flat(settled(loaded("ratbptt", steps=20_000))[0])["lr_img"] == 0.001
    config, notes = settled(loaded("datm"))
    assert config.experts.epochs == 10 and "experts.epochs auto -> 10" in notes[0]
    read, _ = settled(loaded("datm", max_start_epoch=30))
    assert read.experts.epochs == 31
    grey, _ = settled(loaded("datm"), Size((8, 8, 1), 10, 400))
    assert (grey.experts.epochs, grey.experts.count) == (10, 5)  # jdd's own settings keep theirs
    late, _ = settled(loaded("datm", max_start_epoch=30), Size((8, 8, 1), 10, 400))
    assert late.experts.epochs == 31
    long, _ = settled(loaded("ftd", steps=5000))
    assert configs.flat(long)["ema"] == 0.9999
    lenet = loaded("dd", ipc=10, net__name="LeNet")
    first, _ = settled(lenet, Size((28, 28, 1), 10, 60_000))
    fewer, _ = settled(lenet, Size((28, 28, 1), 10, 600))
    assert fewer.steps == round(first.steps / 10)  # by the root: its rates are not probed
    assert configs.flat(fewer)["lr_img"] == configs.flat(first)["lr_img"]


def test_real_batches_are_at_most_a_quarter_of_a_class() -> None:
    def batch(classes: int, images: int, method: str = "dm", **given: Any) -> int:
        found, _ = settled(loaded(method, **given), Size((32, 32, 3), classes, images))
        return int(configs.flat(found)["batch_real"])

    assert (batch(10, 50_000), batch(10, 2000), batch(3, 144), batch(40, 1600)) == (256, 32, 8, 8)
    assert (batch(6, 635, "dc"), batch(6, 635, "dsa"), batch(10, 2000, batch_real=200)) == (
        16, 16, 200,
    )  # fmt: skip


def test_given_keys_stay_and_the_others_fit_them() -> None:
    config, notes = settled(loaded("mtt", experts__count=7, steps=40, net__width=8))
    assert (config.experts.count, config.steps, config.net.width) == (7, 40, 8)
    assert len(notes) == 1  # what is changed is a line of its own: see below
    late, _ = settled(loaded("datm", ipc=1000, max_start_epoch=4), SHAPES._replace(images=6000))
    values = configs.flat(late)
    assert values["min_start_epoch"] < values["max_start_epoch"] == 4
    few, _ = settled(loaded("ratbptt", ipc=3), Size((64, 64, 3), 40, 9000))
    assert configs.flat(few)["classes_per_step"] == 0  # all 40: the row has 50 of 200
    narrow, _ = settled(loaded("rded"))
    assert (narrow.net.name, narrow.net.width, narrow.nets) == ("ConvNetBN", 32, ("ConvNetBN",))
    wide, _ = settled(loaded("rded", net__name="ResNet18BN"))
    assert wide.nets == ("ResNet18BN",) and wide.net.width == "auto"
    assert configs.flat(wide)["squeeze.width"] == 32
    small = Size((12, 12, 1), 10, 1000)  # near jdd's own settings of the digits
    other, _ = settled(loaded("mtt", net__name="ResNet18"), small)
    assert settled(loaded("mtt"), small)[0].net.width == 32 and other.net.width == "auto"
    batched, _ = settled(loaded("mtt", experts__batch=16), SHAPES._replace(images=1000))
    assert batched.experts.lr == 0.031  # 63 steps an epoch, not 16 of 64 images
    assert loaded("mtt", lr_img="auto", steps=3).given >= {"steps"}
    assert "lr_img" not in loaded("mtt", lr_img="auto", steps=3).given


def test_rates_and_averages_belong_to_their_number_of_steps() -> None:
    config, _ = settled(loaded("ftd"))
    assert configs.flat(config)["ema"] == pytest.approx(0.9999 ** (5000 / 250), abs=1e-6)
    sgd, _ = settled(loaded("ncfm", ipc=10), Size((32, 32, 3), 100, 40_000))
    values = configs.flat(sgd)
    assert (values["optimizer"], values["lr_img"]) == ("sgd", 0.01)


@pytest.mark.parametrize("method", METHODS)
def test_every_key_of_a_known_dataset_without_a_row_has_a_value(method: str) -> None:
    for name, ipc in (("mnist", 3), ("cifar10", 7)):
        found = loaded(method, name, ipc=ipc)
        first, _ = configs.resolve(found.config, given=found.given)
        shape = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}[name]
        config, _ = configs.resolve(first, shape, given=found.given, size=nearest.size_of(name))
        left = {key for key, value in configs.flat(config).items() if value == "auto"}
        assert all(key.startswith("net.") for key in left), left


def test_values_are_validated_once_they_are_fitted() -> None:
    config, _ = settled(loaded("mtt", experts__epochs=5))  # 3 are read; of the defaults 11
    assert config.experts.epochs == 5
    with pytest.raises(BadInput, match="experts.epochs"):
        settled(loaded("mtt", experts__epochs=2))


def test_steps_that_follow_from_ipc_are_fitted_after_that() -> None:
    config, _ = settled(loaded("dc", ipc=4), SHAPES._replace(images=5000))
    values = configs.flat(config)
    assert (values["outer_loop"], values["inner_epochs"]) == (4, 50)
    assert values["steps"] == 400  # 4000 x 5000 / 50000: as many passes over the images


def test_a_known_dataset_is_fitted_before_it_is_loaded_and_keeps_that() -> None:
    found = loaded("mtt", "mnist")
    given = found.explicit
    first, notes = configs.resolve(found.config, given=given)
    assert "the MTT row of (cifar10, ipc 1)" in notes[0] and first.data.zca == "none"
    again = configs.resolve(first, (28, 28, 1), given=given, size=Size((28, 28, 1), 10, 59_000))
    assert again == (first, notes)
    own = loaded("mtt", "cifar10", ipc=5)
    assert configs.resolve(own.config, given=own.explicit)[0].data.zca == "kornia"


def test_a_run_goes_on_with_the_settings_that_it_began_with(tmp_path: Path) -> None:
    found = loaded("mtt", experts__count=9)
    old, _ = configs.resolve(found.config)
    old, _ = configs.resolve(old, SHAPES.shape)  # as before there were fitted settings
    (tmp_path / "config.json").write_text(configs.to_json(old))
    config, _ = configs.resolve(found.config, given=found.explicit)
    assert configs.as_begun(config, found.explicit, tmp_path / "none") is None
    begun = configs.as_begun(config, found.explicit, tmp_path)
    assert begun is not None
    workdir.validate(tmp_path, begun)
    assert configs.resolve(begun, SHAPES.shape, size=SHAPES)[0] == old
    white = loaded("mtt", "cifar10", ipc=5)
    before, _ = configs.resolve(white.config)  # the defaults: not whitened, as the row now is
    (tmp_path / "config.json").write_text(configs.to_json(before))
    config, _ = configs.resolve(white.config, given=white.given)
    begun = configs.as_begun(config, white.given, tmp_path)
    assert config.data.zca == "kornia" and begun == before
    (tmp_path / "config.json").write_text(configs.to_json(old))
    changed = loaded("mtt", experts__count=9, lr_img=3)
    config, _ = configs.resolve(changed.config, given=changed.explicit)
    begun = configs.as_begun(config, changed.explicit, tmp_path)
    assert begun is not None
    with pytest.raises(BadInput, match="lr_img was 100, now 3"):
        workdir.validate(tmp_path, begun)


def test_only_keys_that_are_listed_are_fitted() -> None:
    for method in METHODS:
        config = loaded(method, ipc=2).config
        fit = fitting.fitted(config, frozenset(), SHAPES)
        if fit is not None:
            assert {*fit.replaced} <= fitting.names(config)


def test_a_key_given_to_a_typed_config_at_its_default_counts_as_given() -> None:
    own = {"name": "mine", "path": "x.npz"}
    config = jdd.make_config("mtt", data=own, **{"experts.lr": 0.01})
    found = api._loaded(dataclasses.replace(config, ipc=2), {"pix_init": "real"})
    assert {"experts.lr", "pix_init", "ipc", "data.name"} <= found.given


def test_changed_are_keys_without_which_the_run_would_have_another_value() -> None:
    keys = {"steps": 250, "net__width": 128, "lr_lr": 1e-7, "pix_init": "noise"}
    found = loaded("mtt", **keys)
    config, _ = settled(found)
    line = configs.sentence(config, found.explicit, SHAPES)
    assert line == (
        "changed from the settings fitted to shapes: net.width=128 (not 32), "
        "pix_init=noise (not real)"
    )
    assert configs.sentence(settled(loaded("mtt"))[0], loaded("mtt").explicit, SHAPES) == ""
    row = loaded("mtt", lr_img=100)  # the row's own, and yet no probe chooses it
    assert configs.sentence(settled(row)[0], row.explicit, SHAPES).endswith(
        ": lr_img=100 (not probed from 100)"
    )
    off = loaded("mtt", lr_img=5, probe=False)
    assert "lr_img=5 (not 100)" in configs.sentence(settled(off)[0], off.explicit, SHAPES)
    known = loaded("mtt", "mnist", net__width=128, lr_img=3)  # its size is known before it is read
    line = configs.sentence(configs.resolve(known.config, given=known.given)[0], known.explicit)
    assert line.startswith("changed from the settings fitted to mnist: lr_img=3 (not probed from")
    assert "net.width" not in line


def test_a_directory_is_named_by_every_given_key_that_would_be_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fitted value follows from images that are not loaded yet."""
    monkeypatch.chdir(tmp_path)
    keys = {"net__width": 128, "pix_init": "noise", "steps": 7, "experts__lr": "0.01"}
    found = loaded("mtt", **keys)
    name = configs.default_workdir(found.config, "mtt", found.explicit)
    plain = "runs/mtt-shapes-ipc1-s0"
    assert name == f"{plain}-net.width_128-experts.lr_0.01-pix_init_noise"
    assert configs.default_workdir(loaded("mtt").config, "mtt", loaded("mtt").explicit) == plain
    # A run of these keys that began when only those that are not the method's defaults were named.
    older = tmp_path / f"{plain}-pix_init_noise"
    older.mkdir(parents=True)
    (older / "config.json").write_text(configs.to_json(settled(found)[0]))
    assert configs.default_workdir(found.config, "mtt", found.explicit) == str(
        older.relative_to(tmp_path)
    )
    other = loaded("mtt", **keys | {"net__width": 64})
    assert "net.width_64" in configs.default_workdir(other.config, "mtt", other.explicit)


def pictures(folder: Path, count: int) -> Path:
    """Write ``count`` pictures of 32 x 32 in each of three class folders."""
    draw = np.random.default_rng(0)
    for name in ("dots", "rings", "stripes"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_help_states_the_fitted_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "cache"))
    given = {"data.path": str(pictures(tmp_path / "shapes", 60)), "syn_steps": "9"}
    text = help_text("mtt:shapes", given)
    config, notes = settled(loaded("mtt"))
    fitted = (("steps", "auto", 250), ("experts.lr", "0.01", 0.1), ("net.width", "auto", 32))
    for name, own, value in fitted:
        assert configs.flat(config)[name] == value
        assert f"--config.{name}={own}   (here: {value})" in text
    assert "--config.lr_img=auto   (here: chosen by a probe that begins at 100)" in text
    assert "--config.syn_steps=9\n" in text and "(here: none)" in text  # as typed; not whitened
    joined = " ".join(text.split())
    assert (
        "so the nearest, the MTT row of (cifar10, ipc 1), fitted to 144 training images" in joined
    )
    assert "  here: 0.1\n" in key_text("experts.lr", "mtt:shapes", given)
    short = help_text("mtt:shapes", given | {"steps": "99"})  # too few to probe
    assert "--config.lr_img=auto   (here: 100)" in short


@pytest.mark.parametrize("reason", ["away", "large", "unreadable"])
def test_help_of_images_that_are_not_read_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "shapes"
    if reason != "away":
        pictures(place, 2)
    if reason == "large":
        monkeypatch.setattr(expected, "LARGEST", 100)
    if reason == "unreadable":
        (place / "dots" / "0.png").write_bytes(b"no picture")
    text = help_text("mtt:shapes", {"data.path": str(place), "lr_img": "3"})
    for name in ("steps", "net.width"):
        assert f"--config.{name}=auto   (here: {expected.UNREAD})" in text
    assert "--config.lr_img=3\n" in text and "no published" not in text
    assert not (tmp_path / "cache").exists()
