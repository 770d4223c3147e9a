"""The config: one schema for files, the command line and Python."""

from __future__ import annotations

import json
import math
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest

from jdd import config as config_lib
from jdd.config import COMMON, load, published, resolve
from jdd.config.keyhelp import key_text
from jdd.errors import BadInput
from jdd.schema.key import AUTO, Key, coerce, show
from jdd.storage import shipped


def refused(call, *words):
    with pytest.raises(BadInput) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return caught.value


def written(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return str(path)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, given, expected",
    [
        ("ipc", "10", 10),
        ("ipc", np.int64(3), 3),
        ("ipc", "1e2", 100),
        ("ipc", 4.0, 4),
        ("steps", "auto", AUTO),
        ("steps", " Auto ", AUTO),
        ("lr_img", "1e2", 100.0),
        ("lr_img", 3, 3.0),
        ("data.zca", "no", "none"),
        ("data.zca", "TRUE", "kornia"),
        ("data.zca", 1, "kornia"),
        ("data.zca", False, "none"),
        ("data.zca", "kip", "kip"),
        ("progress", False, False),
        ("nets", "ConvNet,AlexNet", ("ConvNet", "AlexNet")),
        ("nets", " ConvNet , 'MLP' ", ("ConvNet", "MLP")),
        ("nets", "['ConvNet','MLP']", ("ConvNet", "MLP")),
        ("nets", ["ConvNet", "MLP"], ("ConvNet", "MLP")),
        ("nets", "MLP", ("MLP",)),
        ("nets", "MLP,ConvNet,MLP", ("MLP", "ConvNet")),
        ("data.path", "a b/c,d.zip", "a b/c,d.zip"),
        ("pix_init", "noise", "noise"),
    ],
)
def test_override_takes_the_type_of_its_key(name, given, expected):
    config = config_lib.flat(load("mtt", {name: given}).config)
    assert config[name] == expected and type(config[name]) is type(expected)


@pytest.mark.parametrize(
    "name, given",
    [
        ("ipc", 0),
        ("ipc", "-1"),
        ("ipc", "1.5"),
        ("ipc", 1.5),
        ("ipc", True),
        ("ipc", "ten"),
        ("ipc", "auto"),
        ("ipc", ""),
        ("ipc", None),
        ("ipc", "inf"),
        ("lr_img", "nan"),
        ("lr_img", math.inf),
        ("lr_img", False),
        ("lr_img", -1),
        ("experts.momentum", 1.5),
        ("data.zca", "maybe"),
        ("data.path", 3),
        ("net.pool", "avgg"),
        ("runs", 0),
        ("nets", ""),
        ("nets", [3]),
        ("nets", 3),
        ("method", 3),
    ],
)
def test_value_that_does_not_fit_names_key_found_and_allowed(name, given):
    error = refused(lambda: load("mtt", {name: given}), f"config.{name}")
    assert error.found and error.allowed


def test_int_list_and_printing():
    key = Key(tuple[int, ...], (1,), "sizes")
    assert coerce("sizes", key, "1, 2") == (1, 2)
    refused(lambda: coerce("sizes", key, "1,x"), "config.sizes", "a list of integers")
    shown = [show(v) for v in (True, 1e-7, 0.1234567891, ("a", "b"), 100.0)]
    assert shown == ["true", "1e-07", "0.1234567891", "a,b", "100"]


def test_every_default_fits_its_own_key():
    for name, key in config_lib.schema("mtt").items():
        assert coerce(name, key, key.default) == key.default, name
        assert key.help


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, near",
    [("lr_imgg", "lr_img"), ("width", "net.width"), ("net.widht", "net.width"), ("stpes", "steps")],
)
def test_unknown_key_suggests_the_nearest(name, near):
    refused(lambda: load(None, {name: 1}), f"config.{name}: unknown key", f"config.{near}?")


def test_a_key_of_other_methods_names_them():
    methods_with_it = (
        "init_set is a key of datm, dc, dm, dsa, frepo, ftd, mtt, ncfm, ratbptt, tesla"
    )
    refused(
        lambda: load("rded", {"init_set": "x"}), "config.init_set: no key of RDED", methods_with_it
    )
    refused(
        lambda: load("rded:digits,init_set=x"), "config.init_set: no key of RDED", methods_with_it
    )
    refused(
        lambda: key_text("init_set", "rded", {}), "config.init_set: no key of RDED", methods_with_it
    )


