"""Does the road from squeeze to post-training run with ResNet18 on 64x64 images, in what time?

    python -m benchmarks.tiny_imagenet --path=tiny_imagenet_100.zip

SRe2L on Tiny-ImageNet's images by its published settings but for a stated number of steps a stage:
an epoch of ResNet18 on 40,000 images takes hours on 2 CPU cores. The teacher sees ``--train``
images of each class ``EPOCHS`` times, accuracies are of ``--test`` images of each, and say no more
than that the stages hand on what they should. Prints a row of a Markdown table a stage: steps,
seconds in all and by step, and the most memory the process held.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

EPOCHS, BATCH, RECOVER = 2, 32, 10
KEYS: dict[str, Any] = {
    "squeeze.epochs": EPOCHS, "squeeze.batch": BATCH, "squeeze.lr": 0.05, "squeeze.warmup": 0,
    "steps": RECOVER, "eval.epochs": 2, "eval.batch": 50, "eval.n": 1, "post.warmup": 0,
    "baselines.full": "false", "baselines.random": 1, "progress": "false", "data.source": "folder",
}  # fmt: skip


def subset(path: Path, place: Path, train: int, test: int) -> Path:
    """Unpack the first images of every class, ``train`` and ``test`` of them; return the folder."""
    root = place / f"images-{train}-{test}"
    if root.exists():
        return root
    taken: collections.Counter[tuple[str, str]] = collections.Counter()
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            parts = Path(name).parts
            if not name.lower().endswith((".jpg", ".jpeg", ".png")) or len(parts) < 3:
                continue
            split, label, file = parts[-3:]
            most = train if split == "train" else test
            if taken[split, label] < most:
                taken[split, label] += 1
                to = root / ("train" if split == "train" else "test") / label / file
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(archive.read(name))
    return root


def main() -> None:
    """Run the stages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=Path("benchmarks/results/tiny_imagenet"))
    parser.add_argument("--train", type=int, default=10)
    parser.add_argument("--test", type=int, default=5)
    flags = parser.parse_args()
    folder = subset(flags.path, flags.to, flags.train, flags.test)
    keys = KEYS | {"data.path": folder}
    line = [sys.executable, "-m", "jdd.main", "--config=configs/sre2l.py:tiny_imagenet_100,ipc=1"]
    line += [f"--workdir={flags.to / 'run'}", *(f"--config.{k}={v}" for k, v in keys.items())]
    print(" ".join(map(str, line[1:])), file=sys.stderr, flush=True)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((flags.to / "run" / "result.json").read_text())
    print(report(found, len(list(folder.glob("train/*/*"))), len(list(folder.glob("train/*")))))


def report(found: dict[str, Any], images: int, classes: int) -> str:
    """Return the table of a run on ``images`` training images of ``classes`` classes."""
    epochs, batch = int(KEYS["eval.epochs"]), int(KEYS["eval.batch"])
    steps = {
        "squeeze": (EPOCHS * -(-images // BATCH), f"batches of {BATCH}"),
        "recover": (RECOVER, f"all of {classes} images"),
        "relabel": (2 * epochs * -(-classes // batch), f"batches of {batch}, the set and one draw"),
        "evaluate": (4 * epochs * -(-classes // batch), f"batches of {batch}, four students"),
    }
    rows = ["| stage | steps | seconds | a step |", "|---|---|--:|--:|"]
    for name, (count, what) in steps.items():
        spent = sum(s for stage, s in found["seconds"].items() if stage.startswith(name))
        rows.append(f"| {name} | {count}, {what} | {spent:.0f} | {spent / count:.2f} |")
    peak = found["peak_memory_bytes"]["process"] / 2**30
    rows.append(
        f"\nmost memory: {peak:.1f} GiB; teachers: {found['teachers']}; {found['accuracy']}"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
