"""Tensors as people save them: every type of number, every form of labels and rate, pixels or not.

What is wrong is refused in one line that says what to save or to type; what is right is read.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from jdd import interop, main
from jdd.errors import BadInput
from jdd.product import distilled_set
from jdd.product.arrays import read_npz
from jdd.stages import evaluate
from tests.tiny_distilled import NAMES, make

torch = pytest.importorskip("torch")

OURS = make()
KNOWN = {"dataset": "insects", "class_names": NAMES, "transform": OURS.transform}
NET = torch.from_numpy(OURS.images).permute(0, 3, 1, 2).contiguous()  # as nets are fed them
UNIT = torch.from_numpy(OURS.transform.inverse(OURS.images)).permute(0, 3, 1, 2).contiguous()
BYTES = (UNIT * 255).round()
CLASSES = torch.from_numpy(OURS.labels).long()


def read(tmp_path: Any, images: Any, labels: Any = CLASSES, lr: Any = None, **known: Any) -> Any:
    """Save a release as MTT does, and load it."""
    torch.save(images, tmp_path / "images_best.pt")
    torch.save(labels, tmp_path / "labels_best.pt")
    if lr is not None:
        torch.save(lr, tmp_path / "lr.pt")
    return interop.load(tmp_path, **{**KNOWN, **known})


def refused(tmp_path: Any, *words: str, **what: Any) -> None:
    with pytest.raises(BadInput) as error:
        read(tmp_path, **{"images": NET, **what})
    line = str(error.value)
    assert error.value.exit_code == 2 and "\n" not in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "int64", "uint16"])
def test_whole_numbers_from_0_to_255_are_pixels_and_that_is_said(tmp_path, kind):
    found = read(tmp_path, BYTES.to(getattr(torch, kind)))
    pixels = BYTES.permute(0, 2, 3, 1).numpy() / np.float32(255)
    np.testing.assert_array_equal(found.images, OURS.transform.forward(pixels))
    assert np.abs(found.images).max() < 4
    (note,) = found.notes
    assert f"{kind} images from" in note and "divided by 255 and normalised" in note


@pytest.mark.parametrize("values", [BYTES - 1, BYTES * 2])
def test_other_whole_numbers_are_no_images(tmp_path, values):
    refused(tmp_path, "int64 images from", "0 to 255", images=(values - values.min() - 1).long())
    refused(tmp_path, "int64", "0 to 255", images=(BYTES * 9).long())


def test_whole_numbers_are_not_in_the_nets_space(tmp_path):
    with pytest.raises(BadInput, match="uint8 images from .* leave out space=net"):
        read(tmp_path, BYTES.to(torch.uint8), space="net")


@pytest.mark.parametrize("values, most", [(UNIT, 1), (BYTES, 255)])
def test_floats_without_any_below_0_are_read_once_the_space_is_given(tmp_path, values, most):
    refused(
        tmp_path, "none below 0", "--config.space=pixels", "--config.space=net", "space='pixels'",
        images=values,
    )  # fmt: skip
    found = read(tmp_path, values, space="pixels")
    np.testing.assert_allclose(found.images, OURS.images, atol=0.02)
    assert bool(found.notes) == (most == 255)
    as_they_are = read(tmp_path, values, space="net")
    np.testing.assert_array_equal(as_they_are.images, values.permute(0, 2, 3, 1).numpy())


def test_pixels_may_leave_their_scale_a_little_only(tmp_path):
    found = read(tmp_path, UNIT * 3 - 1, space="pixels")
    back = found.transform.inverse(found.images)
    np.testing.assert_allclose(back, (UNIT * 3 - 1).permute(0, 2, 3, 1).numpy(), atol=1e-5)
    for values in (BYTES - 300, BYTES * 2):
        with pytest.raises(BadInput, match="given as pixels; pixels from 0 to 1, or from 0 to 255"):
            read(tmp_path, values, space="pixels")


def test_pairs_dicts_and_runs_are_read_alike(tmp_path):
    images, path = BYTES.to(torch.uint8), tmp_path / "a.pt"
    held = ([images, CLASSES], {"images": images, "labels": CLASSES}, {"data": [[images, CLASSES]]})
    for content in held:
        torch.save(content, path)
        assert np.abs(interop.load(path, **KNOWN).images).max() < 4


class Named(torch.Tensor):
    """A subclass: its name is not one that the restricted reader knows."""


@pytest.mark.parametrize(
    "images",
    [
        NET.half(),
        NET.bfloat16(),
        NET.double(),
        NET.clone().requires_grad_(),
        torch.nn.Parameter(NET),
        NET.permute(0, 2, 3, 1).contiguous(),
        NET.to(memory_format=torch.channels_last),
        NET[:, :, ::2].repeat_interleave(2, 2).transpose(2, 3).transpose(2, 3),
        torch.complex(NET, NET).conj().real,
        torch.complex(NET, -NET).conj().imag,  # the bit that says "negated"
    ],
    ids=["f16", "bf16", "f64", "grad", "parameter", "nhwc", "last", "strides", "real", "negated"],
)
def test_floats_of_any_width_and_layout(tmp_path, images, request):
    found = read(tmp_path, images)
    name = request.node.callspec.id
    wanted = images.detach().float()
    wanted = wanted if name == "nhwc" else wanted.permute(0, 2, 3, 1)
    np.testing.assert_array_equal(found.images, wanted.resolve_neg().numpy())
    if name == "nhwc":
        assert "last axis was taken as the channels" in found.notes[0]
    else:
        assert not found.notes


SMALL, BYTE = torch.ones(6), torch.zeros(6, dtype=torch.uint8)
ODD = {
    "sparse": (lambda: SMALL.to_sparse(), "to_dense()"),
    "sparse rows": (lambda: torch.ones(6, 3).to_sparse_csr(), "to_dense()"),
    "meta": (lambda: torch.ones(6, device="meta"), "not in the file"),
    "quantised": (lambda: torch.quantize_per_tensor(SMALL, 0.1, 0, torch.quint8), "dequantize()"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "torch.stack"),
    "complex": (lambda: SMALL.to(torch.complex64), ".real"),
    "bool": (lambda: SMALL.bool(), "tensor.float()"),
    "float4": (lambda: BYTE.view(torch.float4_e2m1fn_x2), "tensor.float()"),
    "text": (lambda: "images", "a str"),
    "none": (lambda: None, "NoneType"),
    "number": (lambda: 1.5j, "a complex"),
    "list": (lambda: [1, 2, [3]], ""),
    "dict": (lambda: {"a": 1}, "a dict"),
    "subclass": (lambda: SMALL.as_subclass(Named), "torch.as_tensor"),
    "array": (lambda: np.ones(6), "torch.as_tensor"),
    "object": (lambda: np.array([{}, 1], dtype=object), "torch.as_tensor"),
}


@pytest.mark.parametrize(
    "place, name",
    [(p, n) for p in ("images", "labels", "lr") for n in ODD if (p, n) != ("lr", "none")],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of sparse and nested tensors
def test_what_is_no_plain_tensor_is_refused_by_its_name(tmp_path, place, name):
    make_value, remedy = ODD[name]
    refused(tmp_path, remedy, **{place: make_value()})


def test_odd_tensors_in_an_export_are_refused(tmp_path):
    whole = torch.load(interop.export(make(zca=True), tmp_path / "a.pt"), weights_only=True)
    for name in ("images", "labels", "mean", "zca_matrix", "lr"):
        for odd in (torch.ones(3).to_sparse(), torch.ones(3, device="meta"), {"a": 1}, [1], b"x"):
            torch.save(whole | {name: odd}, tmp_path / "b.pt")
            with pytest.raises(BadInput) as error:
                interop.load(tmp_path / "b.pt")
            assert "\n" not in str(error.value)
    for name in ("mean", "std", "zca_image"):
        torch.save(whole | {name: "text"}, tmp_path / "b.pt")
        with pytest.raises(BadInput, match=f"{name} is no list of numbers"):
            interop.load(tmp_path / "b.pt")
    torch.save({k: v for k, v in whole.items() if k != "zca_matrix"}, tmp_path / "b.pt")
    with pytest.raises(BadInput, match="half of a whitening"):
        interop.load(tmp_path / "b.pt")


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES.float(),
        CLASSES.half(),
        CLASSES.int(),
        CLASSES.to(torch.uint8),
        CLASSES[:, None],
        CLASSES[:, None].float(),
    ],
    ids=["float", "half", "int", "uint8", "column", "float column"],
)
def test_class_numbers_in_any_form(tmp_path, labels):
    found = read(tmp_path, NET, labels)
    assert found.label_kind == "hard"
    np.testing.assert_array_equal(found.labels, OURS.labels)


@pytest.mark.parametrize("kind", ["int64", "uint8", "float32", "float64"])
def test_one_hot_labels_of_any_type(tmp_path, kind):
    one_hot = torch.nn.functional.one_hot(CLASSES, 3)
    found = read(tmp_path, NET, one_hot.to(getattr(torch, kind)))
    assert found.label_kind == "probabilities"
    np.testing.assert_array_equal(found.labels, one_hot.numpy())


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES + 0.5,
        torch.full((6,), math.nan),
        torch.full((6,), math.inf),
        torch.full((6,), 1e30),
        torch.full((6,), 2**62),
        CLASSES - 1,
        CLASSES[:5],
        torch.tensor(1),
        torch.zeros(6, 0),
        torch.zeros(0),
        torch.ones(6, 3, dtype=torch.int64),
        torch.ones(6, 3, 1),
        torch.full((6, 3), 1e30),
        torch.full((6, 3), math.nan),
    ],
)
@pytest.mark.parametrize("names", [NAMES, None])
def test_labels_that_are_none(tmp_path, labels, names):
    refused(tmp_path, "label", labels=labels, class_names=names)


@pytest.mark.parametrize(
    "lr",
    [
        0.0203, [0.0203], (0.0203,), torch.tensor(0.0203, dtype=torch.float64),
        torch.tensor([[0.0203]], dtype=torch.float64), np.float64(0.0203),
        torch.nn.Parameter(torch.tensor(0.0203)), [torch.tensor(0.0203, requires_grad=True)],
        torch.tensor(0.0203, dtype=torch.bfloat16),
    ],
)  # fmt: skip
def test_one_rate_in_any_form(tmp_path, lr):
    assert read(tmp_path, NET, lr=lr).lr == pytest.approx(0.0203, rel=4e-3)


@pytest.mark.parametrize(
    "lr",
    [
        -0.01, 0.0, math.nan, math.inf, 1e9, 1e-40, torch.tensor(-0.01), torch.tensor(0),
        True, "0.1", [], [0.1, 0.2], 10**400, torch.tensor([0.1, 0.2]), torch.zeros(0),
    ],
)  # fmt: skip
def test_a_rate_is_one_positive_number(tmp_path, lr):
    number = isinstance(lr, float) or (isinstance(lr, torch.Tensor) and lr.ndim == 0)
    refused(tmp_path, "lr is" if number else "lr.pt: ", lr=lr)


def test_a_rate_is_positive_in_every_form_of_set(tmp_path):
    for bad in (-0.01, 0.0, math.nan):
        for suffix in (".npz", ".safetensors", ".pt"):
            path = interop.export(OURS, tmp_path / f"a{suffix}")
            _put_rate(path, bad)
            with pytest.raises(BadInput, match="lr is .* above 0 is needed"):
                interop.load(path)
            path.unlink()
        with pytest.raises(BadInput, match="lr is .* above 0 is needed"):
            distilled_set.validate(OURS._replace(lr=bad), "a")
    folder = interop.export(OURS, tmp_path / "png")
    side = json.loads((folder / "recipe.json").read_text())
    for bad, words in ((-0.01, "above 0"), (0, "above 0"), ("0.1", "lr is '0.1'"), (True, "True")):
        (folder / "recipe.json").write_text(json.dumps(side | {"lr": bad}))
        with pytest.raises(BadInput, match=words):
            interop.load(folder)
    for bad in (0, -1, math.nan):
        with pytest.raises(BadInput, match="lr: .*; a positive number"):
            interop.load(interop.export(OURS, tmp_path / f"{bad}.npz"), lr=bad)


def _put_rate(path: Any, lr: float) -> None:
    """Overwrite the rate of an exported set, whatever its form."""
    if path.suffix == ".pt":
        torch.save(torch.load(path, weights_only=True) | {"lr": lr}, path)
    elif path.suffix == ".npz":
        np.savez(path, **read_npz(path) | {"lr": np.asarray(lr)})
    else:
        from safetensors import numpy as plain
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            about = file.metadata()
        arrays = plain.load_file(path) | {"lr": np.asarray(lr)}
        plain.save_file(arrays, path, about)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize(
    "change, words",
    [
        ({"images": OURS.images * 1e5}, "images as large as"),
        ({"images": OURS.images.astype(np.float64) * 1e300}, "images"),
        ({"std": [1e-30, 1, 1]}, "1 / std"),
        ({"std": [0.0, 1, 1]}, "std"),
        ({"mean": [1e9, 0, 0]}, "mean as large as 1e+09; at most 10000"),
        ({"mean": [math.nan, 0, 0]}, "mean"),
    ],
)
def test_numbers_that_no_set_has_are_damage(tmp_path, suffix, change, words):
    fields = {"mean": OURS.transform.mean, "std": OURS.transform.std} | change
    transform = OURS.transform._replace(
        mean=np.asarray(fields["mean"], np.float32), std=np.asarray(fields["std"], np.float32)
    )
    bad = OURS._replace(images=change.get("images", OURS.images), transform=transform)
    path = tmp_path / f"a{suffix}"
    arrays = distilled_set.to_arrays(OURS) | {
        "images": np.asarray(bad.images), "mean": transform.mean, "std": transform.std
    }  # fmt: skip
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distilled_set, "validate", lambda dataset, where: dataset)
            patch.setattr(distilled_set, "to_arrays", lambda dataset: dict(arrays))
            patch.setattr(interop.exchange.torch_files, "to_arrays", lambda dataset: dict(arrays))
            interop.export(bad, path)
    with pytest.raises(BadInput) as error:
        interop.load(path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_a_run_that_diverged_has_kept_is_kept(tmp_path):
    far = OURS._replace(images=OURS.images * np.float32(1e5))
    path = far.save(tmp_path / "a.npz")
    np.testing.assert_array_equal(distilled_set.DistilledSet.load(path).images, far.images)
    with pytest.raises(BadInput, match="the file is damaged, or its run diverged"):
        interop.load(path)


def test_a_channel_that_hardly_varies_may_reach_far(tmp_path):
    transform = OURS.transform._replace(std=np.float32([1e-5, 0.2, 0.2]))
    images = OURS.images.copy()
    images[..., 0] *= 2e4
    path = OURS._replace(images=images, transform=transform).save(tmp_path / "a.npz")
    np.testing.assert_array_equal(interop.load(path).images, images)


def test_a_checksum_that_is_wrong_is_damage(tmp_path):
    path = tmp_path / "images.pt"
    torch.save(NET, path)
    whole, held = path.read_bytes(), NET.numpy().tobytes()
    at = whole.index(held)
    path.write_bytes(whole[: at + 7] + bytes([whole[at + 7] ^ 1]) + whole[at + 8 :])
    assert not torch.equal(torch.load(path), NET)  # which torch does not see
    with pytest.raises(BadInput, match="images.pt: the bytes of '.*data/0' do not have the check"):
        interop.load(path, **KNOWN)
    # Saved without checksums, which PyTorch can do: what the message says to type mends it.
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(NET, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(BadInput, match=r"torch.save\(torch.load\(path\), path\)"):
        interop.load(path, **KNOWN)
    torch.save(torch.load(path), path)
    np.testing.assert_array_equal(interop.load(path, **KNOWN).images, OURS.images)


def test_what_a_refusal_says_to_type_works_on_the_command_line(tmp_path, toy, capsys, monkeypatch):
    draw = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8))
    score = {"mean": 0.5, "std": 0.1, "n": 2, "values": [0.4, 0.6]}
    seen: list[np.ndarray] = []
    rates: list[float] = []

    def measure(context: Any, dset: Any, net: Any, *rest: Any, **more: Any) -> Any:
        seen.append(dset.images)
        rates.append(dset.recipe["train"]["lr"])
        return {**score, "net": net.name}

    monkeypatch.setattr(evaluate, "measure", measure)
    keys = {"data.name": "toy", "data.path": toy, "baselines.random": 0, "eval.n": 2}
    keys |= {"devices": 1, "progress": True, "net.width": 4, "net.depth": 1}
    words = ["--mode=evaluate", *(f"--config.{name}={value}" for name, value in keys.items())]

    def call(name: str, values: Any, *more: str) -> tuple[int, str]:
        torch.save([torch.from_numpy(values), torch.arange(3)], tmp_path / f"{name}.pt")
        place = tmp_path / f"run-{name}"
        code = main.main([*words, f"--set={tmp_path / name}.pt", f"--workdir={place}", *more])
        out = capsys.readouterr()
        assert place.exists() == (code == 0)
        return code, out.out + out.err

    code, said = call("floats", draw.astype(np.float32))
    assert code == 2 and "--config.space=pixels" in said and said.count("\n") == 1
    code, said = call("floats", draw.astype(np.float32), "--config.space=pixels")
    assert code == 0 and "--set: float32 images from 0 to 255: taken as pixels" in said
    # A rate of 0 stands for the set's own: of one that has none, the protocol's.
    code, said = call("bytes", draw.astype(np.uint8), "--config.eval.lr=0")
    assert code == 0 and "--set: uint8 images from 0 to 255: taken as pixels" in said
    np.testing.assert_array_equal(*seen)
    assert rates == [0.01, 0.01]
    assert np.abs(seen[0]).max() < 10
    code, said = call("net", draw.astype(np.float32) / 255, "--config.space=net")
    assert code == 0 and 0 <= seen[-1].min() and seen[-1].max() <= 1
    config = json.loads((tmp_path / "run-floats/config.json").read_text())
    assert config["space"] == "pixels"
    notes = json.loads((tmp_path / "run-bytes/result.json").read_text())["notes"]
    assert any("uint8" in note for note in notes)
