"""``--format=figures``: curve, comparison bars and image grid as PDF and PNG.

Of pairs also the recalls both ways and the matrix of similarities.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet
from jdd.product.pairs import PairSet
from jdd.report import before_after, figures, image_grid, pair_figures
from jdd.report.evidence import Evidence, gather
from jdd.storage.files import new_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE, BARS, GRID = "accuracy_curve", "comparison", "images"
RECALL_CURVE, RECALLS, PAIRS, MATRIX = "recall_curve", "recalls", "pairs", "similarity"
Draw = Callable[[], "Figure"]
# Without dates and versions, equal numbers give equal bytes.
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "png": {"Software": None},
}


class Written(NamedTuple):
    """The folder, the names of its files, and notes on omitted figures with the reason."""

    folder: Path
    files: tuple[str, ...]
    omitted: str

    @property
    def summary(self) -> str:
        """One line for a terminal."""
        line = f"written: {self.folder} ({', '.join(self.files)})"
        return f"{line}; {self.omitted}" if self.omitted else line


def write(dataset: DistilledSet | PairSet, path: Path, source: Path | None = None) -> Written:
    """Write the figures of a set into the new folder ``path``, all or nothing.

    Args:
      dataset: the set, or the pairs, whose images are drawn.
      path: the folder; it must not exist, or be empty.
      source: the file that the set was loaded from. The curve and the bars are drawn if it is the
        ``distilled.npz`` of a working directory that holds their numbers.

    Raises:
      BadInput: matplotlib is missing, or ``path`` exists, is not empty or cannot be written.
    """
    matplotlib = _package()
    found, reasons = drawings(dataset, source)
    files: list[str] = []
    with new_folder(path) as part, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(figures.SETTINGS)
        for name, draw in found.items():
            figure = draw()
            for suffix, metadata in METADATA.items():
                files.append(f"{name}.{suffix}")
                (part / files[-1]).write_bytes(_bytes(figure, suffix, metadata))
    return Written(path, tuple(files), "; ".join(reasons))


def drawings(
    dataset: DistilledSet | PairSet, source: Path | None
) -> tuple[dict[str, Draw], list[str]]:
    """Return the drawing function of each available figure by file name; reasons for the others."""
    metric = "recall" if isinstance(dataset, PairSet) else "accuracy"
    evidence = _evidence(source)
    if evidence is None:
        where = f"{source} is not the distilled.npz of a run" if source else "the set has no path"
        found: dict[str, Draw] = {}
        reasons = [f"not written: {metric} curve and comparison bars ({where})"]
    else:
        found, reasons = _measured(evidence, metric)
    if isinstance(dataset, PairSet):
        found[PAIRS] = lambda: pair_figures.grid(dataset)
        if pair_figures.has_matrix(dataset):
            found[MATRIX] = lambda: pair_figures.matrix(dataset)
        else:
            reasons.append("not written: similarity (no image is matched with another's text)")
        cut = pair_figures.layout(dataset).cut
        return found, [*reasons, f"pairs: {cut}"] if cut else reasons
    found[GRID] = lambda: figures.grid(dataset)
    cut = image_grid.layout(dataset).cut
    return found, [*reasons, f"images: {cut}"] if cut else reasons


def _measured(evidence: Evidence, metric: str) -> tuple[dict[str, Draw], list[str]]:
    """Return the drawing functions of a run's numbers, and reasons for those that lack them."""
    found: dict[str, Draw] = {}
    reasons = []
    plural = {"accuracy": "accuracies"}.get(metric, f"{metric}s")
    if figures.curve_points(evidence):
        curve = RECALL_CURVE if evidence.retrieval else CURVE
        found[curve] = lambda: figures.curve(evidence)
    else:
        why = f"metrics.jsonl holds no {plural} of two or more steps"
        reasons.append(f"not written: {metric} curve ({why})")
    if figures.measured(evidence):
        found[BARS] = lambda: figures.comparison(evidence)
    else:
        why = f"no {metric} in result.json; --mode=evaluate measures it"
        if before_after.attacks(evidence):
            why = "the set attacks trained nets; report.html has its table"
        reasons.append(f"not written: comparison bars ({why})")
    if evidence.retrieval and pair_figures.bars(evidence):
        found[RECALLS] = lambda: pair_figures.recalls(evidence)
    return found, reasons


def _evidence(source: Path | None) -> Evidence | None:
    """Return the evidence of the working directory whose set is ``source``, else None."""
    if source is None or source.name != "distilled.npz":
        return None
    folder = source.parent
    if not any((folder / name).is_file() for name in ("result.json", "metrics.jsonl")):
        return None
    return gather(folder)


def _bytes(figure: Figure, suffix: str, metadata: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=suffix, metadata=metadata)
    return out.getvalue()


def _package() -> Any:
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        found = "figures are drawn by matplotlib, which is not installed"
        raise BadInput("--format=figures", found, "pip install 'jdd[figures]'") from error
    return matplotlib
