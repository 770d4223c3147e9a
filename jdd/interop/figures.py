"""``--format=figures``: accuracy curve, comparison bars and image grid as PDF and PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet
from jdd.report import before_after, figures, image_grid
from jdd.report.evidence import Evidence, gather
from jdd.storage.files import new_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE, BARS, GRID = "accuracy_curve", "comparison", "images"
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


def write(dataset: DistilledSet, path: Path, source: Path | None = None) -> Written:
    """Write the figures of a set into the new folder ``path``, all or nothing.

    Args:
      dataset: the set whose images are drawn.
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
    dataset: DistilledSet, source: Path | None
) -> tuple[dict[str, Callable[[], Figure]], list[str]]:
    """Return the drawing function of each available figure by file name; reasons for the others."""
    found: dict[str, Callable[[], Figure]] = {}
    reasons = []
    evidence = _evidence(source)
    if evidence is None:
        where = f"{source} is not the distilled.npz of a run" if source else "the set has no path"
        reasons.append(f"not written: accuracy curve and comparison bars ({where})")
    else:
        if figures.curve_points(evidence):
            found[CURVE] = lambda: figures.curve(evidence)
        else:
            why = "metrics.jsonl holds no accuracies of two or more steps"
            reasons.append(f"not written: accuracy curve ({why})")
        if figures.measured(evidence):
            found[BARS] = lambda: figures.comparison(evidence)
        else:
            why = "no accuracy in result.json; --mode=evaluate measures it"
            if before_after.attacks(evidence):
                why = "the set attacks trained nets; report.html has its table"
            reasons.append(f"not written: comparison bars ({why})")
    found[GRID] = lambda: figures.grid(dataset)
    cut = image_grid.layout(dataset).cut
    return found, [*reasons, f"images: {cut}"] if cut else reasons


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
