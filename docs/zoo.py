"""Add finished runs to the zoo, ``sets/``, and list its sets with pictures in ``docs/zoo.md``.

    python docs/zoo.py                  # the page, from what is in sets/
    python docs/zoo.py RUN [RUN ...]    # adds the set of each run first, or replaces it

A set is named METHOD-DATASET-ipcN. Paths of the machine that made it are cut to their last part,
its recipe finds the data by its name, and the matrix of a whitening is left out; apart from that
every file is as the run wrote it. Nothing is written if a run is refused.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jdd.data.catalogue import Facts, lookup
from jdd.data.whitening_fit import left_out
from jdd.errors import BadInput
from jdd.product import files, preview
from jdd.product.arrays import recipe_json
from jdd.product.distilled_set import DistilledSet
from jdd.report import html, plain
from jdd.report.evidence import Evidence, Score, gather
from jdd.report.headline import method
from jdd.run import workdir
from jdd.storage import json_files
from jdd.storage.files import write_atomic, write_text

ROOT = Path(__file__).resolve().parents[1]
SETS, PAGE, PICTURES = ROOT / "sets", ROOT / "docs" / "zoo.md", ROOT / "docs" / "img" / "zoo"
SET, TEXTS = "distilled.npz", ("result.json", "config.json", "metrics.jsonl")
LARGEST = 1_000_000  # bytes of a set with its texts
# An absolute path at the start of a word, or after a colon; its last part is the first group.
# Of URLs only those of ``file:`` are paths: the others have two slashes after the colon.
_PATH = re.compile(
    r"""(?:\bfile:/*(?=/)|(?<=:)(?!//)|(?<![\w./:~-]))~?/+(?:[^\s/"'=,:]+/+)*([^\s/"'=,:]+)/*"""
)
MARK = "<!-- From here on written by docs/zoo.py. -->"
_DIGEST = "set"  # text of a picture: SHA-256 of the file that it shows


class New(NamedTuple):
    """A set to be written: its name, the bytes of its files by name, and what its run made."""

    name: str
    files: dict[str, bytes]
    product: files.AnyProduct


def read(run: Path) -> New:
    """Return the set of a finished run.

    Raises:
      BadInput: the run is not finished, has no result, or its set cannot be in the zoo.
    """
    evidence = _finished(run)
    facts = _facts(evidence)
    amount = f"pairs{evidence.recipe['pairs']}" if evidence.retrieval else ""
    name = f"{evidence.known('method')}-{facts.name}-{amount or 'ipc' + evidence.known('ipc')}"
    found = {text: without_paths((run / text).read_text()).encode() for text in TEXTS}
    found[SET] = _product(run, evidence)
    if (total := sum(map(len, found.values()))) > LARGEST:
        parts = ", ".join(f"{part} {plain_size(len(data))}" for part, data in found.items())
        raise BadInput(str(run), f"{plain_size(total)} ({parts})", f"{plain_size(LARGEST)} at most")
    assert evidence.product is not None
    return New(name, found, evidence.product)


def _finished(run: Path) -> Evidence:
    """Return what a run has measured; refuse one that is no finished run of one seed."""
    if not run.is_dir():
        raise BadInput(str(run), "no such folder", "the working directory of a finished run")
    again = "run its command again, to the end"
    if workdir.holds_external_set(run):
        raise BadInput(str(run), "the evaluation of a set", "the run that made the set")
    if (run / "unfinished.npz").exists() or not (run / SET).exists():
        raise BadInput(str(run), "its set is not finished", again)
    for name in TEXTS:
        if not (run / name).is_file():
            what = "the set has not been evaluated" if name == "result.json" else f"no {name}"
            raise BadInput(str(run), what, again)
    result = json_files.read(run / "result.json", again)
    product = files.load(run / SET)
    evidence = gather(run)._replace(result=result)
    if not evidence.scores:
        raise BadInput(str(run), "result.json has no accuracy", again)
    for key in ("method", "seed", "steps"):
        if result.get(key) != product.recipe.get(key):
            found = f"result.json is of {key} {result.get(key)}, the set of {product.recipe[key]}"
            raise BadInput(str(run), found, again)
    if (result.get("versions") or {}).get("commit", "").endswith("-dirty"):
        found = f"made by jdd at {result['versions']['commit']}, a checkout with changes"
        allowed = f"from a checkout without any: jdd --mode=report --workdir={run}"
        raise BadInput(str(run), found, allowed)
    if words := files.diverged(product.recipe):
        raise BadInput(str(run), words, "a run that has not diverged")
    if len(evidence.scores[evidence.net].seeds) > 1:
        found = "its accuracy is that of several sets, one a seed"
        raise BadInput(str(run), found, "a run with --config.runs=1")
    if evidence.stored:
        found = "a set of stored labels, which lie in a folder next to it"
        raise BadInput(str(run), found, "a set with its own labels")
    return evidence


def _facts(evidence: Evidence) -> Facts:
    """Return the facts of a run's dataset, of which the zoo needs the licence."""
    name = evidence.known("dataset")
    facts = lookup(name)
    if facts is None:
        found = f"made from {name}, whose licence is not known here"
        raise BadInput(str(evidence.workdir), found, "a dataset of jdd/data/catalogue.py")
    return facts


def _product(run: Path, evidence: Evidence) -> bytes:
    """Return the bytes of a run's set, without paths of the machine and the whitening's matrix."""
    product = evidence.product
    assert product is not None
    recipe = portable(product.recipe)
    whitened = isinstance(product, DistilledSet) and product.transform.whitens
    if recipe == product.recipe and not whitened:
        return (run / SET).read_bytes()
    changed = product.with_recipe(recipe)
    if isinstance(changed, DistilledSet) and whitened:
        old = changed.transform
        changed = changed._replace(transform=left_out(old.kind, changed.images.shape[1:], old))
    with tempfile.TemporaryDirectory() as scratch:
        return changed.save(Path(scratch) / SET).read_bytes()


def portable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without paths of a machine, whose data is found by its name."""
    found = json_files.parse(without_paths(recipe_json(recipe)), "recipe", "")
    if (found.get("data") or {}).get("path"):
        found["data"] |= {"path": "", "source": "auto"}
    return found


def without_paths(text: str) -> str:
    """Return a text with every absolute path cut to its last part.

    >>> without_paths("--workdir=/home/me/runs/dc --config.data.path=data/cifar10.npz")
    '--workdir=dc --config.data.path=data/cifar10.npz'
    >>> without_paths("file:///home/me/x root:/home/me/runs/ ~/a:/b/c gs://bucket/x 1 / 2 and/or")
    'x root:runs a:c gs://bucket/x 1 / 2 and/or'
    """
    return _PATH.sub(r"\1", text)


def _picture(product: files.AnyProduct, data: bytes) -> bytes:
    """Return the picture of a set as a PNG that names the digest of the set's file."""
    from PIL import Image, PngImagePlugin

    about, out = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text(_DIGEST, hashlib.sha256(data).hexdigest())
    Image.open(io.BytesIO(preview.grid(product))).save(out, "PNG", optimize=True, pnginfo=about)
    return out.getvalue()


def shows(picture: Path, data: bytes) -> bool:
    """Return whether a picture is of the set in a file with these bytes."""
    from PIL import Image

    if not picture.is_file():
        return False
    with Image.open(picture) as image:
        return image.info.get(_DIGEST) == hashlib.sha256(data).hexdigest()


def write(new: New) -> None:
    """Write a set and its picture in place of one of the same name."""
    folder, picture = SETS / new.name, _picture(new.product, new.files[SET])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    targets = {folder / name: data for name, data in new.files.items()}
    for path, data in (targets | {PICTURES / f"{new.name}.png": picture}).items():
        write_atomic(path, lambda file, data=data: file.write(data))


# The page.


def page() -> str:
    """Return the page's Markdown: its text up to the mark, then the sets."""
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    found = [gather(path.parent) for path in sorted(SETS.glob(f"*/{SET}"))]
    rows = [_row(evidence) for evidence in found]
    head = ["set", "method", "accuracy, %", "random, %", "whole, %", "published, %", "size"]
    index = "\n".join([_line(head), "|---|---|--:|--:|--:|--:|--:|", *map(_line, rows)])
    parts = [_section(evidence) for evidence in found]
    return "\n\n".join([text + MARK, index, *parts]) + "\n"


def _row(evidence: Evidence) -> list[str]:
    """Return the cells of a set in the index."""
    name, net = evidence.workdir.name, evidence.net
    baselines = (evidence.baseline(kind, net) for kind in ("random", "full"))
    size = plain_size((evidence.workdir / SET).stat().st_size)
    return [
        f"[{name}](#{name})",
        _method(evidence),
        _cell(evidence.scores[net]),
        *map(_cell, baselines),
        _cell(evidence.baseline("published")),
        size,
    ]


def _section(evidence: Evidence) -> str:
    """Return the part of the page on one set."""
    folder, facts, result = evidence.workdir, _facts(evidence), evidence.result
    shape = "x".join(map(str, facts.shape))
    versions: Mapping[str, Any] = result.get("versions") or {}
    rows = {
        "dataset": f"{facts.name}, {shape}, {facts.classes} classes",
        "method": f"{_method(evidence)}, {result['steps']} steps, seed {result['seed']}",
        **{f"accuracy, {net}": _words(score) for net, score in evidence.scores.items()},
        "random real images": _words(evidence.baseline("random"), "not measured"),
        "whole training set": _words(evidence.baseline("full"), "not measured"),
        "published": _words(evidence.baseline("published"), "none"),
        "made on": f"{result['device']}, jdd {versions.get('jdd')}, "
        f"commit {versions.get('commit', 'unknown')}, JAX {versions.get('jax')}",
        "licence of the data": facts.licence,
    }
    table = "\n".join(_line(cells) for cells in rows.items())
    alt = f"The images of {folder.name}"
    return (
        f"## {folder.name}\n\n![{alt}](img/zoo/{folder.name}.png)\n\n| | |\n|---|---|\n{table}\n\n"
        f"Made by:\n\n```bash\n{result['command']}\n```"
    )


def _method(evidence: Evidence) -> str:
    """Return the method's name, with a link to its page if it has one of its own."""
    name = f"methods/{evidence.known('method')}.md"
    words = method(evidence)
    return f"[{words}]({name})" if (PAGE.parent / name).is_file() else words


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(score: Score | None) -> str:
    """Return an accuracy in percent with its n; a dash if it was not measured."""
    if score is None:
        return html.DASH
    figure = plain.accuracy(score.mean, score.std, score.n)
    if score.n is None and score.std is not None:  # a published one
        figure += f" ± {100 * score.std:.1f}"
    return figure + (f" ({score.n})" if score.n else "")


def _words(score: Score | None, absent: str = "") -> str:
    """Return an accuracy with its n and its epochs in words; ``absent`` if there is none."""
    if score is None:
        return absent
    figure, _, n = _cell(score).partition(" (")
    known = [f"n = {n.rstrip(')')}"] if n else []
    known += [f"{score.about['epochs']} epochs"] if "epochs" in score.about else []
    return f"{figure} %" + (f" ({', '.join(known)})" if known else "")


def plain_size(count: int) -> str:
    return html.size(count).replace(html.THIN, " ")


def main(runs: Sequence[str]) -> int:
    """Add the sets of finished runs, then write the page."""
    try:
        added = [read(Path(run)) for run in runs]  # all of them, before the first is written
    except BadInput as error:
        print(f"docs/zoo.py: error: {error}", file=sys.stderr)
        return error.exit_code
    for new in added:
        write(new)
        print(SETS / new.name)
    names = {path.parent.name for path in SETS.glob(f"*/{SET}")}
    for picture in PICTURES.glob("*.png"):
        if picture.stem not in names:
            picture.unlink()
    write_text(PAGE, page())
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
