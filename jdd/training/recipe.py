"""The training recipe: every option of training a net, declared once.

A field of ``Recipe`` declares an option's default, its validation, its words in the report, its
printed PyTorch code and the config keys that set it (``training/option.py``); longer words and code
are in ``training/printed.py``. The mathematics is in ``training/trainer.py``. To add an option,
declare a field here and implement it there.

In a distilled set the recipe is the JSON object ``recipe["train"]``, ``to_json`` and ``from_json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jdd.training import option as options_
from jdd.training import printed, schedules
from jdd.training.option import (
    ABOVE_0,
    OBJECT,
    WHOLE,
    Rule,
    figure,
    is_number,
    number,
    one_of,
    option,
    or_null,
    whole,
)
from jdd.training.schedules import Schedule

if TYPE_CHECKING:
    from jdd.soft_labels.objective import DistillationLoss

DECAYS = ("all", "matrices")
ORDERS = ("shuffled", "sequential", "classwise", "stored", "drawn")
LOSSES = ("cross_entropy", "squared_error")  # on labels in the set itself
RELATIONS = ("irg_edges", "irg_transformations", "irg_vertices")  # weights, 0: off
AS_RECIPE = "recipe"  # eval.schedule: the set's own
_SHARE = Rule(
    lambda v: is_number(v) and 0 <= v < 1, "a number, 0 or more and below 1", float, minimum=0
)


def _are_norms(value: Any) -> bool:
    found = value.split(",") if isinstance(value, str) else []
    return bool(found) and set(found) <= set(printed.NORMS) and len(set(found)) == len(found)


TEST_NORM = Rule(
    _are_norms, f"one of {', '.join(printed.NORMS)}, or several joined by commas, each once", str
)


@dataclasses.dataclass(frozen=True)
class Drop:
    """A single drop of the rate: after epoch ``after_epoch`` (from 0) it is multiplied by
    ``factor`` and the optimiser's state is reset.
    """

    after_epoch: int = option(501, WHOLE)
    factor: float = option(0.1, number(0))
    reset_momentum: bool = option(True, Rule(lambda v: v is True, "true"))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Static training configuration. Hashable by value: ``static``, the recipe without its traced
    options, keys compiled programs.

    ``lr`` is one rate, one rate for every step, or None: the set's learned rate. A training has
    ``steps`` steps, else ``passes`` over the images; ``epochs`` is the number named by the
    protocol, one below ``passes`` in the published one. ``order``: see ``training/trainer.py``.
    ``parts``: the gradient of a batch is the mean over this many equal parts, computed one after
    another; batch norm sees one part at a time and updates its running statistics by each. An
    epoch's short last batch is cut into parts of the same size and a remainder. ``norm_updates``:
    the number of updates of the running batch-norm statistics per step, all on the same batch.

    ``rates``, of pairs with learned rates: each tower at its own, or both at the image tower's.
    ``test_every``, of pairs: nets are tested after epochs 0, k, 2k, ... (from 0) and at the end.

    ``ema``: with d > 0, after every step  a <- d a + (1 - d) w,  a_0 = w_0, of the weights w. The
    tested net has the weights a and the running batch-norm statistics of the trained net, as EDC's
    students have. The trainer's ``evaluated`` returns it.

    ``test_norm``: the statistics by which batch norm of tested nets normalises, of
    ``printed.NORMS`` one or
    several joined by commas, of which the first counts: ``evaluation/norms.py``.

    ``cutmix``: the probability that a step mixes its batch (Yun et al., ICCV 2019): a box of
    another image of the batch, lambda ~ U(0, 1), one box for all, and targets mixed by its area.

    ``irg_edges``, ``irg_transformations``, ``irg_vertices``, of sets with stored labels: weights of
    the distance between the relation graphs of a student and of its teachers, which run in the
    student's step for it; ``irg_half``: with the published derivative (``matching/relations.py``).

    ``factor``, of fixed sets: each stored image stands for factor^2 training images, which
    ``augment/formation.py`` decodes before training (``train_eval.formed``).

    The last fields are in no recipe of a set: they follow from the data, the labels or the nets.
    ``sam_rho`` and ``sam_alpha``: see ``trainer.flat_gradient``. ``balanced``, of hard labels in
    shuffled order: every epoch has as many images of each class (``orders.balanced``). ``augment``
    is one of ``augment.KINDS``, ``strategy`` its operations, '' for none. ``distillation``: the
    loss on stored labels, for ``order="stored"``.
    """

    optimizer: str = option(
        "sgd", one_of(*printed.OPTIMIZERS), row="optimiser", words=printed.optimiser_words,
        code={"make": printed.optimiser_code}, keys=("post.optimizer", "squeeze.optimizer"),
    )  # fmt: skip
    lr: float | tuple[float, ...] | None = option(
        None,
        Rule(lambda v: True, "a number above 0, or one for every step"),  # rules.rate: learned too
        code={"argument": lambda r: [f"lr={r.lr:.6g}"]},
        traced=True,
    )
    momentum: float = option(
        0.9, number(0, 1), row="optimiser",
        words=lambda r: f", momentum {figure(r.momentum)}" if r.optimizer == "sgd" else "",
        code={"argument": lambda r: [f"momentum={figure(r.momentum)}"] * (r.optimizer == "sgd")},
        keys=("post.momentum", "squeeze.momentum", "experts.momentum"),
    )  # fmt: skip
    weight_decay: float = option(
        5e-4, number(0), row="optimiser",
        words=lambda r: f", weight decay {figure(r.weight_decay)}",
        code={"argument": lambda r: [f"weight_decay={figure(r.weight_decay)}"]},
        keys=("post.weight_decay", "squeeze.weight_decay", "experts.weight_decay"),
    )  # fmt: skip
    decay: str = option(
        DECAYS[0], one_of(*DECAYS), row="optimiser", words=printed.decay_words,
        keys=("post.decay",), stored=True,
    )  # fmt: skip
    epochs: int = option(
        1000, whole(0), row="schedule", traced=True, keys=("eval.epochs",),
        words=lambda r: "" if r.steps else f"{r.epochs} epoch{'s' * (r.epochs != 1)} in ",
    )  # fmt: skip
    passes: int | None = option(1001, or_null(whole(0)), traced=True)
    steps: int | None = option(
        None, or_null(whole(0)), row="schedule", traced=True, keys=("eval.steps",),
        words=lambda r: f"{r.steps} steps, " if r.steps else "",
    )  # fmt: skip
    batch: int = option(
        256, whole(1), row="schedule", words=printed.batch_words,
        keys=("eval.batch", "squeeze.batch", "experts.batch"),
    )  # fmt: skip
    order: str = option(
        ORDERS[0], one_of(*ORDERS), row="schedule",
        words=lambda r: printed.ORDER_WORDS.get(r.order, ""),
    )  # fmt: skip
    per_class: int = option(0, whole(0))
    classes_per_step: int = option(0, whole(0))
    parts: int = option(
        1, whole(1), row="schedule", words=printed.parts_words,
        code={"step": printed.parts_code}, later=True,
        keys=("post.accumulate", "squeeze.accumulate"),
    )  # fmt: skip
    norm_updates: int = option(1, whole(1), row="schedule", words=printed.updates_words, later=True)
    schedule: Schedule | None = option(
        None, or_null(OBJECT), row="schedule", traced=True,
        words=lambda r: r.schedule.words(r.steps or 0) if r.schedule else "",
    )  # fmt: skip
    drop: Drop | None = option(
        None, or_null(OBJECT), row="schedule", words=printed.drop_words,
        code={"turn": printed.drop_code},
    )  # fmt: skip
    rates: str = option(
        "own", one_of("own", "image"), row="schedule", later=True, traced=True,
        words=lambda r: "; both towers at the learned rate of the image tower"
        if r.rates == "image" and r.lr is None else "",
    )  # fmt: skip
    test_every: int = option(
        0, whole(0), row="schedule", later=True, traced=True,
        words=lambda r: f"; tested every {r.test_every} epochs too, the best of these in a column "
        "of its own" if r.test_every else "",
    )  # fmt: skip
    loss: str = option(
        LOSSES[0],
        one_of(*LOSSES, *printed.PAIRED, *printed.STORED),
        row="loss",
        words=printed.loss_words,
        keys=("post.loss",),
    )
    temperature: float = option(1.0, ABOVE_0, keys=("post.temperature",), stored=True)
    ce_weight: float = option(0.0, number(0), keys=("post.ce_weight",), stored=True)
    ema: float = option(
        0.0, _SHARE, row="schedule", later=True, keys=("eval.ema",),
        help="nets are tested with an exponential average of their weights, a <- d a + (1 - d) w "
        "after every step: d, such as 0.99 (0: with their last weights)",
        words=lambda r: f"; tested is the average of the weights, a ← {figure(r.ema)} a + "
        f"{figure(1 - r.ema)} w after every step" if r.ema else "",
        code={
            "make": lambda r: ["average = [p.detach().clone() for p in net.parameters()]"]
            * bool(r.ema),
            "step": lambda r: [
                "for a, p in zip(average, net.parameters()):",
                f"    a.lerp_(p.detach(), 1 - {figure(r.ema)})",
            ] * bool(r.ema),
            "end": lambda r: [
                "for a, p in zip(average, net.parameters()):",
                "    p.data.copy_(a)  # batch norm keeps its running statistics",
            ] * bool(r.ema),
        },
    )  # fmt: skip
    test_norm: str = option(
        "running", TEST_NORM, row="schedule", later=True,
        keys=("eval.test_norm",),
        help="statistics by which batch norm of tested nets normalises: running ones, those of "
        "every 200 test images (batch), recalibrated on the set (set) or on unlabelled real "
        "training images (real); several, as in running,set,real: a column each, the first counts",
        words=printed.norm_words, code={"end": printed.norm_code},
    )  # fmt: skip
    cutmix: float = option(
        0.0, number(0, 1), row="loss", later=True, keys=("eval.cutmix",),
        help="chance that a step shows its batch with CutMix: a box of another image, labels mixed "
        "by its area (0: never)",
        words=lambda r: f"; CutMix with chance {figure(r.cutmix)}" if r.cutmix else "",
    )  # fmt: skip
    irg_edges: float = option(
        0.0, number(0), row="loss", later=True, words=printed.relation_words,
        keys=("post.irg_edges",),
    )  # fmt: skip
    irg_transformations: float = option(
        0.0, number(0), later=True, keys=("post.irg_transformations",)
    )
    irg_vertices: float = option(0.0, number(0), later=True, keys=("post.irg_vertices",))
    irg_half: bool = option(
        False, Rule(lambda v: isinstance(v, bool), "true or false", bool), later=True,
        keys=("post.ref_bugs",),
    )  # fmt: skip
    factor: int = option(
        1, whole(1), row="schedule", later=True, words=printed.factor_words,
        code={"set": printed.factor_code},
    )  # fmt: skip
    sam_rho: float = option(0.0, None, keys=("experts.sam_rho",))
    sam_alpha: float = option(0.0, None, keys=("experts.sam_alpha",))
    balanced: bool = option(False, None, keys=("experts.balanced", "squeeze.balanced"))
    augment: str = "dsa"
    strategy: str = ""
    align_corners: bool = True
    label_kind: str = "hard"
    classes: int = 10
    distillation: DistillationLoss | None = None

    def replace(self, **changes: Any) -> Recipe:
        """Return the recipe with other values of some fields."""
        return dataclasses.replace(self, **changes)

    @property
    def static(self) -> Recipe:
        """The recipe without its traced options: the key of a compiled program."""
        traced = (one for one in options_.options(Recipe) if one.traced)
        return self.replace(**{one.name: one.default for one in traced})

    @property
    def relates(self) -> bool:
        """True if the relation graphs of students and teachers are compared."""
        return any(getattr(self, name) for name in RELATIONS)

    def steps_per_epoch(self, n: int) -> int:
        """Return S, the steps of an epoch of ``n`` images:

        ceil(n / b) with the order shuffled or stored, whose last batch may be shorter, and drawn;
        floor(n / b) with sequential; 1 with classwise. b = min(batch, n).
        """
        if self.order == "classwise":
            return 1
        batch = min(self.batch, n)
        return n // batch if self.order == "sequential" else -(-n // batch)

    @property
    def total_passes(self) -> int:
        """The passes over the set of a training without ``steps``."""
        return self.passes or self.epochs + 1

    def total_steps(self, n: int) -> int:
        """Return the steps of a training on ``n`` images: ``steps``, or those of all passes."""
        return self.steps or self.total_passes * self.steps_per_epoch(n)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a set; missing entries have their defaults.

        Args:
          found: ``recipe["train"]``, which ``evaluation/rules.py`` allows.
        """
        drop = found.get("drop")
        plain = {name: value for name, value in found.items() if name not in ("drop", "schedule")}
        made: Recipe = options_.read(cls, plain)
        return made.replace(
            drop=options_.read(Drop, drop) if drop else None,
            schedule=schedules.from_json(found.get("schedule")),
        )

    def to_json(self, whole: bool = False) -> dict[str, Any]:
        """Return the recipe in the form stored in a set.

        Args:
          whole: include the options that only sets of stored labels write.
        """
        out = options_.dump(self)
        for one in options_.options(Recipe):
            default = getattr(self, one.name) == one.default
            unused = one.stored and not whole and self.order != "stored"
            if default and (one.later or unused):
                out.pop(one.name, None)
        out["drop"] = options_.dump(self.drop) if self.drop else None
        out["schedule"] = self.schedule.to_json() if self.schedule else None
        return out

    def sentence(self, row: str) -> str:
        """Return the report's words for the options of a row: optimiser, schedule or loss."""
        parts = (
            one.words(self) for one in options_.options(Recipe) if one.row == row and one.words
        )
        return "".join(parts)

    def code(self, place: str) -> list[str]:
        """Return lines of the report's PyTorch program.

        Args:
          place: "set", when the set is read; "make", before the loop; "argument", of the optimiser;
            "step"; "turn", at the end of an epoch; "end", after the loop.
        """
        made = (one.code[place](self) for one in options_.options(Recipe) if place in one.code)
        return [line for lines in made for line in lines]


