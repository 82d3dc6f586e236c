"""Where the numbers of a run go while it runs: a JSON lines file, TensorBoard events, the console."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from jaxdistill.core.errors import UserError
from jaxdistill.io import atomic
from jaxdistill.io.plain import dumps
from jaxdistill.io.progress import Progress


class MetricWriter(Protocol):
    """Takes scalars by step. Steps rise; values are Python numbers or scalar arrays already on the host."""

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record the metrics of one step."""
        ...

    def flush(self) -> None:
        """Make what was written durable; call it before a checkpoint that counts on it."""
        ...

    def close(self) -> None:
        """Flush and let go; nothing is written afterwards."""
        ...


class MultiWriter:
    """Passes everything on to several writers, in order."""

    def __init__(self, writers: Sequence[MetricWriter]):
        self._writers = tuple(writers)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        for writer in self._writers:
            writer.write(step, metrics)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class JsonlWriter:
    """One JSON object a line: `{"step": k, name: value, ...}`.

    A run taken up at step k drops the lines of steps >= k first, so that the file of an interrupted run equals that of
    an unbroken one; write only what is deterministic into it. Each line reaches the operating system at once.

    Args:
      path: the file.
      resume_at: first step that is going to be written; 0 starts anew.

    Raises:
      UserError: the file is damaged other than by a torn last line, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike, *, resume_at: int = 0):
        self._path = Path(path)
        kept = [line for line in _read_lines(self._path) if line["step"] < resume_at] if resume_at else []
        atomic.write_text(self._path, "".join(dumps(line, indent=None) + "\n" for line in kept))
        self._file: IO[str] = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        scalars = {name: _scalar(name, value) for name, value in metrics.items()}
        with atomic.disk_errors(self._path):
            self._file.write(dumps({"step": int(step), **scalars}, indent=None) + "\n")

    def flush(self) -> None:
        with atomic.disk_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self._file.closed:
            self.flush()
            self._file.close()


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, non-finite values as floats again; a torn last line is left out.

    Returns:
      dicts with "step" and the metrics of that step; empty when there is no file.

    Raises:
      UserError: a line other than the last is damaged.
    """
    return [
        {name: float(value) if isinstance(value, str) else value for name, value in line.items()}
        for line in _read_lines(Path(path))
    ]


class TensorBoardWriter:
    """Event files for TensorBoard.

    Events are written from this thread: tensorboardX's own `SummaryWriter` leaves that to another one, and waits for
    it forever once it has died of a full disk.

    Args:
      folder: where the event files go; each process start adds one.
      resume_at: events of this step and later, written by an interrupted run, are hidden.
    """

    def __init__(self, folder: str | os.PathLike, *, resume_at: int = 0):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        # Generated modules: their messages are made when they are imported, beyond a static checker.
        self._events: Any = event_pb2
        self._summaries: Any = summary_pb2
        self._folder = Path(folder)
        with atomic.disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"), filename_suffix=f".{os.getpid()}")
        if resume_at:
            # The start of a session at a step is what makes TensorBoard purge older events from that step on.
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(step=resume_at, file_version="brain.Event:2")
            self._add(step=resume_at, session_log=start)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        summary = self._summaries.Summary
        values = [summary.Value(tag=name, simple_value=_scalar(name, value)) for name, value in metrics.items()]
        self._add(step=step, summary=summary(value=values))

    def flush(self) -> None:
        with atomic.disk_errors(self._folder):
            self._writer.flush()

    def close(self) -> None:
        with atomic.disk_errors(self._folder):
            self._writer.close()

    def _add(self, **content: Any) -> None:
        with atomic.disk_errors(self._folder):
            self._writer.write_event(self._events.Event(wall_time=time.time(), **content))


class ConsoleWriter:
    """Metrics beside a progress bar, or in plain lines with the time left.

    Args:
      progress: where the lines go; step k being written means that k + 1 steps are done.
      names: which metrics to show, in this order; all when `None`.
    """

    def __init__(self, progress: Progress, *, names: Sequence[str] | None = None):
        self._progress, self._names = progress, names

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        names = metrics if self._names is None else [name for name in self._names if name in metrics]
        self._progress.update(step + 1, "  ".join(f"{name} {_scalar(name, metrics[name]):.4g}" for name in names))

    def flush(self) -> None:
        """Lines are written at once."""

    def close(self) -> None:
        self._progress.close()


def _scalar(name: str, value: Any) -> int | float:
    number = value.item() if hasattr(value, "item") else value
    if not isinstance(number, (int, float)):
        raise TypeError(f"metric {name!r} is a {type(value).__name__}; expected a number")
    return number


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines as written; the last one may be torn (the process was killed while writing it) and is then left out."""
    if not path.exists():
        return []
    raw = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    lines = []
    for number, text in enumerate(raw, start=1):
        try:
            line = json.loads(text)
            intact = isinstance(line, dict) and isinstance(line.get("step"), int)
        except ValueError:
            intact = False
        if intact:
            lines.append(line)
        elif number < len(raw):
            raise UserError(f'{path} line {number} is damaged; expected a JSON object with a whole-number "step"')
    return lines
