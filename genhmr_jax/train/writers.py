"""Logs of a training run: the terminal, metrics.jsonl, TensorBoard and W&B."""

import datetime
import hashlib
import importlib
import json
import logging
import math
import os
import sys
import time
from typing import Any

import jax
from etils import epath
from tqdm import tqdm

from genhmr_jax.io.errors import InputError

log = logging.getLogger("genhmr_jax")

ON_THE_BAR = ("loss", "accuracy", "mpjpe_mm", "samples_per_s", "mfu")
SECONDS_BETWEEN_UPLOADS = 60.0


class Writers:
    """The logs of one run, which get the same scalars.

    Args:
      workdir: folder of tensorboard/ and of metrics.jsonl, one JSON object a line. An existing file
        is continued.
      steps: of the whole run, for the remaining time.
      tensorboard: whether to write TensorBoard events too (needs tensorboardX).
      wandb: W&B project to write to (needs wandb); "": no project.
      enabled: False on all processes but the first: nothing is written.

    Raises:
      InputError: a required package is not installed.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        steps: int,
        *,
        tensorboard: bool = False,
        wandb: str = "",
        enabled: bool = True,
    ):
        self._enabled, self._steps, self._workdir = enabled, steps, epath.Path(workdir)
        self._events = self._run = self._bar = None
        if not enabled:
            return
        self._first, self._started = 0, time.monotonic()
        self._tensorboard = None
        if tensorboard:
            self._tensorboard = _package("tensorboardX", "--config.log.tensorboard")
        if wandb:
            self._run = _start_wandb(wandb, self._workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._lines = _Lines(self._workdir / "metrics.jsonl")
        if sys.stderr.isatty():
            self._bar = tqdm(total=steps, unit="step", dynamic_ncols=True)

    def resumed(self, step: int) -> None:
        """Record that the run resumes from `step`, before the first `write`.

        Lines of later steps before this record are of a lost attempt. TensorBoard hides them.
        """
        if not self._enabled:
            return
        self._first = step
        self._lines.append({"event": "resumed", "step": step})
        if self._bar is not None:
            # Earlier steps do not count for the speed.
            self._bar.n = self._bar.initial = self._bar.last_print_n = step
            self._bar.refresh()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Log scalars (numbers or jax arrays) of a step; NaN and Inf are null in metrics.jsonl."""
        if not self._enabled:
            return
        values = {name: float(value) for name, value in jax.device_get(values).items()}
        # Nine digits distinguish all float32 numbers.
        rounded = lambda value: float(f"{value:.9g}") if math.isfinite(value) else None
        self._lines.append({"step": step} | {name: rounded(v) for name, v in values.items()})
        self._show(step, values)
        if self._tensorboard is not None:
            if self._events is None:
                folder = os.fspath(self._workdir / "tensorboard")
                purge = self._first + 1 if self._first else None
                self._events = self._tensorboard.SummaryWriter(folder, purge_step=purge)
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
        if self._run is not None:
            self._run.log(values, step=step)

    def progress(self, step: int) -> None:
        """Move the progress bar to a step. Without a terminal there is no bar."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Write everything that is buffered."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.close()
        if self._events is not None:
            self._events.close()
        if self._run is not None:
            self._run.finish()
        self._lines.close()

    def _show(self, step: int, values: dict[str, float]) -> None:
        """Log a line, above the progress bar if there is one, and show some numbers on the bar."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is None:
            log.info("step %d/%d%s  %s", step, self._steps, self._time_left(step), text)
            return
        self._bar.clear()
        log.info("step %d  %s", step, text)
        if chosen := {name: f"{values[name]:.4g}" for name in ON_THE_BAR if name in values}:
            self._bar.set_postfix(chosen, refresh=False)
        self._bar.refresh()

    def _time_left(self, step: int) -> str:
        """The remaining time at the mean speed so far, with compilation and evaluation."""
        if not self._first < step < self._steps:
            return ""
        seconds = (time.monotonic() - self._started) / (step - self._first) * (self._steps - step)
        return f" ({datetime.timedelta(seconds=round(seconds))} left)"


class _Lines:
    """JSON lines, appended to a local file.

    A bucket does not support appending: there the whole file is written, once a minute and at the
    end.
    """

    def __init__(self, path: epath.Path):
        self._path, self._file = path, None
        if "://" in os.fspath(path):
            self._lines = path.read_text().splitlines() if path.exists() else []
            self._written = time.monotonic()
            return
        # A killed run may have left half a line: the next line starts after it.
        half = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = open(path, "a", buffering=1, encoding="utf-8")
        if half:
            self._file.write("\n")

    def append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, allow_nan=False)
        if self._file is not None:
            self._file.write(line + "\n")
            return
        self._lines.append(line)
        if time.monotonic() - self._written > SECONDS_BETWEEN_UPLOADS:
            self._upload()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        else:
            self._upload()

    def _upload(self) -> None:
        self._path.write_text("".join(line + "\n" for line in self._lines))
        self._written = time.monotonic()


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Read metrics.jsonl, without lines of lost attempts and without incomplete lines."""
    rows: list[dict[str, Any]] = []
    for line in (epath.Path(workdir) / "metrics.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.get("event") == "resumed":
            rows = [kept for kept in rows if kept["step"] <= row["step"]]
        else:
            rows.append(row)
    return rows


def _start_wandb(project: str, workdir: epath.Path) -> Any:
    """Start a W&B run. Its id is a hash of the workdir: a resumed run continues the same charts."""
    wandb = _package("wandb", "--config.log.wandb")
    identity = hashlib.sha256(os.fspath(workdir).encode()).hexdigest()[:16]
    return wandb.init(project=project, name=workdir.name, id=identity, resume="allow")


def _package(name: str, flag: str) -> Any:
    """Import a package. Raises InputError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = f"pip install {name}, or leave the flag out"
        raise InputError(flag, f"needs {name}, which is not installed", remedy) from error
