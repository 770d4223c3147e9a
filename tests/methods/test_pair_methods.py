"""VL and LoRS on tiny towers: their gradients, their estimators, their runs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd import config as configs
from jdd import methods, rng
from jdd.errors import BadInput
from jdd.matching.trajectory import branch_distance
from jdd.methods import vl
from jdd.run import metrics, pipeline

TINY = {
    "pairs": 5, "text.captions": 1, "text.size": 8, "towers.size": 4, "syn_steps": 2, "steps": 3,
    "net.name": "ConvNet", "nets": "ConvNet", "net.width": 3, "net.depth": 1, "net.act": "sigmoid",
    "experts.count": 2, "experts.group": 1, "experts.batch": 400, "experts.lr": 0.1,
    "eval.n": 2, "eval.epochs": 3, "baselines.random": 2, "baselines.full": False,
    "progress": False, "checkpoint_every": 1, "log_every": 1, "lr_img": 1.0, "lr_txt": 1.0,
    "lr_student": 0.1, "lr_lr": 1e-3,
}  # fmt: skip
LORS = {"sim_rank": 2, "batch_syn": 3}
# RepBlend's ideas: projections of both towers trained, their inputs blended.
MIXED = {"mix": 1.0, "towers.frozen": True, "towers.start": "shared"}


def context(method: str, place: Any, **keys: Any) -> Any:
    """Return the prepared run of a method on captions of digits; nothing is run or written."""
    loaded = configs.load(f"{method}:digits_captions", TINY | keys)
    return pipeline.prepare(configs.resolve(loaded.config)[0], place, "test")


@functools.cache
def moved(method: str, **keys: Any) -> tuple[Any, Any, Any]:
    """Return the problem of a tiny run, state and item in float64, away from every identity."""
    found = context(method, Path("unused"), **keys)
    problem = found.blank
    made = methods.make(found.config, problem)
    state = made.init(0)
    item = jax.tree.map(lambda a: a[0], problem.gather(made.sample(0, 0)))
    draw = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda a: np.asarray(a, np.float64) + 0.1 * draw.normal(size=a.shape), state.variables
    )
    variables["lr"] = {"image": np.float64(0.4), "text": np.float64(0.2)}
    item = jax.tree.map(lambda a: np.asarray(a, np.float64) if a.dtype == np.float32 else a, item)
    return problem, variables, item


def loss_of(method: str, changes: dict[str, Any], **keys: Any) -> Any:
    """Return ``f(variables)``: the matching loss of one item, with further keys that change."""
    problem, _, item = moved(method, **keys)
    config = configs.replace(problem.config, changes)
    objective = methods.make(config, problem._replace(config=config)).objective
    assert objective is not None
    return lambda variables: objective(variables, {}, item, rng.key(0, "test"))[0]


@pytest.mark.parametrize(
    "method, keys",
    [("lors", LORS | MIXED)]
    + [
        pytest.param(method, keys, marks=pytest.mark.slow)
        for method, keys in (
            ("vl", {"lora.rank": 2, "towers.start": "shared"}),
            ("lors", LORS),
            ("lors", LORS | {"loss": "nce"}),
            ("lors", LORS | {"loss": "bce"}),
            ("vl", {"distance": "merged", "tau_inner": "raw"}),
            ("vl", MIXED),
        )
    ],
)
def test_the_gradient_is_exact_in_everything_that_is_learned(method, keys):
    with jax.enable_x64(True):
        _, variables, _ = moved(method, **keys)
        variables = jax.tree.map(jnp.asarray, variables)
        mixed, *others = (
            jax.jit(jax.grad(loss_of(method, {"unroll": how}, **keys)))(variables)
            for how in ("mixed", "reverse", "remat")[: 3 if method == "lors" else 2]
        )
        for other in others:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(
                    a, b, rtol=1e-10, atol=1e-10 * float(jnp.abs(b).max())
                ),
                mixed, other,
            )  # fmt: skip
        loss, draw = jax.jit(loss_of(method, {}, **keys)), np.random.default_rng(1)
        leaves, tree = jax.tree.flatten(variables)
        for i, leaf in enumerate(leaves):  # images, both rates, L, R, w, text
            v = jnp.asarray(draw.normal(size=leaf.shape))
            h = 1e-4 / (1 + float(jnp.linalg.norm(v)))

            def at(step: float, i: int = i, v: Any = v) -> Any:
                return loss(tree.unflatten([*leaves[:i], leaves[i] + step * v, *leaves[i + 1 :]]))

            numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
            exact = jnp.vdot(jax.tree.leaves(mixed)[i], v)
            np.testing.assert_allclose(exact, numeric, rtol=1e-5, err_msg=str(i))


def frozen(variables: Any, keys: dict[str, Any]) -> Any:
    """Return LoRS' loss with every inner gradient taken at a constant theta_j: its own formula."""
    problem, _, item = moved("lors", **keys)
    config, net = problem.config, problem.nets["student"]
    inner = vl._loss(net, config)
    start, target = item["start"]["params"], item["target"]["params"]
    theta, constant = start, start
    for rows in item["rows"]:
        s = jax.tree.map(lambda a, r=rows: a[r], variables["similarity"])
        whole = s["left"] @ s["right"].T * config.sim_alpha / config.sim_rank
        shown = {
            "image": variables["images"][rows], "text": variables["text"][rows],
            "target": jnp.diag(s["w"]) + whole,
        }  # fmt: skip
        g = jax.grad(inner)(constant, shown, (None, {}))
        rates = {b: jax.tree.map(lambda _, b=b: variables["lr"][b], g[b]) for b in g}
        step = jax.tree.map(jnp.multiply, rates, g)
        theta = jax.tree.map(jnp.subtract, theta, step)
        constant = jax.lax.stop_gradient(theta)
    return branch_distance(theta, target, start)


