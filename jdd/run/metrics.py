"""metrics.jsonl: one JSON object per line; each (stage, step) is unique, even after a resume."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

from jdd.errors import BadInput
from jdd.run import metric_lines
from jdd.storage import failures, json_files


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the whole lines of a metrics file; ``metric_lines.read`` names the others."""
    return metric_lines.read(Path(path)).rows


def stage_of_part(stage: str) -> str:
    """Return the stage of a part's name: 'recover' for 'recover-0-1'."""
    return re.sub(r"(-\d+)+$", "", stage)


def divergence(rows: list[dict[str, Any]]) -> str:
    """Return the divergence that metrics lines end with, in words; '' if there is none."""
    for row in reversed(rows):
        if row.get("diverged"):
            return f"{row['stage']} diverged at step {row['step']}: {row['diverged']}"
    return ""


class Metrics:
    """Appends scalars to ``metrics.jsonl`` and, on request, to TensorBoard and Weights & Biases.

    ``seconds`` of a line is the time its stage has run, summed over the run's sessions. ``note``:
    what was damaged in the file of an earlier session, for the user; '' for nothing.

    Args:
      writes: False for a process whose lines another one writes (``taken``, ``adopt``).
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        tensorboard: bool = False,
        wandb: bool = False,
        writes: bool = True,
    ):
        self._writes, self._new = writes, list[dict[str, Any]]()
        self.path = Path(workdir) / "metrics.jsonl"
        self._rows, self.note = metric_lines.read(self.path)
        self._seen = {(row["stage"], row["step"]) for row in self._rows}
        self._started: dict[str, float] = {}
        self._stopped: dict[str, float] = {}
        self._boards: list[Any] = []  # with TensorBoard's add_scalar and close
        if not writes:
            return
        self._rewrite()
        self._open()
        if tensorboard:
            self._boards.append(writer()(str(Path(workdir) / "tensorboard")))
        if wandb:
            self._boards.append(_Wandb(Path(workdir)))

    def _open(self) -> None:
        self._file = self.path.open("a", encoding="utf-8")
        self._sums = metric_lines.place(self.path).open("a", encoding="utf-8")

    def _rewrite(self) -> None:
        if self.path.exists():
            metric_lines.replace(self.path, map(_line, self._rows))

    def start(self, stage: str) -> None:
        """Start the stage's clock at the time recorded by the last session."""
        self._started[stage] = time.perf_counter() - self.spent(stage)

    def spent(self, stage: str) -> float:
        """Return the stage's seconds as recorded in its lines."""
        return max((r.get("seconds", 0.0) for r in self._rows if r["stage"] == stage), default=0.0)

    def stop(self, stage: str) -> None:
        """Stop the stage's clock and record its seconds."""
        self._stopped[stage] = self.seconds(stage)
        self._started.pop(stage, None)

    def leave_out(self, stage: str, seconds: float) -> None:
        """Do not count ``seconds`` of a running stage, which are those of another one."""
        if stage in self._started:
            self._started[stage] += seconds

    def seconds(self, stage: str) -> float:
        """Return the stage's seconds, including this session."""
        if stage in self._started:
            return time.perf_counter() - self._started[stage]
        return self._stopped.get(stage, self.spent(stage))

    def total(self, stage: str) -> float:
        """Return the seconds of a stage, summed over its parts if it was run in parts."""
        if own := self.seconds(stage):  # its clock includes the parts
            return own
        names = {row["stage"] for row in self._rows if stage_of_part(row["stage"]) == stage}
        return sum(map(self.seconds, names))

    def has(self, stage: str, step: int) -> bool:
        """Return whether a line of this stage and step has been written."""
        return (stage, step) in self._seen

    def lines(self, stage: str) -> list[dict[str, Any]]:
        """Return the stage's lines, in the order of writing."""
        return [row for row in self._rows if row["stage"] == stage]

    def last(self, stage: str) -> dict[str, Any] | None:
        """Return the stage's newest line, or None."""
        rows = self.lines(stage)
        return rows[-1] if rows else None

    def log(self, stage: str, step: int, **scalars: Any) -> None:
        """Write one line unless this (stage, step) exists; non-finite numbers become null.

        Raises:
          StorageError: the file is gone, and with it the working directory.
        """
        if self.has(stage, step):
            return
        if not self.path.exists():  # else its lines would go into a deleted file
            failures.present(self.path.parent)
        seconds = round(self.seconds(stage), 3)
        row = {"stage": stage, "step": step, "seconds": seconds, **_plain(scalars)}
        self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        stage, step = row["stage"], row["step"]
        self._rows.append(row)
        self._seen.add((stage, step))
        if not self._writes:
            self._new.append(row)
            return
        line = _line(row)
        self._file.write(line)
        self._file.flush()
        self._sums.write(metric_lines.sum_of(line.rstrip("\n")) + "\n")
        self._sums.flush()
        for name, value in row.items() if self._boards else ():
            if isinstance(value, int | float) and name not in ("step", "seconds"):
                for board in self._boards:
                    board.add_scalar(f"{stage}/{name}", value, step)

    def taken(self) -> list[dict[str, Any]]:
        """Return the lines since the last call, of a process that does not write them."""
        new, self._new = self._new, []
        return new

    def adopt(self, rows: list[dict[str, Any]]) -> None:
        """Write lines of other processes, but for those of a (stage, step) that exists."""
        for row in rows:
            if not self.has(row["stage"], row["step"]):
                self._append(row)

    def truncate(self, stage: str, step: int) -> None:
        """Delete the stage's lines after ``step``, from which the run resumes."""
        remaining = [r for r in self._rows if r["stage"] != stage or r["step"] <= step]
        if len(remaining) == len(self._rows):
            return
        self._rows = remaining
        self._seen = {(row["stage"], row["step"]) for row in remaining}
        if not self._writes:
            return
        self._file.close()
        self._sums.close()
        self._rewrite()
        self._open()

    def close(self) -> None:
        """Close the files."""
        if self._writes:
            self._file.close()
            self._sums.close()
        for board in self._boards:
            board.close()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _plain(scalars: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in scalars.items():
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        out[name] = value
    return out


def writer() -> Any:
    """Return the class that writes TensorBoard files.

    Raises:
      BadInput: its package is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise BadInput(
            "config.tensorboard", "tensorboardX is not installed", "pip install 'jdd[tensorboard]'"
        ) from error
    return SummaryWriter


class _Wandb:
    """Scalars of a working directory as one run of Weights & Biases, begun with the first scalar.

    The run's name is the directory's. Its id is drawn once and recorded in
    ``checkpoints/wandb.json``: a resumed run goes on in it, wherever the directory lies, and
    directories of one name on two machines do not share it. Project, account and mode are wandb's
    own settings (WANDB_PROJECT, WANDB_MODE ...); the project is jdd where none is set. Every stage
    has a step axis of its own.
    """

    def __init__(self, workdir: Path):
        self._package, self._workdir = wandb_package(), workdir
        self._run: Any = None
        self._stages: set[str] = set()

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Log one scalar, ``stage/name``, at a step of its stage."""
        if self._run is None:
            self._run = self._begun()
        stage = name.partition("/")[0]
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({name: value, f"{stage}/step": step})

    def _begun(self) -> Any:
        saved = self._workdir / "config.json"
        place = self._workdir.resolve()
        try:
            return self._package.init(
                project=os.environ.get("WANDB_PROJECT", "jdd"),
                name=place.name,
                id=self._id(),
                resume="allow",
                dir=str(place),
                config=json_files.recall(saved) or {},
                settings=self._package.Settings(console="off", silent=True),
            )
        except Exception as error:  # of the network, the account or the server: many types
            raise _no_wandb(error) from error

    def _id(self) -> str:
        """Return the run's id, drawn and recorded if there is none yet."""
        path = self._workdir / "checkpoints" / "wandb.json"
        if isinstance(known := (json_files.recall(path) or {}).get("id"), str):
            return known
        drawn = uuid.uuid4().hex[:16]
        failures.folder(path.parent, self._workdir)
        json_files.write(path, {"id": drawn}, indent=None)
        return drawn

    def close(self) -> None:
        """End the run, if it was begun."""
        if self._run is not None:
            self._run.finish()


def _no_wandb(error: Exception) -> BadInput:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    found = f"true, and Weights & Biases takes no run ({reason})"
    return BadInput("config.wandb", found, "wandb login, WANDB_MODE=offline, or false")


def validate_wandb() -> None:
    """Refuse ``config.wandb`` where no run could be logged.

    Raises:
      BadInput: the package is not installed; or there is no account, unless WANDB_MODE needs none.
    """
    package = wandb_package()
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled"):
        return
    try:
        package.login()
    except Exception as error:  # as in a run's begin
        raise _no_wandb(error) from error


def wandb_package() -> Any:
    """Return the package wandb.

    Raises:
      BadInput: it is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        found, allowed = "wandb is not installed", "pip install 'jdd[wandb]'"
        raise BadInput("config.wandb", found, allowed) from error
