"""Where the numbers of a run folder go."""

from __future__ import annotations

from collections.abc import Sequence

from jaxdistill.io.metrics import ConsoleWriter, JsonlWriter, MetricWriter, MultiWriter, TensorBoardWriter
from jaxdistill.io.progress import Progress
from jaxdistill.io.workdir import Workdir


def run_writers(folder: Workdir, start: int, *, label: str, total: int, shown: Sequence[str]) -> MultiWriter:
    """`metrics.jsonl`, TensorBoard events and the console.

    Args:
      folder: of the run.
      start: first step that will be written.
      label: what a step is called on the console.
      total: steps in all.
      shown: metrics on the console.
    """
    writers: list[MetricWriter] = [
        JsonlWriter(folder.metrics, resume_at=start),
        TensorBoardWriter(folder.tensorboard, resume_at=start),
        ConsoleWriter(Progress(label, total, start=start), names=shown),
    ]
    return MultiWriter(writers)