def protocol(epochs: int = 1000, batch: int = 256, lr: float | None = None) -> Recipe:
    """Return the published protocol: E + 1 passes, the rate divided by 10 after pass E // 2 + 1.

    Source: the protocol DC, DSA, DM and MTT share (facts in each paper's experiments section).
    """
    drop = Drop(epochs // 2 + 1)
    return Recipe(lr=lr, batch=batch, epochs=epochs, passes=epochs + 1, drop=drop)


def of_keys(**groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields set by groups of a config, as in ``of_keys(post=section(c.post))``."""
    found: dict[str, Any] = {}
    for name, group in groups.items():
        found |= options_.bound(Recipe, name, group)
    return found


def with_eval_keys(train: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a set's ``recipe["train"]`` with the ``eval.*`` keys of this module applied.

    Args:
      group: the values of these keys, by their last part: ``ema``, ``schedule`` ...
        A default value changes only an existing entry.
    """
    out = dict(train)
    values = options_.bound(Recipe, "eval", group)
    for one in options_.options(Recipe):
        if one.help and one.name in values:
            if values[one.name] != one.default or one.name in train:
                out[one.name] = values[one.name]
    found, kind = train.get("schedule") or {}, group.get("schedule", AS_RECIPE)
    if kind == AS_RECIPE and found.get("kind") in schedules.OFFERED:
        kind = found["kind"]
    if kind != AS_RECIPE:
        cls: Any = schedules.KINDS[kind]
        made: Any = schedules.from_json(found) if found.get("kind") == kind else cls()
        changed = dataclasses.replace(made, **options_.bound(cls, "eval", group))
        out |= {"schedule": changed.to_json(), "drop": None}
    if (optimizer := group.get("optimizer", AS_RECIPE)) != AS_RECIPE:
        out["optimizer"] = optimizer
    return out


def eval_keys(train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``eval.*`` keys that reproduce a set's entries; inverse of ``with_eval_keys``."""
    known = {one.keys[0]: train[one.name] for one in options_.options(Recipe)
             if one.help and one.name in train}  # fmt: skip
    found = train.get("schedule") or {}
    if found.get("kind") in schedules.OFFERED:
        cls = schedules.KINDS[found["kind"]]
        known |= {one.keys[0]: found[one.name] for one in options_.options(cls)}
        known["eval.schedule"] = found["kind"]
    return known
