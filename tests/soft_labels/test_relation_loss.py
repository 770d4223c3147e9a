"""A student's step with relation graphs: its loss against one put together here, and refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config, nets
from jdd.augment import views
from jdd.errors import BadInput
from jdd.evaluation import rules, train_eval
from jdd.matching import relations
from jdd.nets import base
from jdd.product import distilled_set
from jdd.soft_labels import targets
from jdd.soft_labels.objective import DistillationLoss
from jdd.stages.evaluate import with_hard_loss
from jdd.training import orders, trainer
from jdd.training.recipe import Recipe
from tests.tiny_distilled import make

B, C, SHAPE = 4, 3, (8, 8, 3)
WEIGHTS = relations.Weights(edges=2.0, transformations=0.5)


def lesson(recipe, mode, teachers):
    """Return a loss, images, labels of one step and the teachers' variables."""
    made = DistillationLoss("logits", C, recipe.static, mode, teachers, "eval", "mean")
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.normal(size=(B, *SHAPE)), jnp.float32)
    view = views.draw(jax.random.key(1), B, SHAPE, views.Spec(mix="cutmix"))
    own = tuple(net.init(jax.random.key(5 + i)) for i, net in enumerate(teachers))
    soft = {"logits": jnp.asarray(draw.normal(size=(1, B, C)), jnp.float16)}
    labels = {
        "index": jnp.arange(B)[None], "views": {k: a[None] for k, a in views.pack(view).items()},
        "soft": soft if mode == "views" else {}, "each": {}, "first": jnp.int32(0),
        "classes": jnp.asarray([0, 1, 2, 0]), "teachers": own,
    }  # fmt: skip
    return made, images, labels, views.apply(images, view)


@pytest.mark.parametrize(("mode", "parts"), [("views", 2), ("online", 1)])
def test_a_students_loss_has_the_graphs_of_each_teacher(mode, parts, monkeypatch):
    monkeypatch.setattr(base, "PART", 1)  # a batch is not cut as the caches would have it
    student = nets.make("MLP", SHAPE, C, width=4)
    pair = tuple(nets.make("MLP", SHAPE, C, True, width=w) for w in (4, 6))
    recipe = Recipe(
        order="stored", batch=B, loss="kl", temperature=2.0, parts=parts, classes=C,
        irg_edges=2.0, irg_transformations=0.5,
    )  # fmt: skip
    made, images, labels, x = lesson(recipe, mode, pair)
    assert made.online and made.weights == WEIGHTS
    run = trainer.make(student, recipe.replace(distillation=made), B)
    carry = run.init(jax.random.key(0))
    keys = orders.Keys(jax.random.key(1), jax.random.key(2))
    given = (carry, keys, images, labels, jnp.float32(0.1), 0, 1)
    found = float(jax.jit(run.advance)(*given)[1])

    theirs = [net.apply(v, x, taps=True) for net, v in zip(pair, labels["teachers"], strict=True)]
    mean = (theirs[0].logits + theirs[1].logits) / 2
    soft = mean if mode == "online" else labels["soft"]["logits"][0].astype(jnp.float32)
    wanted = 0.0
    for rows in np.split(np.arange(B), parts):
        out = student.apply(carry["variables"], x[rows], train=True, taps=True)
        read = [relations.read(one) for one in theirs]
        read = jax.tree.map(lambda a, rows=rows: a[rows], read)
        graphs = relations.loss(read, relations.read(out), WEIGHTS)
        assert float(graphs) > 1e-3
        wanted += float(targets.kl(soft[rows], out.logits, 2.0) + graphs) / parts
    assert found == pytest.approx(wanted, rel=1e-4)


def test_what_has_no_teachers_or_no_graph_is_refused():
    dset = distilled_set.validate(make(), "made")
    train = dset.recipe["train"] | {"irg_edges": 0.1}
    with pytest.raises(BadInput, match="relation graphs .* order 'shuffled'; order 'stored'"):
        rules.validate_recipe(dset.with_recipe(dset.recipe | {"train": train}), "the set")
    for given, words in (
        ({"post.ref_bugs": True}, "config.post.ref_bugs: true without .*irg_edges; .*=0.005"),
        ({"post.irg_edges": -1}, "config.post.irg_edges: -1; .*0 or more"),
    ):
        with pytest.raises(BadInput, match=words):
            config.resolve(config.load("sre2l:digits", given).config)


def test_hard_labels_ask_no_teacher_for_graphs_and_the_report_names_them():
    dset = distilled_set.validate(make(), "made")
    own = {"irg_edges": 0.005, "irg_half": True, "loss": "kl", "order": "stored"}
    recipe = dset.recipe | {"train": dset.recipe["train"] | own}
    recipe["labels"] = {"kind": "stored", "store": "labels/set", "form": "logits", "teachers": []}
    taught = dset.with_recipe(recipe)
    loss = train_eval.distillation(taught)
    assert loss is not None and loss.online and loss.weights.half
    plain = train_eval.distillation(with_hard_loss(taught))
    assert plain is not None and not plain.online and not plain.weights.any
    words = Recipe.from_json(recipe["train"]).sentence("loss")
    assert words.endswith(
        "+ the distance of the batch's graph from the teachers' (0.005 × edges, half the edges' "
        "derivative)"
    )
