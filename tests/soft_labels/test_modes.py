"""How students are labelled: the labels they see of each mode, by formulas of their own."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.special import log_softmax, rel_entr, softmax

from jdd import nets
from jdd.augment import views
from jdd.errors import BadInput
from jdd.soft_labels import codec, maps, modes, teacher
from jdd.soft_labels.objective import DistillationLoss
from jdd.soft_labels.store import LabelStore
from jdd.training.recipe import Recipe

N, B, SIDE, C, T = 5, 4, 8, 6, 3.0
INDEX = np.array([3, 0, 4, 1], np.int32)
CLASSES = np.array([5, 0, 2, 1, 3])


def shown(shuffle: int = 1) -> views.View:
    """Crops inside and outside, mirrored or not, mixed by a patch and by a share of 0.8."""
    draw = np.random.default_rng(0)
    strips = [draw.permuted(np.tile(np.arange(shuffle), (B, 1)), axis=1) for _ in "rc"]
    return views.View(
        np.array([[0, 0, 8, 8], [-1, 1, 8, 8], [2, 3, 5, 4], [1, -1, 8, 8]], np.int32),
        np.array([False, True, True, False]),
        np.zeros((B, 2), np.int32),
        np.array([2, 1, 3, 0], np.int32),  # the second is its own partner
        np.tile(np.array([1, 4, 2, 7], np.int32), (B, 1)),
        np.full(B, 0.8, np.float32),
        *strips,
    )  # type: ignore[arg-type]


def mixed(own: np.ndarray) -> np.ndarray:
    """Return what of each view's ``own`` [B, C] is seen: 0.8 outside the patch of 3 x 5 pixels."""
    share = np.where(np.arange(B) == 1, 1.0, 0.8 * (64 - 15) / 64)[:, None]
    return share * own + (1 - share) * own[[2, 1, 3, 0]]


def learned(kind: str) -> Recipe:
    """Return a training by one of the losses on stored labels."""
    return Recipe(loss=kind, temperature=T, ce_weight=0.1)


def taught(distillation: DistillationLoss, view: views.View, each: dict[str, np.ndarray], **more):
    """Return what a lesson says of the second of two steps, beside its loss on some logits."""
    one = {"index": INDEX, "views": views.pack(view), "soft": {}} | more.pop("row", {})
    steps = jax.tree.map(lambda a: jnp.stack([jnp.zeros_like(a), jnp.asarray(a)]), one)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(N, SIDE, SIDE, 3)), jnp.float32)
    labels = {**steps, "first": 7, "classes": jnp.asarray(CLASSES), "each": each, **more}
    labels["each"] = jax.tree.map(jnp.asarray, each)
    x, target = jax.jit(distillation.view)(images, labels, 8)
    student = np.random.default_rng(2).normal(0, 2, (B, C)).astype(np.float32)
    np.testing.assert_array_equal(x, teacher.show(images, INDEX, view))
    return np.asarray(target.get("soft")), float(distillation.loss(student, target)), student


def losses(soft: np.ndarray, student: np.ndarray) -> dict[str, float]:
    """Return the loss of each kind on labels ``soft`` that are of that kind."""
    kl = rel_entr(soft, softmax(student / T, -1)).sum(-1).mean()
    ce = -log_softmax(student, -1)[np.arange(B), CLASSES[INDEX]].mean()
    return {
        "kl": kl, "kl_squared": T**2 * kl, "mse_gt": ((student - soft) ** 2).mean() + 0.1 * ce,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["kl", "kl_squared", "mse_gt"])
def test_static_labels_are_those_of_the_images_mixed_by_their_shares(kind):
    z = np.random.default_rng(3).normal(0, 5, (N, C)).astype(np.float16)
    distillation = DistillationLoss("logits", C, learned(kind), "static")
    soft, loss, student = taught(distillation, shown(), {"logits": z})
    own = z.astype(np.float64)[INDEX]
    wanted = mixed(own if kind == "mse_gt" else softmax(own / T, -1))
    np.testing.assert_allclose(soft, wanted, rtol=2e-6, atol=1e-6)
    assert loss == pytest.approx(losses(wanted, student)[kind], rel=1e-5)


