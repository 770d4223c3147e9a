"""Learning rate schedules: each kind's parameters, rates, words and printed code.

Rates are computed in float64 and rounded once, on transfer to the device. optax's schedules round
every operation to float32, which would change the bits of trained nets.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jdd.training.option import (
    ABOVE_0,
    TIMES,
    dump,
    figure,
    listed,
    number,
    option,
    read,
    whole,
)

if TYPE_CHECKING:
    from numpy import ndarray


class Schedule(abc.ABC):
    """One kind of schedule; a subclass is a frozen dataclass of its options.

    ``name`` is the kind in a recipe. ``needs`` are the required entries of a recipe.
    ``offered``: a config can select it, by ``--config.eval.schedule=NAME``.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    offered: ClassVar[bool] = False

    @abc.abstractmethod
    def factors(self, steps: int, per_epoch: int) -> ndarray:
        """Return the factors of the rate, ``[steps]`` float64; an epoch has ``per_epoch`` steps."""

    @abc.abstractmethod
    def words(self, steps: int) -> str:
        """Return the schedule in words; ``steps`` is 0 if a training is counted in epochs."""

    @abc.abstractmethod
    def factor_code(self, length: int, unit: int) -> list[str]:
        """Return Python lines that define ``rate``, the factor as a function of iteration t.

        Args:
          length: iterations of the loop.
          unit: iterations per epoch; 1 if each iteration is an epoch.
        """

    def rates(self, rate: float, steps: int, per_epoch: int = 1) -> tuple[float, ...]:
        """Return the rate of every step, ``[steps]``."""
        return tuple(float(r) for r in rate * self.factors(steps, per_epoch))

    def to_json(self) -> dict[str, Any]:
        """Return the entry ``schedule`` of a recipe."""
        return {"kind": self.name} | dump(self)


