"""D4M: whole runs on the tiny problem, and what its images, prototypes and weights rest on."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config as configs
from jdd import rng
from jdd.errors import BadInput, Interrupted
from jdd.generative import diffusion, prototypes
from jdd.interop import torch_data
from jdd.methods import d4m
from jdd.methods.vae import net_of
from jdd.product.distilled_set import DistilledSet
from jdd.report import replay
from jdd.report.evidence import gather
from jdd.run.metrics import read
from jdd.run.session import Session
from jdd.stages import label_stores, phases
from jdd.storage import checkpoints
from tests import runs
from tests.generative import tiny_pipeline

OWN = {
    "method": "d4m", "ipc": 2, "steps": 0, "net.name": "ConvNetBN", "nets": "ConvNetBN",
    "squeeze.nets": "ConvNetBN", "squeeze.width": 4, "squeeze.epochs": 3, "squeeze.batch": 16,
    "squeeze.lr": 0.05, "eval.epochs": 3, "eval.batch": 4, "eval.lr": 0.01, "eval.curve": 0,
    "baselines.full": False, "baselines.random": 1, "vae.steps": 4, "vae.batch": 16,
    "quality.every": 0, "vae.channels": 2, "vae.width": 4, "vae.levels": 2, "diffusion.steps": 4,
    "diffusion.batch": 16, "diffusion.width": 8, "diffusion.timesteps": 20, "sampling.steps": 5,
}  # fmt: skip
PRIOR = ("vae", "diffusion", "prototypes")


@pytest.fixture(scope="module")
def keys(tiny):
    schema = configs.schema("d4m")
    return {k: v for k, v in {**tiny, **OWN}.items() if k in schema}


@pytest.fixture(scope="module")
def done(keys, tmp_path_factory):
    place = tmp_path_factory.mktemp("d4m")
    return place, runs.run(keys, place)


@pytest.fixture(scope="module")
def made(done, keys):
    """``made(**changes) -> (config, problem)`` with the priors and prototypes of the run."""
    context = runs.context(keys, done[0])
    problem = phases.problem(context, 0)

    def other(**changes):
        named = {name.replace("__", "."): value for name, value in changes.items()}
        config = configs.replace(context.config, named)
        return config, problem._replace(config=config)

    return other


def images(config, problem, seed=0):
    return np.asarray(d4m.make(config, problem).init(seed).variables["images"])


def state_of(place, name):
    folder = place / "checkpoints" / name
    return checkpoints.read(folder / str(checkpoints.latest(folder)) / "default")["state"]


def test_a_run_leaves_a_labelled_set_of_pixels_beside_its_baselines(done):
    place, result = done
    dset = DistilledSet.load(place / "distilled.npz")
    assert dset.images.shape == (6, 8, 8, 3) and dset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    pixels = 255 * dset.transform.inverse(dset.images)
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-3)
    assert pixels.min() > -1e-3 and pixels.max() < 255.001 and dset.weights is None
    assert {p.name for p in (place / "labels").iterdir()} == {"set", "random-0"}
    assert {*PRIOR, "distill", "relabel", "evaluate"} <= set(result["seconds"])
    assert 0 <= result["accuracy"]["ConvNetBN"]["mean"] <= 1
    assert set(result["baselines"]) >= {"random", "hard", "random_hard"}


def test_prototypes_are_k_means_of_drawn_and_scaled_latents(done, keys):
    place, _ = done
    context = runs.context(keys, place)
    prior, found = state_of(place, "vae")["variables"], state_of(place, "prototypes")
    net = net_of(context.config, context.data.shape)
    train = context.data.train
    for c in range(3):
        rows = rng.host(0, "d4m/order", c).permutation(np.flatnonzero(train.labels == c))
        mean, log_variance = net.encode(prior["params"], jnp.asarray(train.images[rows]))
        keys_ = [jax.random.fold_in(rng.stream(0, "d4m/latents"), int(r)) for r in rows]
        noise = np.stack(
            [jax.random.normal(jax.random.fold_in(key, 0), mean.shape[1:]) for key in keys_]
        )
        z = (np.asarray(mean) + np.exp(np.asarray(log_variance) / 2) * noise) * prior["scale"]
        wanted = prototypes.fit([z.astype(np.float32)], 2, 1, 0, c)
        np.testing.assert_allclose(
            found["variables"]["centres"][c], wanted.centres, rtol=1e-3, atol=1e-4
        )
        assert found["aux"]["sizes"][c].sum() == found["aux"]["fitted"][c] == len(rows)


@pytest.mark.parametrize("stage", ["vae", "diffusion"])
def test_a_stopped_run_ends_with_the_same_bytes(done, keys, tmp_path, monkeypatch, stage):
    real = Session.stopping.fget

    def stopping(session):
        at = read(tmp_path / "metrics.jsonl")
        return real(session) or any(r["stage"] == stage and r["step"] == 2 for r in at)

    shutil.copytree(done[0] / "squeeze", tmp_path / "squeeze")
    with monkeypatch.context() as patched:
        patched.setattr(Session, "stopping", property(stopping))
        with pytest.raises(Interrupted, match="interrupted at step"):
            runs.run(keys, tmp_path)
    runs.run(keys, tmp_path)
    assert (tmp_path / "distilled.npz").read_bytes() == (done[0] / "distilled.npz").read_bytes()


def test_lost_prototypes_and_images_are_made_again(done, keys, tmp_path):
    whole = (done[0] / "distilled.npz").read_bytes()
    again = tmp_path / "again"
    shutil.copytree(done[0], again)
    for lost in (("checkpoints/prototypes", "distilled.npz"), ("checkpoints/distill",)):
        for name in (*lost, "distilled.npz"):
            path = again / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        runs.run(keys, again)
        assert (again / "distilled.npz").read_bytes() == whole


def test_priors_do_not_depend_on_what_is_read_after_them(done, keys, tmp_path):
    context = runs.context(keys, tmp_path)
    changes = {
        "sampling.strength": 0.7, "sampling.guidance": 8.0, "guide.mode": 0.1,
        "guide.until": 0.2,
        "squeeze.epochs": 4, "weights": "clusters", "net.width": 5,
    }  # fmt: skip
    other = runs.context({**keys, **changes}, tmp_path)
    larger = runs.context({**keys, "ipc": 4, "km_expand": 2}, tmp_path)
    longer = runs.context({**keys, "vae.steps": 5}, tmp_path)
    own = {phase.name: phase for phase in configs.phases(context.config)}
    assert list(own) == list(PRIOR)
    same = {
        n: [phases.identity(context, p) == phases.identity(c, p) for c in (other, larger, longer)]
        for n, p in own.items()
    }
    assert same == {
        "vae": [True, True, False], "diffusion": [True, True, False],
        "prototypes": [True, False, False],
    }  # fmt: skip


def test_strength_0_decodes_the_prototypes_and_noise_is_an_image_s_own(made):
    config, problem = made(sampling__strength=0.0)
    found = images(config, problem)
    prior = problem.phases["vae"].variables
    centres = problem.phases["prototypes"].variables["centres"].reshape(6, 2, 2, 2)
    net = net_of(config, problem.data.shape)
    decoded = np.asarray(net.decode(prior["params"], jnp.asarray(centres / prior["scale"])))
    low, high = (problem.data.transform.forward(np.full((1, 8, 8, 3), v)) for v in (0.0, 1.0))
    np.testing.assert_allclose(found, np.clip(decoded, low, high), atol=1e-5)
    np.testing.assert_array_equal(found, images(config, problem, seed=1))
    several = {s: images(*made(sampling__strength=s)) for s in (0.4, 1.0)}
    assert not np.allclose(several[0.4], found) and not np.allclose(several[0.4], several[1.0])
    assert not np.allclose(several[0.4], images(*made(), seed=1))


def test_images_are_denoised_from_noised_prototypes_by_guided_ddim(made):
    """Against a loop of its own over the steps, one image at a time."""
    config, problem = made(sampling__strength=0.6, sampling__guidance=3.0)
    found = images(config, problem)
    prior, params = (problem.phases[n].variables for n in ("vae", "diffusion"))
    net, schedule = d4m.predictor(config, problem), diffusion.scaled_linear(20, 0.0425, 0.6)
    kept = np.asarray(schedule.alpha_bar, np.float64)
    centres = problem.phases["prototypes"].variables["centres"].reshape(6, 1, 2, 2, 2)
    for number in (0, 3):
        key = jax.random.fold_in(rng.stream(0, "d4m/noise"), number)
        noise = jax.random.normal(jax.random.fold_in(key, 20), (2, 2, 2))
        z = np.sqrt(kept[8]) * centres[number] + np.sqrt(1 - kept[8]) * np.asarray(noise)
        for t, after in ((8, kept[4]), (4, kept[0]), (0, 1.0)):  # the last 3 of 0, 4, .., 16
            of = [
                np.asarray(net.apply(params["ema"], jnp.float32(z), jnp.array([t]), jnp.array([y])))
                for y in (number // 2, 3)
            ]
            eps = of[1] + 3.0 * (of[0] - of[1])
            clean = (z - np.sqrt(1 - kept[t]) * eps) / np.sqrt(kept[t])
            z = np.sqrt(after) * clean + np.sqrt(1 - after) * eps
        decoded = net_of(config, (8, 8, 3)).decode(prior["params"], jnp.float32(z / prior["scale"]))
        low, high = (problem.data.transform.forward(np.full((1, 8, 8, 3), v)) for v in (0.0, 1.0))
        np.testing.assert_allclose(found[number], np.clip(decoded, low, high)[0], atol=2e-4)


def test_images_of_one_prototype_differ_and_parts_change_nothing(made, keys):
    config, problem = made(prototypes=1)
    one = problem.phases["prototypes"]
    first = one._replace(variables={"centres": one.variables["centres"][:, :1]})
    problem = problem._replace(phases={**problem.phases, "prototypes": first})
    found = images(config, problem)
    assert found.shape == (6, 8, 8, 3)
    assert all(not np.allclose(found[2 * c], found[2 * c + 1]) for c in range(3))
    few = configs.replace(config, {"sampling.part": 2})
    np.testing.assert_allclose(images(few, problem._replace(config=few)), found, atol=1e-5)


def test_guides_move_the_images(made):
    plain = images(*made(sampling__strength=1.0, guide__until=0.2))
    for name in ("mode", "representative", "diverse"):
        other = made(sampling__strength=1.0, guide__until=0.2, **{f"guide__{name}": 0.5})
        assert np.abs(images(*other) - plain).max() > 1e-4, name


def test_remainders_are_dropped_but_for_the_last_class_with_the_bugs_of_the_reference(made):
    config, problem = made(km_expand=7, ref_bugs=True)
    labels = problem.data.train.labels
    counts = np.bincount(labels)
    assert counts[0] % 14 >= 2  # the last class has a remainder to fit
    fitted = np.asarray(d4m.prototypes(config, problem)(0).aux["fitted"])
    wanted = [n if c == labels[-1] else n - n % 14 for c, n in enumerate(counts)]
    assert fitted.tolist() == wanted
    plain = made(km_expand=7)
    assert d4m.prototypes(*plain)(0).aux["fitted"].tolist() == counts.tolist()


def test_sizes_of_clusters_weigh_the_losses_of_students(done, keys, tmp_path, monkeypatch):
    place, _ = done
    whole, given = label_stores.label_reader, []

    def reader(context, dset, planned, stores, classes, weights=None):
        given.append(weights)
        found = whole(context, dset, planned, stores, classes, weights)
        held = found[1].at([0], 0).get("weights")
        assert (held is None) == (weights is None)
        if held is not None:
            np.testing.assert_array_equal(held, weights[None])
        return found

    monkeypatch.setattr(label_stores, "label_reader", reader)
    shutil.copytree(place, tmp_path / "run")
    for name in ("config.json", "distilled.npz", "result.json", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run/labels")
    own = {**keys, "weights": "clusters", "baselines.hard": False}
    other = runs.run(own, tmp_path / "run")
    ours, plain = (DistilledSet.load(p / "distilled.npz") for p in (tmp_path / "run", place))
    np.testing.assert_array_equal(ours.images, plain.images)  # the priors were not trained again
    sizes = np.asarray(state_of(place, "prototypes")["aux"]["sizes"])
    wanted = (2 * sizes / sizes.sum(1, keepdims=True)).ravel()
    np.testing.assert_allclose(ours.weights, wanted, rtol=1e-5)
    assert np.ptp(ours.weights) > 0 and other["accuracy"]["ConvNetBN"]["n"] == 2
    np.testing.assert_array_equal(given[0], ours.weights)  # of the set, not of random images
    assert len(given) == 2 and given[1] is None
    with pytest.raises(BadInput, match="stored labels of a set whose images have weights"):
        torch_data._store(ours, tmp_path / "run")
    assert replay.torch(gather(place)) and replay.torch(gather(tmp_path / "run")) is None


@pytest.mark.slow
def test_a_prior_of_pixels_needs_no_autoencoder(made, keys, tmp_path):
    own = {**keys, "diffusion.space": "pixels", "baselines.hard": False, "baselines.random": 0}
    for mode in ("diffusion", "prototypes", "distill"):
        runs.run(own, tmp_path, mode)
    assert not (tmp_path / "checkpoints/vae").exists()
    centres = state_of(tmp_path, "prototypes")["variables"]["centres"]
    assert centres.shape == (3, 2, 8, 8, 3)
    assert DistilledSet.load(tmp_path / "distilled.npz").images.shape == (6, 8, 8, 3)


def test_cost_is_foretold_and_nothing_is_written(keys, tmp_path, capsys):
    found = runs.run(keys, tmp_path / "none", "estimate")
    assert list(found)[:5] == ["squeeze", "vae", "diffusion", "prototypes", "distill"]
    assert all(found[n]["seconds"] > 0 for n in ("vae", "diffusion", "distill", "relabel"))
    assert "1 times images of 3 classes at a time" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"steps": 3}, "config.steps: 3 with method=d4m; 0: a prior is trained for vae.steps"),
        ({"ipc": 4, "prototypes": 3}, "config.prototypes: 3 with ipc=4; one of 1, 2, 4"),
        ({"ref_bugs": True, "km_expand": 50}, "config.km_expand: .* of class .*buffers of 100"),
        ({"vae.batch": 15, "vae.parts": 2}, "config.vae.parts: 2, and vae.batch=15"),
        ({"vae.levels": 4}, "config.vae.levels: 4, of images of 8 a side; 3 or fewer"),
        ({"data.zca": "kornia"}, "config.data.zca: kornia"),
        (
            {"prior": "stable_diffusion", "guide.mode": 0.1},
            "config.guide.mode: 0.1 with prior=stable_diffusion",
        ),
        (
            {"sampling.strength": 0.4, "guide.mode": 0.1},
            "config.guide.until: 0.5: guides end there, and sampling.strength=0.4 starts at",
        ),
        (
            {"prior": "stable_diffusion", "sampling.guidance": 0.5},
            "config.sampling.guidance: 0.5 with prior=stable_diffusion; 1",
        ),
        (
            {"prior": "stable_diffusion", "sampling.eta": 0.5},
            "config.sampling.eta: 0.5 with sd.scheduler=pndm; 0, or --config.sd.scheduler=ddim",
        ),
        ({"prior": "stable_diffusion", "sd.prompt": "x"}, "config.sd.prompt: 'x'; a text with {}"),
        ({"prior": "stable_diffusion"}, "config.(sd.weights: ''|prior: stable_diffusion, and)"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(keys, tmp_path, wrong, match):
    with pytest.raises(BadInput, match=match):
        runs.run({**keys, **wrong}, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_class_of_one_image_is_refused(keys, toy, tmp_path):
    arrays = dict(np.load(toy))
    few = np.flatnonzero(arrays["y_train"] == 1)[1:]
    cut = {n: np.delete(arrays[n], few, axis=0) for n in ("x_train", "y_train")}
    np.savez(tmp_path / "few.npz", **{**arrays, **cut})
    own = {**keys, "data.path": str(tmp_path / "few.npz"), "ipc": 1}
    with pytest.raises(BadInput, match="config.data: 1 training image of class .*; 2 or more"):
        runs.run(own, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_stable_diffusion_generates_and_jdd_does_the_rest(keys, tmp_path):
    folder = tiny_pipeline.save(tmp_path / "tiny")
    own = {
        **keys, "prior": "stable_diffusion", "sd.weights": str(folder), "sd.size": 64,
        "sampling.steps": 3, "prototypes": 1, "baselines.random": 0, "baselines.hard": False,
    }  # fmt: skip
    result = runs.run(own, tmp_path / "run")
    whole = (tmp_path / "run/distilled.npz").read_bytes()
    dset = DistilledSet.load(tmp_path / "run/distilled.npz")
    assert dset.images.shape == (6, 8, 8, 3) and result["accuracy"]["ConvNetBN"]["n"] == 2
    assert not np.allclose(dset.images[0], dset.images[1])
    made = {p.name for p in (tmp_path / "run/checkpoints/distill-parts").iterdir()}
    assert made == {"0.npy", "1.npy", "2.npy"}  # a class each: what is finished is not made again
    (tmp_path / "run/checkpoints/distill-parts/1.npy").unlink()
    (tmp_path / "run/distilled.npz").unlink()
    runs.run(own, tmp_path / "run")
    assert (tmp_path / "run/distilled.npz").read_bytes() == whole
    found = runs.run(own, tmp_path / "none", "estimate")
    assert found["distill"]["seconds"] == 0 and not (tmp_path / "none").exists()