@pytest.mark.parametrize("kind", ["kl", "kl_squared", "mse_gt", "hard"])
def test_weights_of_images_weigh_the_losses_of_their_views(kind):
    """sum_i w_i L_i / b, w_i the weights of the view's two images by their shares."""
    draw = np.random.default_rng(8)
    z = draw.normal(0, 5, (N, C)).astype(np.float16)
    weights = draw.uniform(0, 2, N).astype(np.float32)
    weights[INDEX[0]] = 0
    distillation = DistillationLoss("logits", C, learned(kind), "static")
    each = {"logits": z}
    _, loss, student = taught(distillation, shown(), each, weights=jnp.asarray(weights))
    own, of = z.astype(np.float64)[INDEX], mixed(weights.astype(np.float64)[INDEX][:, None])[:, 0]
    ce = -log_softmax(student.astype(np.float64), -1)
    if kind == "hard":
        by_view = (mixed(np.eye(C)[CLASSES[INDEX]]) * ce).sum(-1)
    elif kind == "mse_gt":
        by_view = ((student - mixed(own)) ** 2).mean(-1) + 0.1 * ce[np.arange(B), CLASSES[INDEX]]
    else:
        by_view = rel_entr(mixed(softmax(own / T, -1)), softmax(student / T, -1)).sum(-1)
        by_view = by_view * (T**2 if kind == "kl_squared" else 1)
    assert loss == pytest.approx((of * by_view).sum() / B, rel=1e-5)
    plain = taught(distillation, shown(), each)[1]
    assert plain == pytest.approx(by_view.mean(), rel=1e-5) and plain != pytest.approx(loss)
    ones = taught(distillation, shown(), each, weights=jnp.ones(N))[1]
    assert ones == pytest.approx(plain, rel=1e-6)