@dataclasses.dataclass(frozen=True)
class WarmupCosine(Schedule):
    """A ramp of W = min(warmup, steps // 2) steps and a cosine to f = final:

    rate_t = rate t / W                                                     t < W
    rate_t = rate (f + (1 - f) (1 + cos(pi (t - W) / (steps - W))) / 2)     t >= W
    """

    name: ClassVar[str] = "warmup_cosine"
    needs: ClassVar[tuple[str, ...]] = ("warmup", "final")

    warmup: int = option(0, whole(0))
    final: float = option(0.0, number(0))

    def factors(self, steps: int, per_epoch: int) -> ndarray:
        """Return the factors."""
        import numpy as np

        ramp, t = min(int(self.warmup), steps // 2), np.arange(steps)
        fall = (1 + np.cos(np.pi * (t - ramp) / max(steps - ramp, 1))) / 2
        return np.where(t < ramp, t / max(ramp, 1), self.final + (1 - self.final) * fall)

    def words(self, steps: int) -> str:
        """Return the schedule in words."""
        ramp = min(self.warmup, steps // 2) if steps else self.warmup
        end = f"a cosine to {figure(self.final)} of the rate"
        return f"; {ramp} step{'s' * (ramp != 1)} of linear warm-up, then {end}"

    def factor_code(self, length: int, unit: int) -> list[str]:
        """Return the lines that define ``rate``."""
        ramp, f = min(self.warmup, length // 2), self.final
        fall = f"(1 + math.cos(math.pi * (t - {ramp}) / {max(length - ramp, 1)})) / 2"
        rise = f"t / {max(ramp, 1)} if t < {ramp}"
        return [f"rate = lambda t: {rise} else {figure(f)} + {figure(1 - f)} * {fall}"]


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """A cosine, constant within an epoch e of E, with W = warmup epochs and s = stretch; s = 1
    falls to 0, s = 2 to half the rate:

    rate_e = rate (0.01 + 0.99 e / W)                                       e < W
    rate_e = rate (1 + cos(pi (e - W) / (s (E - W)))) / 2                   e >= W
    """

    name: ClassVar[str] = "cosine"

    stretch: float = option(1.0, ABOVE_0, keys=("post.stretch",))
    warmup: int = option(0, whole(0), keys=("post.warmup", "squeeze.warmup"))

    def factors(self, steps: int, per_epoch: int) -> ndarray:
        """Return the factors."""
        import numpy as np

        epochs = -(-steps // per_epoch)
        ramp, e = int(self.warmup), np.arange(steps) // per_epoch
        stretch = float(self.stretch) * max(epochs - ramp, 1)
        fall = (1 + np.cos(np.pi * (e - ramp) / stretch)) / 2
        return np.where(e < ramp, 0.01 + 0.99 * e / max(ramp, 1), fall)

    def words(self, steps: int) -> str:
        """Return the schedule in words."""
        epochs = f"{self.warmup} epoch{'s' * (self.warmup != 1)}"
        first = f"{epochs} of linear warm-up, then " if self.warmup else ""
        last = (1 + math.cos(math.pi / self.stretch)) / 2
        end = {0.0: "0", 0.5: "half of it"}.get(round(last, 3), f"{last:.3g} of it")
        return f"; {first}the rate falls by a cosine to {end}, epoch by epoch"

    def factor_code(self, length: int, unit: int) -> list[str]:
        """Return the lines that define ``rate``."""
        warm, e = self.warmup, _epoch(unit)
        epochs = self.stretch * max(-(-length // unit) - warm, 1)
        since = f"({e} - {warm})" if warm else e
        fall = f"(1 + math.cos(math.pi * {since} / {figure(epochs)})) / 2"
        if not warm:
            return [f"rate = lambda t: {fall}"]
        return [
            f"rate = lambda t: 0.01 + 0.99 * {e} / {warm} if {e} < {warm} \\",
            f"    else {fall}",
        ]


@dataclasses.dataclass(frozen=True)
class Multistep(Schedule):
    """Steps down, constant within an epoch e of E, with g = gamma and milestones m:

    rate_e = rate g^k,   k = the number of m with e >= e(m),
    e(m) = m for m >= 1, an epoch;   e(m) = round(m E) for m < 1, a fraction of the training

    Source: EDC (Shao et al., NeurIPS 2024) trains its students on CIFAR-10 at IPC 1 by
    [800, 900, 950] of 1000 epochs and g = 0.5.
    """

    name: ClassVar[str] = "multistep"
    needs: ClassVar[tuple[str, ...]] = ("milestones", "gamma")
    offered: ClassVar[bool] = True

    milestones: tuple[float, ...] = option(
        (0.5, 0.75), TIMES, keys=("eval.milestones",),
        help="schedule=multistep: when the rate is multiplied by gamma: fractions of the training "
        "below 1, or epochs",
    )  # fmt: skip
    gamma: float = option(
        0.1, number(0), keys=("eval.gamma",),
        help="schedule=multistep: what the rate is multiplied by at each milestone",
    )  # fmt: skip

    def _epochs(self, epochs: int) -> list[int]:
        return [round(m * epochs) if m < 1 else math.ceil(m) for m in sorted(self.milestones)]

    def factors(self, steps: int, per_epoch: int) -> ndarray:
        """Return the factors."""
        import numpy as np

        e, at = np.arange(steps) // per_epoch, self._epochs(-(-steps // per_epoch))
        passed = np.sum([e >= m for m in at], axis=0)
        return np.asarray(np.float64(self.gamma) ** passed)

    def words(self, steps: int) -> str:
        """Return the schedule in words."""
        parts = (
            listed(f"{100 * m:.4g}" for m in sorted(self.milestones) if m < 1)
            if any(m < 1 for m in self.milestones)
            else ""
        )
        later = [m for m in sorted(self.milestones) if m >= 1]
        named = f"epoch{'s' * (len(later) > 1)} {listed(map(figure, later))}" if later else ""
        when = listed(filter(None, (f"after {parts} % of the training" if parts else "",
                                    f"from {named} on" if named else "")))  # fmt: skip
        return f"; the rate is multiplied by {figure(self.gamma)} {when}"

    def factor_code(self, length: int, unit: int) -> list[str]:
        """Return the lines that define ``rate``."""
        at = ", ".join(str(m * unit) for m in self._epochs(-(-length // unit)))
        return [f"rate = lambda t: {figure(self.gamma)} ** sum(t >= m for m in ({at},))"]


@dataclasses.dataclass(frozen=True)
class CosineLinear(Schedule):
    """Half a cosine for five sixths of the E epochs, then a steep line, constant within an epoch e:

    rate_e = rate (1 + cos(pi e / (2 E))) / 2                   e <= 5 E / 6
    rate_e = rate (1 + cos(5 pi / 12)) / 2 (1 - e / E)          e > 5 E / 6

    The line ends at 0 and does not begin where the cosine ends: the rate falls from 0.63 to 0.1 of
    its first value, as published.

    Source: EDC (Shao et al., NeurIPS 2024), early smoothing-later steep schedule ("cos2").
    """

    name: ClassVar[str] = "cosine_linear"
    offered: ClassVar[bool] = True

    def factors(self, steps: int, per_epoch: int) -> ndarray:
        """Return the factors."""
        import numpy as np

        epochs, e = -(-steps // per_epoch), np.arange(steps) // per_epoch
        fall = (1 + np.cos(np.pi * e / (2 * epochs))) / 2
        last = (1 + math.cos(5 * math.pi / 12)) / 2
        return np.where(6 * e <= 5 * epochs, fall, last * (1 - e / epochs))

    def words(self, steps: int) -> str:
        """Return the schedule in words."""
        return (
            "; the rate falls by half a cosine for 5/6 of the epochs, then along a line from a "
            "tenth of it to 0"
        )

    def factor_code(self, length: int, unit: int) -> list[str]:
        """Return the lines that define ``rate``."""
        e, epochs = _epoch(unit), -(-length // unit)
        return [
            f"rate = lambda t: (1 + math.cos(math.pi * {e} / {2 * epochs})) / 2 \\",
            f"    if 6 * {e} <= {5 * epochs} else \\",
            f"    (1 + math.cos(5 * math.pi / 12)) / 2 * (1 - {e} / {epochs})",
        ]


KINDS: dict[str, type[Schedule]] = {
    cls.name: cls for cls in (WarmupCosine, Cosine, Multistep, CosineLinear)
}  # fmt: skip
OFFERED = tuple(name for name, cls in KINDS.items() if cls.offered)


def from_json(found: Mapping[str, Any] | None) -> Schedule | None:
    """Return the schedule of a recipe, None if it has none.

    Raises:
      KeyError: an unknown kind; ``evaluation/rules.py`` refuses it earlier.
    """
    made: Schedule | None = read(KINDS[found["kind"]], found) if found else None
    return made


def _epoch(unit: int) -> str:
    return "t" if unit == 1 else f"(t // {unit})"
