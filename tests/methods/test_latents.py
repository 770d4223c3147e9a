"""Latents of a trained prior in place of pixels: gradients, whole runs, identity, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd import config as configs
from jdd import main, methods
from jdd.errors import BadInput
from jdd.methods import latents
from jdd.nets import generators
from jdd.nets.autoencoder import autoencoder
from jdd.product.distilled_set import DistilledSet
from jdd.run import loop
from jdd.stages import contents, distill
from jdd.storage import checkpoints
from tests import runs
from tests.methods.test_gan import KEYS as GAN
from tests.methods.test_priors import TINY as VAE

KEYS: dict[str, dict[str, Any]] = {
    "dc": {"outer_loop": 2, "inner_epochs": 1, "batch_real": 6, "pix_init": "real"},
    "dm": {"batch_real": 6},
    "mtt": {"segments": 2, "experts.count": 2, "experts.group": 2, "experts.epochs": 2},
}


def keys_of(tiny: dict[str, Any], method: str, prior: Path | str, **more: Any) -> dict[str, Any]:
    given = {**tiny, **KEYS[method], "method": method, "latent.prior": str(prior), **more}
    given |= {"net.depth": 1, "data.dsa": "none", "eval.curve": 0, "steps": more.get("steps", 4)}
    return {k: v for k, v in given.items() if k in configs.schema(method)}


class Priors(dict[str, Path]):
    """The working directories of a VAE's and of a GAN's run by name, made when asked for."""

    def __init__(self, tiny: dict[str, Any], place: Path) -> None:
        self._tiny, self._place = tiny, place

    def __missing__(self, name: str) -> Path:
        own = {"vae": VAE, "gan": GAN["gan"]}[name]
        data = {key: self._tiny[key] for key in ("data.name", "data.path", "devices", "progress")}
        keys = data | own | {"method": name, "quality.every": 0}
        for mode in ("vae", "distill")[name == "gan" :]:
            runs.run(keys, self._place / name, mode)
        self[name] = self._place / name
        return self[name]


@pytest.fixture(scope="module")
def priors(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Priors:
    return Priors(tiny, tmp_path_factory.mktemp("priors"))


def made(keys: dict[str, Any], place: Path) -> DistilledSet:
    runs.run(keys, place, "distill")
    return DistilledSet.load(place / "distilled.npz")


def double(tree: Any) -> Any:
    def one(leaf: Any) -> Any:
        a = np.asarray(leaf)
        return jnp.asarray(a, jnp.float64) if np.issubdtype(a.dtype, np.floating) else leaf

    return jax.tree.map(one, tree)


@pytest.mark.parametrize(
    "method, kind",
    [
        pytest.param("dc", "vae", marks=pytest.mark.slow),
        pytest.param("dm", "gan", marks=pytest.mark.slow),
        ("mtt", "vae"),
    ],
)
def test_the_loop_s_gradient_agrees_with_finite_differences(
    tiny: dict[str, Any], priors: Priors, tmp_path: Path, method: str, kind: str
) -> None:
    keys = keys_of(tiny, method, priors[kind])
    if method == "mtt":
        runs.run(keys, tmp_path, "experts")
    context = runs.context(keys, tmp_path)
    made = methods.make(context.config, context.problem)
    batch = context.problem.gather(made.sample(0, 0))
    carry = loop.start(made, 0)
    draw, h = np.random.default_rng(0), 1e-7  # ReLU has kinks
    with jax.enable_x64(True):
        carry = carry._replace(state=double(carry.state))
        z = carry.state.variables["latents"]
        # Latents far from each other: some of the tiny VAE's are the same.
        z = z + 0.3 * jnp.asarray(draw.standard_normal(z.shape))
        way = jnp.asarray(draw.standard_normal(z.shape))

        def at(z: jax.Array) -> Any:
            variables = carry.state.variables | {"latents": z}
            return carry._replace(state=carry.state._replace(variables=variables))

        gradient, _ = loop.make_step(made, 0, jax.devices()[:1])
        (_, _), grads = gradient(at(z), double(batch))
        ends = [gradient(at(z + s * h * way), double(batch))[0][0] for s in (1.0, -1.0)]
        exact = float(jnp.vdot(grads["latents"], way))
        assert grads["latents"].dtype == jnp.float64 and abs(exact) > 1e-6
        np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)
    if method == "mtt":
        assert set(grads) == {"latents", "lr"} and float(grads["lr"]) != 0


@pytest.mark.slow
def test_latents_start_as_encoded_images_or_as_draws_for_the_class(
    tiny: dict[str, Any], priors: Priors, tmp_path: Path
) -> None:
    pixels = runs.context(keys_of(tiny, "dm", "none"), tmp_path)
    images = methods.make(pixels.config, pixels.problem).init(0).variables["images"]
    stored = checkpoints.read(priors["vae"] / "checkpoints/vae/4/default")["state"]["variables"]
    net = autoencoder((8, 8, 3), 2, 2, 3)
    wanted = net.encode(stored["params"], images)[0]

    def first(prior: Path | str, seed: int = 0, **more: Any) -> Any:
        context = runs.context(keys_of(tiny, "dm", prior, **more), tmp_path)
        method = methods.make(context.config, context.problem)
        state = method.init(seed)
        return state.variables["latents"], method.decode(state.variables)["images"]

    z, shown = first(priors["vae"])
    np.testing.assert_allclose(z, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(shown, net.decode(stored["params"], z), rtol=1e-4, atol=1e-5)
    drawn = first(priors["vae"], pix_init="noise")[0]
    alone = tmp_path / "alone.npz"  # the set without its run has no encoder
    shutil.copy(priors["vae"] / "distilled.npz", alone)
    np.testing.assert_array_equal(first(alone)[0], drawn)
    assert drawn.shape == z.shape and not np.allclose(drawn, z)
    z, shown = first(priors["gan"])
    product = jdd.load(priors["gan"])
    labels = jnp.repeat(jnp.arange(3), len(z) // 3)
    np.testing.assert_allclose(shown, product.apply(z, labels), rtol=1e-4, atol=1e-5)
    assert z.shape == (len(labels), 5) and not np.array_equal(z, first(priors["gan"], seed=1)[0])


def test_a_run_leaves_decoded_pixels_resumes_and_is_evaluated(
    tiny: dict[str, Any], priors: Priors, tmp_path: Path
) -> None:
    keys = keys_of(tiny, "dm", priors["vae"], checkpoint_every=2, **{"latent.lr": 0.5})
    result = runs.run(keys, tmp_path / "whole")
    dset = DistilledSet.load(tmp_path / "whole/distilled.npz")
    at = checkpoints.read(tmp_path / "whole/checkpoints/distill/4/default")["state"]["variables"]
    assert set(at) == {"latents"}
    decoder = jdd.load(priors["vae"]).params
    net = autoencoder((8, 8, 3), 2, 2, 3)
    shown = net.decode(decoder, at["latents"])
    np.testing.assert_allclose(dset.images, shown, rtol=1e-4, atol=1e-5)
    assert dset.recipe["latent"]["prior"] == "VAE" and dset.recipe["latent"]["start"] == "encoded"
    assert result["accuracy"] and (tmp_path / "whole/report.html").is_file()
    made({**keys, "steps": 2}, tmp_path / "parts")
    again = made(keys, tmp_path / "parts")
    np.testing.assert_array_equal(again.images, dset.images)
    held = made({**keys, "latent.lr": 0.25}, tmp_path / "held")
    assert not np.array_equal(held.images, dset.images)
    cost = runs.run(keys, tmp_path / "none", "estimate")
    assert cost["distill"]["seconds"] > 0 and not (tmp_path / "none").exists()


def test_an_average_of_images_is_one_of_decoded_images(
    tiny: dict[str, Any], priors: Priors, tmp_path: Path
) -> None:
    """FTD's: it starts as the decoded images, and follows them."""
    own = {**KEYS["mtt"], "ema": 0.5, "method": "ftd", "latent.prior": str(priors["vae"])}
    keys = {**tiny, **own, "data.dsa": "none", "net.depth": 1}
    keys = {k: v for k, v in keys.items() if k in configs.schema("ftd")}
    context = runs.context(keys, tmp_path)
    method = methods.make(context.config, context.blank)
    state = method.init(0)
    first = method.decode(state.variables)["images"]
    np.testing.assert_allclose(state.aux["images"], first, rtol=1e-5, atol=1e-6)
    moved = state.variables | {"latents": state.variables["latents"] + 1}
    after = method.advance(state._replace(variables=moved), jax.random.key(0))
    wanted = 0.5 * first + 0.5 * method.decode(moved)["images"]
    np.testing.assert_allclose(after.aux["images"], wanted, rtol=1e-5, atol=1e-5)
    assert after.variables is moved


