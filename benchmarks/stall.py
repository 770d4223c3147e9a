"""What it costs a squeeze that its images come from the disk, and how long it waits for them.

    python -m benchmarks.stall                              generated 64 x 64 images
    python -m benchmarks.stall --path=DIR --size=64         a dataset of your own, as data.path

Trains a teacher (--net, --width) for --epochs epochs of --n images, in batches of --batch, once
with the images in memory and once streamed, and prints a row of a Markdown table: images a second
of the epochs after the first, which compiles, and the fraction of these epochs' time in which the
streamed training waited for images. It holds for this net: a smaller one waits longer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdd import config
from jdd.run import metrics, pipeline

HEAD = "| net | images | batch | device | in memory, images/s | streamed, images/s | stall |"


def generated(place: Path, n: int, size: int, classes: int = 10) -> Path:
    """Write a ``.npz`` of ``n`` noisy images whose classes differ in colour."""
    draw = np.random.default_rng(0)
    labels = np.arange(n) % classes
    images = np.empty((n, size, size, 3), np.uint8)
    colours = draw.integers(60, 196, (classes, 3))
    for i, label in enumerate(labels):
        noise = draw.integers(-60, 60, (size, size, 3))
        images[i] = (colours[label] + noise).clip(0, 255)
    path = place / "generated.npz"
    few = slice(0, 10 * classes)
    np.savez(path, x_train=images, y_train=labels, x_test=images[few], y_test=labels[few])
    return path


def rate(flags: argparse.Namespace, path: str, place: Path, stream: bool) -> tuple[float, int, Any]:
    """Return images a second of a squeeze, the number of images, and its stall."""
    keys = {
        "data.name": flags.name, "data.path": path, "data.stream": stream, "data.size": flags.size,
        "data.cache_dir": str(place / "cache"), "squeeze.nets": (flags.net,), "net.name": flags.net,
        "nets": (flags.net,), "squeeze.width": flags.width, "squeeze.epochs": flags.epochs,
        "squeeze.batch": flags.batch, "squeeze.lr": 0.01, "devices": 1, "progress": False,
    }  # fmt: skip
    run = place / f"stream-{stream}"
    pipeline.run(config.load("sre2l", keys), str(run), "squeeze")
    rows = [r for r in metrics.read(run / "metrics.jsonl") if r["stage"].startswith("squeeze")]
    resolved, _ = config.resolve(config.load("sre2l", keys).config)
    n = len(pipeline.prepare(resolved, run, "").data.train.labels)
    # The last line holds the accuracy on the test images too: the line before it ends the clock.
    seconds = rows[-2]["seconds"] - rows[0]["seconds"]
    stalls = [row["stall"] for row in rows[1:] if "stall" in row]
    return n * (len(rows) - 2) / seconds, n, float(np.mean(stalls)) if stalls else None


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--path", default="", help="images, as --config.data.path ('': generated)")
    parser.add_argument("--name", default="stall", help="what the dataset is called")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--n", type=int, default=4096, help="generated images")
    parser.add_argument("--net", default="ConvNetBN")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4, help="3 or more")
    flags = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        path = flags.path or str(generated(place, flags.n, flags.size))
        held, n, _ = rate(flags, path, place, False)
        streamed, _, stall = rate(flags, path, place, True)
    device = jax.devices()[0].device_kind
    print(HEAD, "|---" * 7 + "|", sep="\n")
    print(
        f"| {flags.net}, width {flags.width} | {n} of {flags.size} px | {flags.batch} | {device} "
        f"| {held:.0f} | {streamed:.0f} | {100 * stall:.1f} % |"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
