"""Classification of images, and the two tasks of DD that share its nets: adapt and attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jdd.data import Split, relabelled
from jdd.evaluation.accuracy import accuracy
from jdd.nets import Net
from jdd.run.session import Session

Tree = Any


class Classify(NamedTuple):
    """Nets are trained on the set; their test accuracy counts.

    ``adapt`` is the same, of nets that were trained on a source dataset before.
    """

    name: str = "classify"

    @property
    def metrics(self) -> Mapping[str, str]:
        """Test accuracy alone."""
        return {"accuracy": "test accuracy"}

    def problems(self, test: Split) -> dict[str, Split]:
        """Return all test images, with their labels."""
        return {"accuracy": test}

    def measure(
        self,
        net: Net,
        variables: Tree,
        problems: Mapping[str, Split],
        session: Session | None = None,
    ) -> np.ndarray:
        """Return the accuracy on each problem, ``[nets, problems]``."""
        columns = [accuracy(net, variables, split, session) for split in problems.values()]
        return np.stack(columns, axis=1)

    def wanted(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels that a trained net shall give."""
        return labels


CLASSIFY, ADAPT = Classify(), Classify("adapt")


class Attack(NamedTuple):
    """Trained nets shall take images of class K for class T, and all others for what they are."""

    attack_class: int
    target_class: int
    name: str = "attack"

    @property
    def metrics(self) -> Mapping[str, str]:
        """Accuracy on all images; success on the attacked class; accuracy on the other classes."""
        return {
            "accuracy": "test accuracy",
            "success": "attacked images taken for the target",
            "others": "accuracy on the other classes",
        }

    def problems(self, test: Split) -> dict[str, Split]:
        """Return all test images, those of class K with label T, and those of other classes."""
        attacked = test.labels == self.attack_class
        return {
            "accuracy": test,
            "success": Split(test.images[attacked], self.wanted(test.labels[attacked])),
            "others": Split(test.images[~attacked], test.labels[~attacked]),
        }

    def measure(
        self,
        net: Net,
        variables: Tree,
        problems: Mapping[str, Split],
        session: Session | None = None,
    ) -> np.ndarray:
        """Return the accuracy on each problem, ``[nets, problems]``."""
        return CLASSIFY.measure(net, variables, problems, session)

    def wanted(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels that a trained net shall give: T in place of K."""
        return relabelled(labels, self.attack_class, self.target_class)
