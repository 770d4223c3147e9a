"""Stage ``quality``: how good a generator's images are, in features of a classifier.

Every synthesis seed is measured once; figures are in ``checkpoints/quality.json``, the images of
the report in ``checkpoints/quality[-sSEED].npz``. Generated images have the classes of the real
ones that they are compared with. Real test images are measured in the same way, for reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.errors import BadInput
from jdd.generative import quality
from jdd.product.generator import BATCH, GeneratorSet
from jdd.product.html import pixels
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.stages import classifier
from jdd.stages.base import Estimate, Stage, pace, timed
from jdd.stages.classifier import measured, real
from jdd.stages.costs import example
from jdd.storage import npz_cache

ALIKE = 200  # images whose nearest training image is searched
CLASSES, EACH, PATH = 10, 5, 9  # shown: classes, images of each, images from one latent to another
NEAR = 0.05  # share of training images that are nearer to another one than the threshold


def in_space(context: RunContext, product: GeneratorSet, images: np.ndarray) -> np.ndarray:
    """Return a generator's images in the input space of the run's data."""
    ours, theirs = context.data.transform, product.transform
    same = (
        not theirs.whitens
        and not ours.whitens
        and all(
            np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("mean", "std")
        )
    )
    return images if same else ours.forward(theirs.inverse(images))


def _keys(context: RunContext) -> dict[int, str]:
    """Return the key of each seed's figures; {} if the products are no generators."""
    found, keys = classifier.keys(context), dict[int, str]()
    if found is None:
        return keys
    for seed in context.seeds:
        product = context.load_set(seed)
        if isinstance(product, GeneratorSet):
            own = [product.recipe["fingerprint"], seed, found.images, found.k]
            keys[seed] = fingerprint([*own, classifier.identity(context)])
    return keys


def _run(context: RunContext, session: Session) -> None:
    session.metrics.start("quality")
    known = context.recall("quality")
    for at, (seed, key) in enumerate(_keys(context).items(), 1):
        found = known.get(key) if _stored(context, seed, key) else None
        if found is None:
            if (file := artefact(context, seed)).exists() and key in known:
                what = "damaged, or of other settings; the images are drawn again"
                session.warn(f"{file}: {what}")
                (context.workdir / "report.html").unlink(missing_ok=True)  # shows them
            found = _of_seed(context, seed, key, session)
        scalars = {k: v for k, v in found.items() if isinstance(v, float)}
        session.metrics.log("quality", at, **scalars, n=found["n"], seed=seed)
        if key not in known:  # last: with it the seed is complete
            context.remember("quality", key, found)


def _of_seed(context: RunContext, seed: int, key: str, session: Session) -> dict[str, Any]:
    """Measure one generator and store its images for the report."""
    found, product = classifier.keys(context), context.load_set(seed)
    assert found is not None and isinstance(product, GeneratorSet)
    net = classifier.trained(context, session)
    to = real(context, net, found.images, session)
    images = _drawn(product, seed, to.labels, session)
    if not np.isfinite(images).all():
        raise BadInput("quality", "the generator draws NaN or infinity", "train it anew")
    held = real(context, net, found.images, session, test=True)
    tested = context.data.test.images[held.rows]
    alike, typical = _memory(context, product, images, session)
    _store(context, product, seed, key, typical)
    return {
        **measured(net, to, in_space(context, product, images), to.labels, found.k, session),
        "n": len(images),
        "k": found.k,
        "real": len(to.rows),
        "classifier": net.facts | {"features": to.features.shape[1]},
        "test": measured(net, to, tested, held.labels, found.k, session) | {"n": len(tested)},
        "memory": alike,
        "storage": {
            "parameters": product.parameters,
            "bytes": product.stored_bytes,
            "images_of_equal_bytes": product.equal_images,
        },
    }


def _drawn(product: GeneratorSet, seed: int, labels: np.ndarray, session: Session) -> np.ndarray:
    """Return images of these classes, with the progress shown."""
    bar, found = session.bar(len(labels), "quality"), []
    key = rng.stream(seed, "quality/draw")
    for lo in range(0, len(labels), BATCH):
        session.check()
        rows = labels[lo : lo + BATCH]
        few = np.pad(rows, (0, min(BATCH, len(labels)) - len(rows)))
        found.append(product.drawn(jax.random.fold_in(key, lo), few)[: len(rows)])
        bar.update(lo + len(rows))
    bar.close()
    return np.concatenate(found)


