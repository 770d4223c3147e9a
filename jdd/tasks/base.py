"""What a task is to the rest of jdd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jdd.nets import Net
from jdd.run.session import Session

Tree = Any
Summary = dict[str, Any]


class Task(Protocol):
    """A task: what nets trained on a product are tested on, and the metrics of it."""

    @property
    def name(self) -> str:
        """One of ``tasks.NAMES``."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """Each metric's name and its words, the primary one first. Metrics are fractions."""

    def problems(self, test: Any) -> dict[str, Any]:
        """Return what nets are tested on, by problem: splits of the test data.

        Args:
          test: the test split, in the input space of the nets.
        """

    def wanted(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels that a trained net shall give to images of these labels, ``[n]``."""

    def measure(
        self, net: Net, variables: Tree, problems: Mapping[str, Any], session: Session | None
    ) -> np.ndarray:
        """Return every metric of each net, ``[nets, metrics]``, in the order of ``metrics``.

        Args:
          variables: of the nets, stacked on axis 0.
          problems: as ``problems`` returned them.
          session: None, or where a signal is heard between batches.

        Raises:
          Interrupted: with a session, when a signal arrives.
        """


def tester(task: Task, problems: Mapping[str, Any]) -> Callable[[Net, Tree, Session], np.ndarray]:
    """Return ``(net, variables, session) -> [nets, metrics]``: ``task.measure`` on ``problems``."""

    def tested(net: Net, variables: Tree, session: Session) -> np.ndarray:
        return task.measure(net, variables, problems, session)

    return tested


def primary(task: Task) -> str:
    """Return the name of a task's primary metric."""
    return next(iter(task.metrics))


def summary(values: Sequence[float] | np.ndarray) -> Summary:
    """Return mean, population std (None for one value), n and the values of one metric."""
    array = np.asarray(values, np.float64)
    spread = float(array.std()) if len(array) > 1 else None
    return {
        "mean": float(array.mean()),
        "std": spread,
        "n": len(array),
        "values": [float(v) for v in array],
    }


def summaries(metrics: Iterable[str], found: np.ndarray) -> Summary:
    """Return the summary of the primary metric, those of the others in it by their names.

    Args:
      found: ``[nets, metrics]``.
    """
    first, *more = (summary(column) for column in found.T)
    return {**first, **dict(zip(list(metrics)[1:], more, strict=True))}


def curve_point(task: Task, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scalars that the curve logs of a summary: every metric's mean; std and n."""
    first, *more = task.metrics
    own = {name: found[name]["mean"] for name in more if name in found}
    return {first: found["mean"], "std": found["std"], "n": found["n"], **own}


def merged(found: Sequence[Mapping[str, Any]]) -> Summary:
    """Return one summary of several, over all their values; nested summaries alike.

    "epochs", the tests that a best one is of, are those of the first.
    """
    nested = [name for name, value in found[0].items() if isinstance(value, Mapping)]
    whole = summary([value for one in found for value in one["values"]])
    whole |= {name: merged([one[name] for one in found]) for name in nested}
    return whole | ({"epochs": found[0]["epochs"]} if "epochs" in found[0] else {})
