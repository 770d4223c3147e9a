"""How far is TESLA's gradient from the exact one?

    python -m jdd.main --config=configs/mtt.py:digits --mode=experts --workdir=runs/departure
    python -m benchmarks.tesla_departure --workdir=runs/departure

MTT's settings for digits, the images of step 0, real ones. Both estimators get the same expert
segments and the same augmentation draws. Printed and drawn: the cosine between the two gradients of
the images and the ratio of their lengths, means over segments, against the student's steps N and
its rate beta.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdd import config, methods, rng
from jdd.run import pipeline

STEPS, RATES = (1, 2, 5, 10, 15, 25, 50), (0.001, 0.005, 0.01, 0.02, 0.05)


def gradients(place: Path, segments: int, **keys: Any) -> np.ndarray:
    """Return the image gradient of each expert segment at the first images, ``[segments, d]``."""
    overrides = {"segments": segments, "progress": False, **keys}
    resolved, _ = config.resolve(config.load("mtt:digits", overrides).config)
    context = pipeline.prepare(resolved, place, "")
    method = methods.make(context.config, context.problem)
    state = method.init(0)
    batch = context.problem.gather(method.sample(0, 0))

    @jax.jit
    def gradient(item: Any, key: jax.Array) -> jax.Array:
        def loss(variables: Any) -> jax.Array:
            return method.objective(variables, state.aux, item, key)[0]

        return jax.grad(loss)(state.variables)["images"]

    found = [
        gradient(jax.tree.map(lambda x, i=i: x[i], batch), rng.key(0, "departure", i))
        for i in range(segments)
    ]
    return np.stack([np.asarray(g).ravel() for g in found])


def compare(place: Path, segments: int, **keys: Any) -> tuple[float, float]:
    """Return the mean cosine of TESLA's and the exact gradient, and their mean ratio of lengths."""
    exact, tesla = (gradients(place, segments, estimator=e, **keys) for e in ("exact", "tesla"))
    lengths = np.linalg.norm(exact, axis=1), np.linalg.norm(tesla, axis=1)
    cosine = np.sum(exact * tesla, axis=1) / (lengths[0] * lengths[1])
    return float(cosine.mean()), float((lengths[1] / lengths[0]).mean())


def draw(rows: dict[str, list[tuple[float, float, float]]], path: Path) -> None:
    """Draw cosine and ratio of lengths against N and against beta."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for axis, (name, points) in zip(axes, rows.items(), strict=True):
        x, cosine, ratio = zip(*points, strict=True)
        axis.plot(x, cosine, "o-", label="cosine with the exact gradient")
        axis.plot(x, ratio, "s--", label="length over the exact one's")
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xlabel(name)
        axis.set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    figure.suptitle("TESLA's image gradient beside the exact one (digits)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, default=Path("runs/departure"))
    parser.add_argument("--segments", type=int, default=16)
    parser.add_argument("--plot", type=Path, default=Path("docs/img/tesla_departure.png"))
    flags = parser.parse_args()
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for name, key, values, rest in (
        ("student steps N, at beta 0.02", "syn_steps", STEPS, {"lr_student": 0.02}),
        ("rate beta, at N = 15", "lr_student", RATES, {"syn_steps": 15}),
    ):
        print(f"{name}: cosine, length ratio")
        rows[name] = []
        for value in values:
            found = compare(flags.workdir, flags.segments, **{key: value}, **rest)
            print(f"  {value:<6} {found[0]:.3f} {found[1]:.2f}", flush=True)
            rows[name].append((value, *found))
    draw(rows, flags.plot)
    print(flags.plot)


if __name__ == "__main__":
    main()