def test_a_prior_counts_by_its_weights_not_by_its_place(
    tiny: dict[str, Any], priors: Priors, tmp_path: Path
) -> None:
    here, there, place = tmp_path / "here", tmp_path / "there", tmp_path / "run"
    shutil.copytree(priors["vae"], here)
    keys = keys_of(tiny, "dm", here)
    plain = runs.context(keys_of(tiny, "dm", "none"), place)
    assert "latent" not in json.loads(configs.to_json(plain.config))
    first = distill.identity(runs.context(keys, place))
    assert first != distill.identity(plain)
    was = made({**keys, "steps": 2}, place)
    here.rename(there)
    moved = keys_of(tiny, "dm", there)
    assert distill.identity(runs.context(moved, tmp_path / "x")) == first
    assert made(moved, place).recipe["steps"] == 4  # it goes on from the new place
    product = jdd.load(there)
    other = jax.tree.map(lambda a: a + np.float32(0.01), product.params)
    product._replace(params=other).save(there / "distilled.npz")
    assert distill.identity(runs.context(moved, tmp_path / "x")) != first
    with pytest.raises(BadInput, match="not what this run began with"):
        made({**moved, "steps": 6}, place)
    shutil.rmtree(there)
    context = runs.context(moved, place)  # a finished run does not need it
    assert distill.STAGE.done(context) and was.recipe["latent"]["digest"] == contents.digest(
        context, "latent.prior"
    )
    with pytest.raises(BadInput, match="no such file or folder"):
        made({**moved, "steps": 6}, place)
    with pytest.raises(BadInput, match="latent.prior|another config"):
        made(keys_of(tiny, "dm", "none", steps=6), place)


