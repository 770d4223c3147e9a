"""What does not fit into memory is one line: foretold with exit code 2, met on the way with 4."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdd
from jdd import config, data, interop, main, memory
from jdd.data.transform import fit_zca
from jdd.errors import BadInput, OutOfMemory
from jdd.methods.base import Method, State
from jdd.product.distilled_set import DistilledSet
from jdd.run import loop, pipeline
from jdd.run.session import Session
from jdd.stages import base
from jdd.storage import checkpoints
from tests import runs
from tests.test_bad_input import refused

XLA = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")
NUMPY = np._core._exceptions._ArrayMemoryError((1 << 36,), np.dtype("uint8"))


@pytest.fixture
def has(monkeypatch):
    """Give the machine so many bytes of free memory."""
    return lambda count: monkeypatch.setattr(memory, "available", lambda: count)


def test_free_memory_is_the_least_of_machine_and_containers(tmp_path, monkeypatch):
    proc, top = tmp_path / "proc", tmp_path / "cgroup"
    for place in (proc / "self", top / "jobs/mine", top / "memory/docker"):
        place.mkdir(parents=True)
    (proc / "meminfo").write_text("MemFree: 1 kB\nMemAvailable: 5000 kB\nSwapFree: 1000 kB\n")
    assert memory.available(proc, top) == 6000 << 10  # no groups
    (proc / "self/cgroup").write_text("0::/jobs/mine\n")
    (top / "jobs/mine/memory.max").write_text("max\n")
    (top / "jobs/mine/memory.current").write_text("7\n")
    assert memory.available(proc, top) == 6000 << 10
    (top / "jobs/memory.max").write_text("900000\n")  # of the group above
    (top / "jobs/memory.current").write_text("500000\n")
    assert memory.available(proc, top) == 400_000
    (top / "jobs/memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert memory.available(proc, top) == 500_000
    # Version 1, in a container that lies at the root of what it sees.
    (proc / "self/cgroup").write_text("9:cpu:/x\n8:memory:/docker/4f0e\n")
    (top / "memory/memory.limit_in_bytes").write_text("300000\n")
    (top / "memory/memory.usage_in_bytes").write_text("299000\n")
    assert memory.available(proc, top) == 1000
    (top / "memory/memory.usage_in_bytes").write_text("400000\n")
    assert memory.available(proc, top) == 0
    assert memory.available(tmp_path / "none", top) > 1 << 20  # macOS has no /proc
    assert memory.available() < memory.UNKNOWN
    monkeypatch.setattr(memory.resource, "getrlimit", lambda kind: (1 << 20, 1 << 20))
    assert memory.available(tmp_path / "none", top) == 1 << 20  # ulimit -v


def test_a_whitening_too_large_is_foretold(capsys, tiny, tmp_path, has):
    has(23 << 30)
    keys = {**tiny, "data.zca": "kornia", "data.size": 224}
    says = ("config.data.zca: kornia of 224x224x3 images needs a matrix of 169 GiB", "23 GiB free")
    err = refused(capsys, keys, workdir=tmp_path / "run", says=says)
    assert "--config.data.zca=none, or --config.data.size=" in err
    # The size it names is one that goes.
    side = int(err.split("--config.data.size=")[1].split()[0])
    data.transform.validate_whitening("kornia", (side, side, 3))
    with pytest.raises(BadInput, match="and to fit it"):
        data.transform.validate_whitening("kornia", (2 * side, 2 * side, 3))


def test_the_remedies_of_a_whitening_work(tiny, tmp_path, has):
    has(600_000)
    zca = {**tiny, "data.zca": "frepo", "data.cache_dir": str(tmp_path / "cache")}
    with pytest.raises(BadInput, match="frepo of 8x8x3 images needs .* to fit it") as refusal:
        runs.context(zca, tmp_path)
    side = int(refusal.value.allowed.split("size=")[1].split()[0])
    assert runs.context({**zca, "data.zca": "none"}, tmp_path).data.transform.kind == "none"
    assert runs.context({**zca, "data.size": side}, tmp_path).data.shape == (side, side, 3)
    # A matrix that lies in the cache is read where it could not be fitted.
    has(1 << 30)
    fitted = runs.context(zca, tmp_path).data
    has(600_000)
    assert runs.context(zca, tmp_path).data.fingerprint == fitted.fingerprint


def test_the_fit_needs_no_less_than_is_foretold(tmp_path):
    """Fewer bytes are counted than LAPACK's own: what would fit is not refused."""
    import tracemalloc

    images = np.random.default_rng(0).random((20, 12, 12, 3))
    tracemalloc.start()
    fit_zca(images)
    # NumPy's own: two of the five matrices, since NumPy 2.5 all of them and small arrays.
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2 * 8 * 432**2 < peak < 1.05 * data.transform.FIT_BYTES * 432**2