def test_teslas_estimator_is_the_gradient_with_the_adjoint_frozen():
    with jax.enable_x64(True):
        _, variables, _ = moved("lors", **LORS)
        variables = jax.tree.map(jnp.asarray, variables)
        tesla = loss_of("lors", {"estimator": "tesla"}, **LORS)
        value, found = jax.jit(jax.value_and_grad(tesla))(variables)
        formula = jax.jit(jax.value_and_grad(lambda v: frozen(v, LORS)))
        expected, wanted = formula(variables)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(
                a, b, rtol=1e-9, atol=1e-10 * float(jnp.abs(b).max())
            ),
            found, wanted,
        )  # fmt: skip


def test_a_similarity_of_rank_0_is_its_diagonal():
    """Checkpoints cannot hold empty arrays: L and R are in the product alone."""
    found = context("lors", Path("unused"), **LORS | {"sim_rank": 0})
    method = methods.make(found.config, found.blank)
    state = method.init(0)
    assert all(leaf.size for leaf in jax.tree.leaves(state))
    similarity = method.distilled(state, 0).similarity
    assert similarity.left.shape == similarity.right.shape == (5, 0)
    np.testing.assert_array_equal(similarity.matrix(), np.eye(5))


def test_similarity_is_the_identity_at_first_and_a_batch_has_its_rows_of_it():
    found = context("lors", Path("unused"), **LORS)
    state = methods.make(found.config, found.blank).init(0)
    s = {k: np.asarray(v) for k, v in state.variables["similarity"].items()}
    np.testing.assert_array_equal(np.diag(s["w"]) + s["left"] @ s["right"].T, np.eye(5))
    assert np.abs(s["left"]).min() > 0
    rows = vl.batches(np.random.default_rng(0), 5, 2, 7)
    assert rows.shape == (7, 2) and all(len(set(r)) == 2 for r in rows.tolist())
    assert len(set(rows[:2].ravel().tolist())) == 4  # without replacement until a new permutation
    whole = np.diag(s["w"]) + s["left"] @ (s["left"] + 1).T
    from jdd.matching.contrastive import similarity

    part = similarity(s["w"][rows[0]], s["left"][rows[0]], s["left"][rows[0]] + 1, 2.0)
    np.testing.assert_allclose(part, whole[np.ix_(rows[0], rows[0])], rtol=1e-5)


@pytest.fixture(scope="module", params=["vl", "lors"])
def run(request, tmp_path_factory):
    """The method, the keys, the place and the result of a finished run."""
    place = tmp_path_factory.mktemp(request.param)
    keys = TINY | {"experts.dir": str(place / "experts"), "steps": 12}
    slow = {"lr_student": 0.02, "lr_img": 0.1, "lr_txt": 0.1, "lr_lr": 1e-6, "lr_sim": 0.01}
    keys |= LORS | slow if request.param == "lors" else {"segments": 2}
    loaded = configs.load(f"{request.param}:digits_captions", keys)
    result = pipeline.run(loaded, str(place / "run"), "all", None, "test")
    return request.param, keys, place, result