@pytest.mark.parametrize(
    "case, says",
    [
        ("absent", "no such file or folder"),
        ("unfinished", "no set yet"),
        ("set", "a product of kind 'images'"),
        ("diffusion", "a generator of kind 'diffusion'"),
        ("data", "a prior of other images"),
        ("size", "images of 8x8x3; 4x4x3"),
        ("classes", "3 classes (a, b, c ...)"),
        ("whitened", "kornia with latent.prior"),
        ("start", "a VAE that has no encoder"),
        ("rate", "config.lr_img: it has no effect"),
        ("idle", "config.latent.lr: it has no effect"),
    ],
)
def test_what_cannot_be_a_prior_is_one_line_and_changes_nothing(
    tiny: dict[str, Any],
    priors: Priors,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: str,
    says: str,
) -> None:
    path, more = tmp_path / "p.npz", dict[str, Any]()
    product = jdd.load(priors["vae"])
    if case == "unfinished":
        path = tmp_path / "begun"
        path.mkdir()
        (path / "config.json").write_text("{}")
    tables = {
        "size": {"data.size": 4},
        "whitened": {"data.zca": "kornia"},
        "rate": {"lr_img": 1.0, "latent.lr": 2.0},
        "idle": {"latent.lr": 1.0},
    }
    more |= tables.get(case, {})
    recipe = product.recipe
    if case == "data":
        recipe = recipe | {"data_fingerprint": "another"}
    if case == "classes":
        recipe = recipe | {"class_names": ["a", "b", "c"]}
    if case not in ("absent", "unfinished", "set", "diffusion"):
        product.with_recipe(recipe).save(path)
    if case == "diffusion":
        described = {
            "name": "diffusion", "shape": [8, 8, 3], "classes": 3, "latent": 192, "width": 4,
            "levels": 1, "attention": False, "schedule": "cosine", "timesteps": 4, "steps": 2,
            "guidance": 1.0,
        }  # fmt: skip
        params = generators.make(described).init(jax.random.key(0))
        params = jax.tree.map(np.asarray, params)
        product._replace(architecture=described, params=params).save(path)
    if case == "set":
        images = np.zeros((3, 8, 8, 3), np.float32)
        DistilledSet(
            images, np.arange(3, dtype=np.int32), "hard", None, recipe, product.transform
        ).save(path)
    if case == "start":
        more["init_set"] = str(path)
    keys = keys_of(tiny, "dm", "none" if case == "idle" else path)
    keys = {k: v for k, v in keys.items() if k != "lr_img"} | more
    words = [f"--config.{k}={v}" for k, v in keys.items() if k not in configs.unused(SPEC)]
    assert main.main(["--config=dm", *words, f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err, err
    assert not (tmp_path / "run").exists()


SPEC = configs.load("dm").config.spec


def test_the_key_is_of_methods_that_learn_images_by_lr_img(tiny: dict[str, Any]) -> None:
    for method in ("mtt", "tesla", "ftd", "datm", "dc", "dsa", "dm"):
        assert "latent.prior" in configs.schema(method)
        given = {"data.name": "toy", "data.path": tiny["data.path"], "method": method}
        config, _ = configs.resolve(configs.load("mtt", given).config)
        assert (config.latent.prior, config.latent.lr) == ("none", 0.0)
        with_one = given | {"latent.prior": "x"}
        config, _ = configs.resolve(configs.load("mtt", with_one).config)
        assert latents.with_rate(config).lr_img == config.lr_img
        faster = configs.replace(config, {"latent.lr": 3.0})
        assert latents.with_rate(faster).lr_img == 3.0 and faster.lr_img == config.lr_img
        assert latents.given(config) == "x"
    named = configs.default_workdir(
        configs.load("dm:digits", {"latent.prior": "runs/a"}).config, "dm", ["latent.prior"]
    )
    assert named == "runs/dm-digits-ipc1-s0-latent.prior_a"