def roi(place: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """RoIAlign to 1 x 1 of one map [h, w, C]; the box, in pixels of SIDE, lies within the image."""
    axes = []
    for size, lo, hi in zip(place.shape, first, last, strict=False):
        extent = max(size * (hi - lo) / SIDE, 1)
        count = math.ceil(extent)
        axes.append(size * lo / SIDE - 0.5 + (np.arange(count) + 0.5) * extent / count)
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    channels = np.moveaxis(place, -1, 0)
    return np.array([map_coordinates(c, at, order=1, mode="nearest").mean() for c in channels])


@pytest.mark.parametrize("kind, k, shuffle", [("kl", 3, 1), ("kl_squared", 3, 2), ("mse_gt", C, 2)])
def test_map_labels_are_read_from_what_a_crop_shows_of_the_image(kind, k, shuffle):
    z = np.random.default_rng(4).normal(0, 5, (N, 4, 2, C))
    values, indices = maps.compress(z, k)
    view = shown(shuffle)
    distillation = DistillationLoss("logits", C, learned(kind), "map")
    soft, loss, student = taught(distillation, view, {"values": values, "indices": indices})

    least = np.sort(z, axis=-1)[..., C - k, None]
    kept = np.where(z >= least, z.astype(np.float16).astype(np.float64), 0)
    own = []
    for i, (rows, cols, box) in enumerate(zip(view.rows, view.cols, view.box, strict=True)):
        whole = kept[INDEX[i]]
        whole = np.concatenate([np.split(whole, shuffle, 0)[j] for j in rows], 0)
        whole = np.concatenate([np.split(whole, shuffle, 1)[j] for j in cols], 1)
        first, last = np.clip(box[:2], 0, SIDE), np.clip(box[:2] + box[2:], 0, SIDE)
        own.append(roi(whole, first, last))
    logits = np.array(own)
    wanted = mixed(logits if kind == "mse_gt" else softmax(logits / T, -1))
    np.testing.assert_allclose(soft, wanted, rtol=1e-5, atol=2e-6 if kind != "mse_gt" else 1e-4)
    assert loss == pytest.approx(losses(wanted, student)[kind], rel=1e-4)


@pytest.mark.parametrize("bn, combine", [("eval", "mean"), ("batch", "equal_norm")])
def test_online_labels_are_those_that_would_be_stored(bn, combine):
    net = nets.make("ConvNetBN", (SIDE, SIDE, 3), C, width=4, depth=1)
    pair, heat = (net, net), jnp.float32(30)
    variables = [net.init(jax.random.key(seed)) for seed in (0, 1)]
    variables = [
        {
            **v,
            "params": {
                **v["params"],
                "head": jax.tree.map(lambda a: heat * a, v["params"]["head"]),
            },
        }
        for v in variables
    ]
    distillation = DistillationLoss("logits", C, learned("kl"), "online", pair, bn, combine)
    soft, loss, _ = taught(distillation, shown(), {}, teachers=tuple(variables))
    images = jnp.asarray(np.random.default_rng(1).normal(size=(N, SIDE, SIDE, 3)), jnp.float32)
    said = teacher.compiled_answer(pair, bn, combine)(
        variables, teacher.show(images, INDEX, shown())
    )
    row = {"soft": codec.encode(said, "logits")}
    stored, its, _ = taught(DistillationLoss("logits", C, learned("kl")), shown(), {}, row=row)
    assert np.abs(stored).max() > 3
    np.testing.assert_allclose(soft, stored, rtol=2.0**-10, atol=1e-4)
    assert loss == pytest.approx(its, rel=5e-3)
    other = "eval" if bn == "batch" else "batch"
    changed, _, _ = taught(distillation._replace(bn=other), shown(), {}, teachers=tuple(variables))
    assert np.abs(changed - stored).max() > 0.1


def test_hard_labels_ask_no_teacher():
    distillation = DistillationLoss("logits", C, learned("hard"), mode="online")
    _, loss, student = taught(distillation, shown(), {})
    one = mixed(np.eye(C)[CLASSES[INDEX]])
    assert loss == pytest.approx(-(one * log_softmax(student, -1)).sum(-1).mean(), rel=1e-5)


def test_nets_that_average_their_last_map_have_label_maps():
    averaging, small = nets.averaging(), {"ResNet18": (4, 4), "ShuffleNetV2": (4, 4)}
    for name in (*small, "ResNet18_AP", "ConvNet", "FRePoNet", "VGG11", "AlexNet", "LeNet", "MLP"):
        net = nets.make(name, (32, 32, 3), C)
        assert maps.places(net) == small.get(name) and (name in averaging) == (name in small)
    others = {
        "ResNet18BN",
        "ResNet18BN_IN",
        "ResNet50BN",
        "ResNet50BN_IN",
        "MobileNetV2",
        "WRN16_2",
        "NFResNet",
        "NFResNet_IN",
    }
    assert set(averaging) == {*small, *others}
    net = nets.make("WRN16_2", (SIDE, SIDE, 3), C, width=4)
    assert maps.places(net) == (2, 2)
    variables, x = net.init(jax.random.key(0)), jnp.ones((2, SIDE, SIDE, 3))
    x = x.at[1, :3].set(-2.0)
    pair = [variables, jax.tree.map(lambda a: 1.5 * a, variables)]
    found, logits = jax.jit(
        lambda v, x: [f((net,) * 2, v, x, "batch", "equal_norm")
                      for f in (teacher.answer_maps, teacher.answer)]
    )(pair, x)  # fmt: skip
    assert found.shape == (2, 2, 2, C) and np.ptp(found[1], axis=(0, 1)).max() > 1e-3
    np.testing.assert_allclose(found.mean((1, 2)), logits, rtol=1e-4, atol=1e-5)


def settings(mode: str, **more) -> dict:
    size = {"places": (2, 3)} if mode == "map" else {}
    named = {} if mode == "views" else {"mode": mode}
    return {"images": "ab", "form": "logits", "classes": C, "k": 3, **named, **size, **more}


def filled(place, mode: str) -> LabelStore:
    store, draw = LabelStore(place, settings(mode)), np.random.default_rng(0)
    store.create()
    index = np.arange(4, dtype=np.int32).reshape(2, 2)
    box = {"box": np.zeros((2, 2, 4), np.int16)}
    store.write(0, index, box, draw.normal(size=(2, 2, C)) if mode == "views" else None)
    z = draw.normal(size=(4, 2, 3, C))
    if mode == "static":
        store.write_images(codec.encode(z[:, 0, 0], "logits"))
    if mode == "map":
        store.write_images(dict(zip(("values", "indices"), maps.compress(z, 3), strict=True)))
    return store


@pytest.mark.parametrize("mode", modes.MODES)
def test_a_store_holds_what_its_mode_has_and_no_other_takes_it(tmp_path, mode):
    store = filled(tmp_path, mode)
    again = LabelStore.open(tmp_path)
    assert again.mode == mode and again.has(1) and again.digest() == store.digest()
    (index, view, labels), each = again.read(0), again.read_images()
    arrays = [index, *view.values(), *labels.values(), *each.values()]
    told = modes.expected_bytes(
        mode, 4, 1, C, "logits", 3, 8, 2, (2, 3) if mode == "map" else ()
    )  # fmt: skip
    assert sum(a.nbytes for a in arrays) == told
    assert set(labels) == ({"logits"} if mode == "views" else set())
    assert set(each) == {"static": {"logits"}, "map": {"values", "indices"}}.get(mode, set())
    for other in modes.MODES:
        if other != mode:
            with pytest.raises(BadInput, match=f"mode='{mode}'.*mode='{other}'.*delete it"):
                LabelStore(tmp_path, settings(other))
    # What was written before there were modes is of mode views, and is not asked for again.
    LabelStore(tmp_path, settings(mode) | {"mode": mode})
    if each:
        path = store.images_path
        whole = path.read_bytes()
        path.write_bytes(whole[:-8])
        assert not again.has(1) and again.epochs() == 1
        with pytest.raises(BadInput, match="images.npz.*delete it"):
            again.read_images()
        path.unlink()
        with pytest.raises(BadInput, match="no such labels"):
            again.read_images()


@pytest.mark.parametrize(
    "change, match",
    [
        ({"mode": "soft"}, "one of views, static, map, online"),
        ({"mode": "static", "form": "hard"}, "hard in mode static; logits"),
        ({"mode": "map"}, r"size of the label maps: \[\]"),
        ({"mode": "map", "places": (2, 3), "k": 7}, "k of the label maps: 7; 1 to 6"),
    ],
)
def test_settings_that_make_no_label_are_refused(tmp_path, change, match):
    with pytest.raises(BadInput, match=match):
        LabelStore(tmp_path, settings("views") | change)


def test_labels_of_another_mode_are_not_written(tmp_path):
    store, index = filled(tmp_path, "static"), np.zeros((1, 2), np.int32)
    for labels in ({"logits": np.zeros((4, C))}, {"logits": np.zeros((4, 2), np.float16)}):
        with pytest.raises(BadInput, match="float16.4, 6. is needed"):
            store.write_images(labels)
    with pytest.raises(BadInput, match="has no array label/logits"):
        store.write_images({"values": np.zeros((4, C), np.float16)})
    with pytest.raises(BadInput, match="none in mode static"):
        store.write(1, index, {}, np.zeros((1, 2, C)))
    with pytest.raises(BadInput, match="logits of shape None"):
        filled(tmp_path / "v", "views").write(1, index, {})
