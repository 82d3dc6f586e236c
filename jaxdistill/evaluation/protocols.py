"""How a number is obtained: what is selected on which split, by how many students, and what is reported.

`clean` is the default. `paper` repeats what the attention-label work (Maekawa et al., ACL 2023) did, which selects on
the reported split: its numbers are optimistic and only good for comparing with published ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from jaxdistill.core.errors import UserError

REFERENCE_EVAL_BATCH = 256
REFERENCE_SEGMENTS = 20


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way to select a checkpoint and to report it.

    Attributes:
      name: as given on the command line.
      select_on: split that chooses checkpoints and hyper-parameters: "dev" (cut from train) or "test" (reported).
      select_by: "metric" (highest mean of the task's metric) or "loss" (lowest pooled cross-entropy).
      segment_rule: what rows a selecting student scores. The split is cut in parts, each scored by its own fresh
        student, and the rows are pooled: every `students_dev`-th row ("strided": the mean over that many students at
        the price of one pass), or as the reference cuts ("segments").
      students_dev: students of one selection under "strided"; under "segments" the split's size decides.
      students_test: students of the reported number, each on the whole test split.
      distillation_seeds: how many distillations a reported cell needs.
      std_ddof: of the reported standard deviation.
    """

    name: str
    select_on: Literal["dev", "test"]
    select_by: Literal["metric", "loss"]
    segment_rule: Literal["strided", "segments"]
    students_dev: int
    students_test: int
    distillation_seeds: int
    std_ddof: int

    def __post_init__(self) -> None:
        for field in ("students_dev", "students_test", "distillation_seeds"):
            if getattr(self, field) < 1:
                raise UserError(f"protocol {self.name!r}: {field} is {getattr(self, field)}, must be at least 1")
        if self.std_ddof not in (0, 1):
            raise UserError(f"protocol {self.name!r}: std_ddof is {self.std_ddof}, must be 0 or 1")

    def selection_slices(self, n_rows: int) -> list[slice]:
        """The rows that each fresh student scores in one selection: as many slices as students."""
        if self.segment_rule == "segments":
            return segments(n_rows)
        students = min(self.students_dev, n_rows)
        return [slice(first, n_rows, students) for first in range(students)]


CLEAN = Protocol(
    name="clean",
    select_on="dev",
    select_by="metric",
    segment_rule="strided",
    students_dev=20,
    students_test=100,
    distillation_seeds=3,
    std_ddof=1,
)

PAPER = Protocol(
    name="paper",
    select_on="test",
    select_by="loss",
    segment_rule="segments",
    students_dev=20,
    students_test=100,
    distillation_seeds=1,
    std_ddof=0,
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in (CLEAN, PAPER)})


def protocol_named(name: str) -> Protocol:
    """The protocol called `name`.

    Raises:
      UserError: there is no such protocol.
    """
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}: accepted are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def segments(n_rows: int, eval_batch: int = REFERENCE_EVAL_BATCH) -> list[slice]:
    """Cut rows as the reference's fast validation does: whole batches, max(floor(batches / 20), 1) of them a segment.

    The last batch and the last segment may be smaller. Between 1 and 39 segments.
    """
    batches = -(-n_rows // eval_batch)
    rows = max(batches // REFERENCE_SEGMENTS, 1) * eval_batch
    return [slice(start, min(start + rows, n_rows)) for start in range(0, n_rows, rows)]