def test_group_is_not_a_key():
    refused(lambda: load(None, {"net": "x"}), "config.net", "config.net.width")
    refused(lambda: load(None, {"ipc.x": "1"}), "config.ipc.x: unknown key")


def test_overrides_may_be_nested_and_text_and_python_agree():
    nested = load("mtt", {"net": {"width": 16}, "data": {"name": "mnist"}}).config
    assert nested == load("mtt", {"net.width": "16", "data.name": "mnist"}).config


def test_config_is_locked():
    with pytest.raises(AttributeError):
        load(None).config.net.widht = 3


# --- files and their argument -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["configs/mtt.py", "mtt.py", "mtt"])
def test_bundled_config_is_found_from_anywhere(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load(f"{path}:cifar10,ipc=10,nets=ConvNet,MLP,seed=3")
    assert (loaded.config.data.name, loaded.config.ipc, loaded.config.seed) == ("cifar10", 10, 3)
    assert loaded.config.nets == ("ConvNet", "MLP")
    assert loaded.explicit == {"method", "data.name", "ipc", "nets", "seed"}


def test_none_is_the_quickstart_and_only_overrides_are_explicit():
    loaded = load(None, {"ipc": "2"})
    assert loaded.config.data.name == "digits" and loaded.config.ipc == 2
    assert loaded.explicit == {"ipc"} and loaded.spec is None
    assert "eval.curve" in load("quickstart").explicit


def test_override_wins_over_argument():
    assert load("mtt.py:cifar10,ipc=10", {"ipc": 50}).config.ipc == 50


@pytest.mark.parametrize(
    "spec, words",
    [
        ("configs/mt.py", ["no such file", "did you mean configs/mtt.py?"]),
        ("elsewhere/mtt.py", ["no such file"]),
        ("nothing_like_it.py", ["no such file", "quickstart"]),
        ("", ["no such file"]),
        ("mtt:ipc=3,cifar10", ["'cifar10'", "the dataset comes first"]),
        ("mtt:cifar10,ip=3", ["config.ip", "config.ipc?"]),
        ("mtt:cifar10,ipc=x", ["config.ipc", "'x'"]),
        ("mtt:cifar10,method=mt", ["config.method", "did you mean mtt?"]),
    ],
)
def test_bad_spec(spec, words):
    refused(lambda: load(spec), *words)


def test_own_config_file(tmp_path):
    path = written(
        tmp_path,
        """
        from dataclasses import dataclass
        from ml_collections import ConfigDict

        @dataclass
        class Choice:
            ipc: int

        def get_config(arg=None):
            config = ConfigDict({"method": "mtt", "data": {"name": "pets", "path": "pets.zip"}})
            config.ipc = Choice(int(arg or 3)).ipc
            return config
        """,
    )
    config = load(f"{path}:7", {"net.width": 8}).config
    assert (config.ipc, config.data.path, config.net.width) == (7, "pets.zip", 8)
    assert load(path).config.ipc == load(Path(path)).config.ipc == 3
    assert config.lr_img == AUTO


@pytest.mark.parametrize(
    "text, words",
    [
        ("def get_config(:", ["SyntaxError", "line 1"]),
        ("x = 1", ["no get_config"]),
        ("import no_such_module_at_all", ["ModuleNotFoundError", "line 1"]),
        ("def get_config(arg=None):\n    return 1 / 0", ["ZeroDivisionError", "line 2"]),
        ("def get_config(arg=None):\n    return 3", ["returned int"]),
        ("def get_config(arg=None):\n    return {'lr_imgg': 3}", ["config.lr_imgg", "lr_img?"]),
        ("def get_config(arg=None):\n    return {'ipc': 'x'}", ["config.ipc", "'x'"]),
        ("def get_config(arg=None):\n    return {'ipc': None}", ["config.ipc", "None"]),
    ],
)
def test_broken_config_file_is_one_line_naming_it(text, words, tmp_path):
    path = written(tmp_path, text)
    refused(lambda: load(path), "mine.py", *words)


def test_argument_for_a_file_that_takes_none(tmp_path):
    path = written(tmp_path, "def get_config():\n    return {'method': 'mtt'}")
    assert load(path).config.method == "mtt"
    refused(lambda: load(f"{path}:cifar10"), "takes no argument")


# --- auto ---------------------------------------------------------------------------------------

PUBLISHED_ROWS = {
    # dataset, IPC: N, M, T+, batch_syn, lr_img, lr_lr, beta, ZCA, accuracy
    ("cifar10", 1): (50, 2, 2, 0, 1e2, 1e-7, 0.01, True, 0.463),
    ("cifar10", 10): (30, 2, 20, 0, 1e2, 1e-5, 0.001, True, 0.653),
    ("cifar10", 50): (30, 2, 40, 0, 1e3, 1e-5, 0.001, False, 0.716),
    ("cifar100", 1): (20, 3, 20, 0, 1e3, 1e-5, 0.01, True, 0.243),
    ("cifar100", 10): (20, 2, 20, 0, 1e3, 1e-5, 0.01, False, 0.401),
    ("cifar100", 50): (80, 2, 40, 125, 1e3, 1e-5, 0.01, True, 0.477),
    ("tiny_imagenet", 1): (10, 2, 10, 0, 1e4, 1e-4, 0.01, False, 0.088),
    ("tiny_imagenet", 10): (20, 2, 40, 200, 1e4, 1e-4, 0.01, False, 0.232),
    ("tiny_imagenet", 50): (20, 2, 40, 300, 1e4, 1e-4, 0.01, False, 0.280),
}


@pytest.mark.parametrize("row", PUBLISHED_ROWS)
def test_published_row_is_taken_after_the_overrides(row):
    dataset, ipc = row
    config, notes = resolve(load(f"mtt.py:{dataset}", {"ipc": ipc, "data.path": "x.zip"}).config)
    n, m, t, batch, lr_img, lr_lr, beta, zca, accuracy = PUBLISHED_ROWS[row]
    assert (config.syn_steps, config.expert_epochs, config.max_start_epoch) == (n, m, t)
    assert (config.batch_syn, config.lr_img, config.lr_lr) == (batch, lr_img, lr_lr)
    assert (config.lr_student, config.steps) == (beta, 5000)
    assert config.data.zca == ("kornia" if zca else "none")
    assert config.experts.epochs == t - 1 + m
    assert config.net.depth == (4 if dataset == "tiny_imagenet" else 3)
    assert f"MTT row ({dataset}, ipc {ipc})" in notes[0] and len(notes) == 1
    figure = published.figure(config)
    assert figure["accuracy"] == accuracy and figure["protocol_differs"] == []


@pytest.mark.parametrize("spec", ["mtt.py:cifar10", "mtt.py:digits,ipc=7", "quickstart"])
def test_nothing_stays_auto_and_resolving_again_changes_nothing(spec):
    config, _ = resolve(load(spec).config)
    assert AUTO not in config_lib.flat(config).values()
    assert resolve(config)[0] == config


def test_outside_the_table_the_defaults_are_used_and_said():
    _, notes = resolve(load("mtt.py:cifar10,ipc=7").config)
    assert "no published MTT row for cifar10, ipc 7 (its rows: ipc 1, 10, 50)" in notes[0]
    config, notes = resolve(load("mtt.py:mnist,data.path=x.npz").config)
    assert (config.syn_steps, config.lr_img, config.steps) == (30, 100.0, 1000)
    assert published.figure(config) is None


def test_settings_of_our_own_lie_under_what_is_typed():
    config, notes = resolve(load("mtt.py:digits,ipc=2", {"experts.count": 20}).config)
    assert (config.net.width, config.syn_steps, config.experts.count) == (32, 15, 20)
    assert "so jdd's own: syn_steps=15" in notes[0] and len(notes) == 1


def test_keys_changed_from_the_row_are_said():
    overrides = {"lr_img": "50", "steps": 10, "syn_steps": 50}
    config, notes = resolve(load("mtt.py:cifar10,ipc=1", overrides).config)
    assert notes[1].endswith("lr_img=50 (not 100), steps=10 (not 5000)")
    assert published.figure(config)["protocol_differs"] == ["lr_img", "steps"]


def test_lossy_copy_takes_the_row_but_not_the_name():
    overrides = {"data.path": "c10.tar.xz", "net.width": 32, "experts.count": 5, "net.depth": 2}
    config, notes = resolve(load("mtt.py:cifar10_jpeg,ipc=1", overrides).config)
    assert "MTT row (cifar10, ipc 1), applied to cifar10_jpeg" in notes[0]
    figure = published.figure(config)
    assert figure["accuracy"] == 0.463 and figure["std"] == 0.008
    assert "for cifar10 itself, not for cifar10_jpeg" in figure["source"]
    assert set(figure["protocol_differs"]) == {"net.width", "net.depth", "experts.count"}


def test_subset_with_fewer_classes_has_no_published_figure():
    config, _ = resolve(load("mtt.py:tiny_imagenet_100", {"data.path": "tiny.tar"}).config)
    assert config.lr_img == 1e4 and published.figure(config) is None


def test_own_dataset_needs_only_a_path(tmp_path):
    config = load("mtt.py:pets", {"data.path": "pets.zip"}).config
    resolved, _ = resolve(config)
    assert resolved.data.source == "folder" and resolved.net.depth == AUTO
    assert resolve(config, (64, 64, 3))[0].net.depth == 4
    assert resolve(config, (128, 128, 3))[0].net.depth == 5
    sized = config_lib.replace(config, {"data.size": "32"})
    assert resolve(sized)[0].net.depth == 3
    assert resolve(load("mtt:pets", {"data.path": "a.npz"}).config)[0].data.source == "npz"


def test_known_dataset_with_a_prepared_folder_is_read_by_tfds(tmp_path):
    config = load("mtt.py:mnist", {"data.path": str(tmp_path)}).config
    assert resolve(config)[0].data.source == "folder"
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    assert resolve(config)[0].data.source == "folder"  # an empty folder is no prepared set
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text("{}")
    assert resolve(config)[0].data.source == "tfds"


@pytest.mark.parametrize(
    "spec, overrides, words",
    [
        ("mtt.py", {}, ["config.data.name", "empty", "digits"]),
        ("mtt:cifar11", {}, ["config.data.name", "'cifar11'", "did you mean cifar10?"]),
        ("mtt:cifar10_jpeg", {}, ["config.data.path", "folder"]),
        ("mtt:digits", {"data.source": "npz"}, ["config.data.path", "npz"]),
        ("mtt:digits", {"nets": "ConvNet,ConvNte"}, ["config.nets", "did you mean ConvNet?"]),
        ("mtt:digits", {"net.name": "Convnet"}, ["config.net.name", "did you mean ConvNet?"]),
        ("mtt:digits", {"experts.epochs": 3}, ["config.experts.epochs: 3", "6 or more"]),
    ],
)
def test_keys_that_do_not_go_together(spec, overrides, words):
    refused(lambda: resolve(load(spec, overrides).config), *words)


# --- saving and resuming ------------------------------------------------------------------------


def test_json_round_trip_keeps_types_and_order():
    config, _ = resolve(load(None, {"nets": "ConvNet,ConvNetBN"}).config)
    text = config_lib.to_json(config)
    assert config_lib.from_json(text) == config
    assert list(json.loads(text))[:2] == list(COMMON)[:2]
    refused(lambda: config_lib.from_json("{"), "config.json", "not a saved config")
    refused(lambda: config_lib.from_json("[]"), "config.json", "not a saved config")
    refused(lambda: config_lib.from_json('{"method": "mtt", "x": 1}'), "config.json: config.x")


def test_resume_accepts_some_keys_and_lists_the_others():
    config, _ = resolve(load(None).config)
    saved = json.loads(config_lib.to_json(config))
    assert config_lib.changed(saved, config) == ([], [])
    more = config_lib.replace(config, {"steps": 900, "nets": "ConvNetBN", "eval": {"n": 8}})
    assert [c.name for c in config_lib.validate_resume(saved, more)] == ["steps", "nets", "eval.n"]
    other = config_lib.replace(config, {"lr_img": 3, "seed": 1, "steps": 9})
    error = refused(
        lambda: config_lib.validate_resume(saved, other, "runs/x"),
        "--workdir=runs/x",
        "config.seed was 0, now 1",
        "config.lr_img was 20, now 3",
        "may change: steps, nets, ",
    )
    assert "steps was" not in str(error)


def test_resume_with_a_config_of_another_version():
    config, _ = resolve(load(None).config)
    saved = json.loads(config_lib.to_json(config))
    del saved["segments"], saved["experts"]["epochs"]
    assert config_lib.changed(saved, config) == ([], [])
    saved["gone"] = 3
    assert [c.name for c in config_lib.changed(saved, config)[0]] == ["gone"]


@pytest.mark.parametrize(
    "spec, expected",
    [
        (None, "runs/quickstart-digits-ipc1-s0"),
        ("configs/mtt.py:cifar10,ipc=10", "runs/mtt-cifar10-ipc10-s0"),
        ("mtt:my pets/x,seed=4", "runs/mtt-my_pets_x-ipc1-s4"),
        ("mtt:cifar10,lr_img=100", "runs/mtt-cifar10-ipc1-s0"),  # as published
        ("mtt:cifar10,lr_img=5,steps=7", "runs/mtt-cifar10-ipc1-s0-lr_img_5"),
        ("mtt:cifar10,net.act=swish,lr_img=5", "runs/mtt-cifar10-ipc1-s0-net.act_swish-lr_img_5"),
        ("dm:mnist,init_set=runs/a-0.5", "runs/dm-mnist-ipc1-s0-init_set_a-0.5"),
        ("dm:mnist,init_set=runs/b/distilled.npz", "runs/dm-mnist-ipc1-s0-init_set_b"),
        ("dm:mnist,init_set=sets/c.npz", "runs/dm-mnist-ipc1-s0-init_set_c"),
    ],
)
def test_default_workdir(spec, expected):
    found = load(spec)
    assert config_lib.default_workdir(found.config, spec, found.typed) == expected


def test_a_long_name_is_cut_and_a_run_without_keys_in_its_name_is_found(tmp_path, monkeypatch):
    keys = [name for name, key in config_lib.schema("mtt").items() if key.type is float]
    found = load("mtt:cifar10", {name: 0.25 for name in keys if name != "lr_img"})
    name = config_lib.default_workdir(found.config, "mtt", found.typed)
    assert len(name) <= 160 and name != config_lib.default_workdir(
        config_lib.replace(found.config, {"lr_img": 3}), "mtt", [*found.typed, "lr_img"]
    )
    monkeypatch.chdir(tmp_path)
    found = load("mtt:cifar10,lr_img=5")
    old = tmp_path / config_lib.default_workdir(found.config, "mtt")
    old.mkdir(parents=True)
    (old / "config.json").write_text(config_lib.to_json(resolve(found.config)[0]))
    assert config_lib.default_workdir(found.config, "mtt", found.typed) == str(
        old.relative_to(tmp_path)
    )
    other = load("mtt:cifar10,lr_img=6")
    assert config_lib.default_workdir(other.config, "mtt", other.typed).endswith("lr_img_6")


def test_changed_keys_are_one_line():
    found = load("mtt:cifar10,ipc=10", {"lr_img": 5, "lr_lr": 1e-5, "nets": "MLP", "steps": "auto"})
    line = config_lib.sentence(resolve(found.config)[0], found.explicit)
    assert line == (
        "changed from MTT's defaults: ipc=10 (not 1), nets=MLP (not ConvNet), lr_img=5 (not 100)"
    )
    assert config_lib.sentence(load(None).config, load(None).explicit) == ""


def test_configs_and_sets_ship_inside_the_package():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"configs": "jdd/configs", "sets": "jdd/sets"}
    assert {"mtt", "quickstart"} <= set(config_lib.bundled())


def test_packaged_folders_come_before_the_checkout(tmp_path, monkeypatch):
    (tmp_path / "jdd" / "configs").mkdir(parents=True)
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "jdd" / "storage" / "shipped.py"))
    assert shipped.folder("configs") == tmp_path / "jdd" / "configs"
    assert shipped.folder("sets") == tmp_path / "sets"