def _memory(
    context: RunContext, product: GeneratorSet, images: np.ndarray, session: Session
) -> tuple[dict[str, Any], float]:
    """Compare generated images' distance to their nearest training image with that of real ones.

    Returns:
      The figures, and the median distance of a training image to the nearest other one.
    """
    train, inverse = context.data.train, context.data.transform.inverse
    rows = np.sort(rng.host(0, "quality/alike").permutation(train.size)[:ALIKE])
    session.check()
    among = quality.nearest(inverse(train.images[rows]), train.images, inverse, rows).distance
    session.check()
    made = quality.nearest(product.transform.inverse(images[:ALIKE]), train.images, inverse)
    typical, threshold = float(np.median(among)), float(np.quantile(among, NEAR))
    return {
        "median": float(np.median(made.distance)),
        "typical": typical,
        "nearer": float((made.distance < threshold).mean()),
        "expected": NEAR,
        "n": len(made.distance),
    }, typical


def _store(context: RunContext, product: GeneratorSet, seed: int, key: str, typical: float) -> None:
    """Store the report's images: some of each class, the nearest real ones, and paths."""
    train, inverse = context.data.train, context.data.transform.inverse
    classes = min(CLASSES, product.classes)
    labels = np.repeat(np.arange(classes, dtype=np.int32), EACH)
    images = product.drawn(rng.key(seed, "quality/shown"), labels)
    found = quality.nearest(product.transform.inverse(images), train.images, inverse)
    ends = np.asarray(
        jax.random.normal(
            rng.key(seed, "quality/path"), (2, classes, product.architecture["latent"])
        )
    )
    paths = np.concatenate([quality.between(a, b, PATH) for a, b in zip(*ends, strict=True)])
    ways = product.apply(jnp.asarray(paths, jnp.float32), jnp.repeat(jnp.arange(classes), PATH))
    npz_cache.write(
        artefact(context, seed),
        {"key": key},
        {
            "images": pixels(images, product.transform),
            "nearest": pixels(train.images[found.row], context.data.transform),
            "ratio": found.distance / max(typical, 1e-12),
            "labels": labels,
            "paths": pixels(np.asarray(ways), product.transform),
        },
    )


def artefact(context: RunContext, seed: int) -> Path:
    """Return the file of a seed's images for the report."""
    return context.workdir / "checkpoints" / f"quality{context.suffix(seed)}.npz"


def _stored(context: RunContext, seed: int, key: str) -> bool:
    """Return whether a seed's images for the report are there, whole, and of these settings."""
    return npz_cache.read(artefact(context, seed), {"key": key}) is not None


def results(context: RunContext) -> dict[str, Any] | None:
    """Return the figures as stored in result.json; None if they are off or not yet measured.

    Of several synthesis seeds: the mean of each figure, and each seed's own under ``seeds``.
    """
    found = classifier.keys(context)
    if found is None or not found.images:
        return None
    if not all(context.set_path(seed).exists() for seed in context.seeds):
        return None
    keys, known = _keys(context), context.recall("quality")
    if not keys or not all(key in known for key in keys.values()):
        return None
    every = {str(seed): known[key] for seed, key in keys.items()}
    first = next(iter(every.values()))
    again = context.recall("quality-reconstruction")
    more = {"reconstruction": again} if again else {}
    if len(every) == 1:
        return first | more
    names = [name for name, value in first.items() if isinstance(value, float)]
    means = {name: float(np.mean([one[name] for one in every.values()])) for name in names}
    return {**first, **means, **more, "seeds": every}


def _done(context: RunContext) -> bool:
    if not all(context.set_path(seed).exists() for seed in context.seeds):
        return False
    known = context.recall("quality")
    return all(key in known and _stored(context, seed, key) for seed, key in _keys(context).items())


def _estimate(context: RunContext) -> Estimate:
    """Estimate the classifier's training and the drawing of images."""
    found, cost = classifier.keys(context), classifier.estimate(context)
    assert found is not None
    product = example(context)
    if not isinstance(product, GeneratorSet):
        return cost
    labels = np.zeros(min(BATCH, found.images), np.int32)
    seconds = timed(lambda: product.drawn(rng.key(0, "estimate"), labels), 1)
    batches = len(context.seeds) * (-(-found.images // BATCH) + 2)
    note = f"{cost.note}; {found.images} images, {pace(seconds)} for {len(labels)}"
    return cost._replace(seconds=cost.seconds + batches * seconds, note=note)


STAGE = Stage(
    name="quality",
    fingerprint=lambda context: fingerprint(results(context)),
    run=_run,
    estimate=_estimate,
    done=_done,
    logged=lambda context: [classifier.LINE, "quality"],
)
