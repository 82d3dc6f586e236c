"""Scores of single learners, kept on disk as they come: an interrupted evaluation loses the learner at work."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.fairness import fairness_scores
from jaxdistill.evaluation.metrics import METRICS, PARTS, metric_named
from jaxdistill.evaluation.scoring import Score
from jaxdistill.io import atomic
from jaxdistill.io.plain import dumps

# Reported of data with protected groups, see `evaluation.fairness`.
OF_GROUPS = ("gap", "dto", "worst_group_accuracy", "equalised_odds", "demographic_parity")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a learner got on the test split.

    Attributes:
      score: in the task's metric, a fraction; 0 for a learner that diverged.
      parts: of a metric that is a mean, what it is the mean of; of data with protected groups, `OF_GROUPS`.
      diverged: whether the learner's loss on the split is not finite.
    """

    score: float
    parts: dict[str, float]
    diverged: bool


def outcome(score: Score, metric: str) -> Outcome:
    """The outcome of a learner; one that diverged predicts nothing and scores 0."""
    groups = score.by_group is not None
    if score.diverged:
        # A learner that predicts nothing must not count as a fair one.
        worst = dict.fromkeys(OF_GROUPS, 1.0) | {"dto": 2.0**0.5, "worst_group_accuracy": 0.0}
        of_groups = worst if groups else {}
        return Outcome(0.0, dict.fromkeys(PARTS.get(metric, ()), 0.0) | of_groups, True)
    made = counted(score.confusion, metric)
    if not groups:
        return made
    scores = fairness_scores(score.by_group)
    return dataclasses.replace(made, parts=made.parts | {name: scores[name] for name in OF_GROUPS})


def counted(confusion: Any, metric: str) -> Outcome:
    """The outcome of a model whose calls have these confusion counts [c, c]."""
    names = PARTS.get(metric, ())
    return Outcome(metric_named(metric)(confusion), {name: METRICS[name](confusion) for name in names}, False)


class Scores:
    """Outcomes by name in a JSON file, and in another the wall seconds they took.

    Args:
      path: of the outcomes, which depend on nothing but the experiment; `None` keeps them in memory.
      seconds_path: of the seconds, which an interrupted evaluation goes on adding to.

    Attributes:
      seconds: by name; outcomes that were lost with an interrupted run are not counted.

    Raises:
      UserError: a file is there and holds something else.
    """

    def __init__(self, path: Path | None = None, seconds_path: Path | None = None):
        self._path, self._seconds_path = path, seconds_path
        self.seconds: dict[str, float] = {}
        if seconds_path is not None and seconds_path.exists():
            try:
                self.seconds = {name: float(spent) for name, spent in json.loads(seconds_path.read_bytes()).items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(f"{seconds_path} does not hold seconds ({error}): remove it to go on") from None
        self._known: dict[str, list[Outcome]] = {}
        if path is not None and path.exists():
            try:
                content = json.loads(path.read_bytes())
                self._known = {name: [Outcome(**entry) for entry in entries] for name, entries in content.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(f"{path} does not hold scores ({error}): remove it to take them again") from None

    def get(self, name: str, count: int, make: Callable[[Sequence[int]], Iterator[Outcome]]) -> list[Outcome]:
        """The outcomes of `count` learners, those that are not there made now and written one by one.

        Args:
          name: of the set that they train on.
          count: number of learners.
          make: yields the outcomes of the learners with these numbers.
        """
        known = self._known.setdefault(name, [])
        self.seconds.setdefault(name, 0.0)
        missing, began = range(len(known), count), time.monotonic()
        for made in make(missing) if missing else ():
            known.append(made)
            now = time.monotonic()
            self.seconds[name], began = self.seconds[name] + now - began, now
            if self._seconds_path is not None:
                atomic.write_text(self._seconds_path, dumps(self.seconds))
            if self._path is not None:
                atomic.write_text(self._path, dumps(self._known))
        return known[:count]


def values(outcomes: Sequence[Outcome]) -> list[float]:
    """The scores."""
    return [made.score for made in outcomes]


def parts(rows: Sequence[Sequence[Outcome]]) -> dict[str, list[list[float]]]:
    """Scores that the metric is a mean of, by name, laid out as `rows`: [distillation seeds, learners]."""
    names: dict[str, Any] = rows[0][0].parts
    return {name: [[made.parts[name] for made in row] for row in rows] for name in names}


def divergence_note(name: str, diverged: int, count: int) -> str:
    """The sentence that says how many learners of a set diverged."""
    return f"{diverged} of {count} learners trained on {name} diverged (their loss is not finite): they count as 0"