def test_a_run_ends_in_pairs_that_load_and_evaluate(run, tmp_path):
    method, _, place, result = run
    rows = list(metrics.read(place / "run" / "metrics.jsonl"))
    losses = [row["loss"] for row in rows if row["stage"] == "distill"]
    assert len(losses) == 12 and np.isfinite(losses).all()
    last = [row for row in rows if row["stage"] == "experts"][-1]
    assert 0 <= last["recall"] <= 1 and 0 <= last["ir10"] <= 1
    pairs = jdd.load(place / "run" / "distilled.npz")
    assert pairs.kind == "pairs" and pairs.size == 5 and set(pairs.rates) == {"image", "text"}
    assert (pairs.similarity is not None) == (method == "lors")
    assert len(pairs.captions) == 5 and all(-1 <= c <= 1 for c in pairs.recipe["caption_cosine"])
    found = jdd.evaluate(place / "run" / "distilled.npz", tmp_path / "e", eval={"n": 2})
    again = found["metrics"]["ConvNet"]["values"]
    np.testing.assert_allclose(again, result["metrics"]["ConvNet"]["values"])


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"batch_syn": 9}, "config.batch_syn: 9 of 5 pairs"),
        ({"min_lr": 0.2}, "config.lr_student: 0.1, below min_lr=0.2"),
        ({"lora.rank": 2, "towers.start": "fresh"}, "config.towers.start: fresh with lora.rank"),
        (
            {"towers.frozen": True, "towers.start": "fresh"},
            "config.towers.start: fresh with towers.frozen",
        ),
        ({"towers.frozen": True, "lora.rank": 2}, "config.towers.frozen: true with lora.rank=2"),
        ({"window": 2}, "config.window: 2 with estimator=exact"),
        ({"batch_syn": 1}, "config.batch_syn: 1 of .* pairs; 2 to"),
        ({"experts.batch": 1}, "config.experts.batch: 1: a pair is contrasted"),
        ({"tau_inner": "raw", "towers.tau": 1.0}, r"config.tau_inner: raw with towers.tau=1:"),
        ({"data.image_column": "x"}, "config.data.image_column: x with digits_captions"),
        ({"experts.epochs": 1}, "config.experts.epochs: 1"),
        ({"data.zca": "kornia"}, "config.data.zca"),
        ({"data.layout": "classes"}, "config.data.layout: classes with pairs; structure"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        loaded = configs.load("vl:digits_captions", TINY | keys)
        pipeline.run(loaded, str(tmp_path / "x"), "all", None, "test")
    assert not (tmp_path / "x").exists()


def test_pretrained_weights_are_part_of_the_experts_by_content(tmp_path):
    from safetensors.numpy import save_file

    from jdd import nets
    from jdd.pretrained import imported

    keys = {"net.name": "ViT", "nets": "ViT", "net.width": 8, "net.depth": 1, "net.heads": 2}
    keys |= {"net.patch": 4, "towers.weights": str(tmp_path / "vit.safetensors")}
    image = nets.make("ViT", (8, 8, 1), 4, width=8, depth=1, heads=2, patch=4)
    names, head = imported._expected(image)
    draw = np.random.default_rng(0)
    kept = {n: draw.normal(size=v[1]).astype(np.float32) for n, v in names.items()}

    def saved(scale: float) -> Any:
        save_file({n: scale * v for n, v in kept.items() if n not in head}, keys["towers.weights"])
        return context("vl", tmp_path / "run", **{k: v for k, v in keys.items() if k != "net.act"})

    first = saved(1.0)
    before = first.settings(1)["towers"]["weights"]
    assert any("drawn anew" in note for note in first.notes)
    start = first.net.init(rng.key(0, "a"))["params"]["image"]
    np.testing.assert_array_equal(start["pos_embed"], kept["pos_embed"])
    assert before != saved(2.0).settings(1)["towers"]["weights"] and len(before) == 16


def test_ipc_is_no_key_of_pairs(tmp_path):
    with pytest.raises(BadInput, match="config.ipc: LoRS makes pairs, as many as config.pairs"):
        jdd.distill("lors:digits_captions", tmp_path / "x", ipc=3)
    assert not (tmp_path / "x").exists()