def test_images_that_do_not_fit_as_floats_are_foretold(toy, tmp_path, has):
    has(40_000)  # 90 images of 192 bytes; four times that as floats
    words = {"name": "toy", "path": str(toy), "cache_dir": str(tmp_path)}
    with pytest.raises(BadInput, match="config.data: 90 images as floats .*data.stream=true"):
        data.load(words)
    assert data.load({**words, "stream": True}).train.images[3].shape == (8, 8, 3)
    assert data.load({**words, "size": 4}).shape == (4, 4, 3)


def test_pictures_that_fill_memory_are_foretold(tmp_path, has):
    from PIL import Image

    for i in range(6):
        place = tmp_path / f"set/{'train' if i < 4 else 'test'}/{'ab'[i % 2]}/{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 9 * i, np.uint8)).save(place)
    words = {"name": "mine", "path": str(tmp_path / "set"), "cache_dir": str(tmp_path / "cache")}
    has(10_000)
    with pytest.raises(BadInput, match="config.data: .* images of 16x16 .*data.stream=true"):
        data.load(words)
    assert len(data.load({**words, "stream": True}).train.images) == 4
    has(1 << 20)
    assert data.load(words).shape == (16, 16, 3)
    has(2000)  # the decoded images lie in the cache
    with pytest.raises(BadInput, match="a file of .*data.stream=true"):
        data.load(words)


def bomb(path, shape, held=b"", method=zipfile.ZIP_STORED, name="x_train", **others):
    """Write an .npz one array of which says more than it has."""
    head = io.BytesIO()
    entry = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, entry)
    np.savez(path, **others)
    with zipfile.ZipFile(path, "a", method) as out:
        out.writestr(f"{name}.npy", head.getvalue() + held)
    return path


LARGE = (120_000, 187, 185, 3)  # 46 GiB of float32


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_says_more_than_its_file_holds(capsys, tiny, tmp_path, method):
    labels = np.arange(12) % 3
    path = bomb(tmp_path / "b.npz", LARGE, bytes(4096), method, y_train=labels)
    for stream in ("false", "true"):
        keys = {**tiny, "data.path": str(path), "data.stream": stream}
        says = ("b.npz:x_train", "49816800000 bytes", "can hold 4096 bytes")
        refused(capsys, keys, workdir=tmp_path / "run", says=says)
    whole = DistilledSet.load  # a set with such a header
    path = bomb(tmp_path / "s.npz", LARGE, bytes(4096), method, "images", labels=labels)
    for read in (whole, jdd.load):
        with pytest.raises(
            BadInput, match=r"s.npz:images: .*49816800000 bytes.* can hold 4096 bytes"
        ):
            read(path)


def test_arrays_larger_than_memory_are_not_read(toy, tmp_path, has):
    """A compressed file holds what it says, and memory does not."""
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x_train=np.zeros((4000, 8, 8, 3), np.uint8), y_train=np.arange(4000))
    has(500_000)
    assert path.stat().st_size < 20_000
    with pytest.raises(BadInput, match="zeros.npz: its arrays take .*data.stream=true"):
        data.load({"name": "toy", "path": str(path)})
    with pytest.raises(BadInput, match="zeros.npz: its arrays take"):
        DistilledSet.load(path)
    # Arrays that nothing reads do not count.
    other = tmp_path / "other.npz"
    np.savez_compressed(other, **np.load(toy), notes=np.zeros(1 << 20))
    assert len(data.load({"name": "toy", "path": str(other)}).train.labels) == 60


def test_sets_in_other_files(tmp_path, has):
    pytest.importorskip("safetensors")
    head = {"images": {"dtype": "F32", "shape": LARGE, "data_offsets": [0, 4 * np.prod(LARGE)]}}
    words = json.dumps(head, default=int).encode()
    path = tmp_path / "b.safetensors"
    path.write_bytes(struct.pack("<Q", len(words)) + words + bytes(64))
    with pytest.raises(BadInput, match="b.safetensors: not a whole safetensors file"):
        interop.load(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(BadInput, match="b.safetensors: not a whole safetensors file"):
        interop.load(path)
    has(1000)
    for name in ("a.safetensors", "a.pt"):
        (tmp_path / name).write_bytes(bytes(2000))
        with pytest.raises(BadInput, match=f"{name}: a file of .* free; a set that fits"):
            interop.load(tmp_path / name)


def test_a_net_too_wide_is_foretold(capsys, tiny, tmp_path, has):
    has(23 << 30)
    keys = {**tiny, "net.width": 1_000_000}
    says = ("config.net.width=1000000", "9,000,045,000,003 weights", "196 TiB", "23 GiB free")
    err = refused(capsys, keys, workdir=tmp_path / "run", says=says)
    width = int(err.split("--config.net.width=")[1].split()[0])
    assert 1000 < width < 100_000
    base.validate_memory(runs.context({**tiny, "net.width": width}, tmp_path))
    has(150_000)  # one net of width 32 fits, two do not
    wide = {**tiny, "net.width": 32, "experts.group": 1}
    err = refused(capsys, wide, workdir=tmp_path / "run", says=("--config.eval.at_once=1",))
    runs.context({**wide, "eval.at_once": 1}, tmp_path)
    err = refused(
        capsys, {**wide, "eval.at_once": 1, "nets": "MLP"}, workdir=tmp_path / "run",
        says=("config.nets=MLP", "a smaller net"),
    )  # fmt: skip


def test_a_set_too_large_is_foretold(capsys, tiny, tmp_path, has, monkeypatch):
    has(90_000)
    keys = {**tiny, "ipc": 20}  # 60 images of 768 bytes, twice
    says = ("config.ipc: 20 images for each of 3 classes", "a smaller --config.ipc")
    refused(capsys, keys, workdir=tmp_path / "run", says=says)
    runs.context({**keys, "ipc": 19}, tmp_path)


def breaking(monkeypatch, name, error):
    def run(*_):
        raise error

    monkeypatch.setitem(pipeline.STAGES, name, pipeline.STAGES[name]._replace(run=run))


@pytest.mark.parametrize("error", [XLA, NUMPY, MemoryError()], ids=["xla", "numpy", "python"])
def test_memory_that_runs_out_in_a_stage(capsys, tiny, tmp_path, monkeypatch, error):
    breaking(monkeypatch, "experts", error)
    words = [f"--config.{k}={v}" for k, v in tiny.items()]
    assert main.main(["--config=mtt", *words, f"--workdir={tmp_path / 'run'}"]) == 4
    err = capsys.readouterr().err
    assert err.startswith("jdd: error: stage experts: out of memory") and err.count("\n") == 1
    assert "--config.experts.batch below 16" in err and "data.stream" not in err
    with pytest.raises(OutOfMemory, match="stage experts: out of memory"):
        jdd.distill("mtt", tmp_path / "again", **tiny)


def test_other_errors_are_not_taken_for_it(tiny, tmp_path, monkeypatch):
    breaking(monkeypatch, "experts", jax.errors.JaxRuntimeError("INTERNAL: something else"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        runs.run(tiny, tmp_path)


def test_memory_that_runs_out_elsewhere(capsys, monkeypatch, tmp_path):
    def read(*_, **__):
        raise NUMPY

    monkeypatch.setattr(interop, "load", read)
    with pytest.raises(OutOfMemory, match="reading x.npz: out of memory"):
        jdd.load("x.npz")
    monkeypatch.setattr(pipeline, "run", read)
    assert main.main([f"--workdir={tmp_path}"]) == 4
    err = capsys.readouterr().err
    assert err.startswith("jdd: error: jdd: out of memory (Unable to allocate 64.0 GiB")
    assert err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize("method", sorted(config.bundled()))
def test_every_stage_says_keys_that_there_are(method):
    paired = config.load(method).config.spec.task == "retrieval"
    data = "digits_captions" if paired else "cifar10"
    resolved, _ = config.resolve(config.load(method, {"data.name": data}).config, absent=True)
    schema = config.schema(resolved.method)
    names = [*config.stage_names(resolved), "data"]
    for stage in names:
        line = base.smaller(stage, resolved)
        words = [w.rstrip(",;") for w in line.split() if w.startswith("--config.")]
        assert words or stage in ("report", "relabel", "data", "squeeze"), (method, stage, line)
        for word in words:
            key, _, value = word.removeprefix("--config.").partition("=")
            assert key in schema, (stage, line)
            if value:
                config.replace(resolved, {key: value})


def toy_method():
    """Three numbers that go to zero."""
    return Method(
        init=lambda seed: State({"images": jnp.ones(3)}, {}),
        sample=lambda seed, step: {"rows": np.zeros((1, 1), np.int32)},
        objective=lambda v, aux, item, key: (jnp.sum(v["images"] ** 2), ({}, {})),
        distilled=lambda state, steps: None,
        optimizer=optax.sgd(0.1),
    )


def test_checkpoints_stand_where_memory_ends_a_loop(tmp_path):
    keys = SimpleNamespace(
        steps=4, keep=2, log_every=1, checkpoint_every=2, checkpoint_minutes=0.0, verify_files=True
    )
    problem = SimpleNamespace(config=keys, gather=lambda indices: indices)
    method, devices = toy_method(), jax.local_devices()[:1]
    gradient, update = programs = loop.make_step(method, 0, devices)
    calls = []

    class Spent:
        """A carry whose arrays were never made: to look at it raises."""

        state = None

        @property
        def step(self):
            raise XLA

    def failing(*args):
        calls.append(args)
        if len(calls) == 3:
            return Spent(), {"loss": jnp.float32(1), "ok": jnp.asarray(True)}
        return update(*args)

    def run(place, update):
        place.mkdir(exist_ok=True)
        session = Session(place, progress=False)
        with session.signals():
            return loop.run(
                method, problem, 0, session, devices, programs=(programs[0], update)
            ).variables["images"]

    want = run(tmp_path / "whole", update)
    keys.log_every = 4  # the loop looks at the step's arrays no sooner
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        run(tmp_path / "cut", failing)
    assert checkpoints.latest(tmp_path / "cut/checkpoints/distill") == 2
    np.testing.assert_array_equal(run(tmp_path / "cut", update), want)
