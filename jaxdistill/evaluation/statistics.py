"""What many students' scores say: mean, spread, interval, and the difference of two methods."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxdistill.evaluation.metrics import percent


@dataclasses.dataclass(frozen=True)
class Summary:
    """Statistics of scores laid out as [distillation seeds, students a seed]; fractions, or differences of them.

    Attributes:
      mean: over all students.
      std: over all students of all seeds pooled; `None` where n <= ddof.
      ddof: what `std` subtracts from n in its denominator.
      n: number of students, all seeds together.
      values: the scores, one row a distillation seed.
      ci95: 95 % t-interval of the mean, or `None` for fewer than two independent units.
      clustered: True when the units of `ci95` are the means of the distillation seeds. False when there is one seed
        only: then they are its students, and the interval says nothing of how much another distillation would differ.
    """

    mean: float
    std: float | None
    ddof: int
    n: int
    values: tuple[tuple[float, ...], ...]
    ci95: tuple[float, float] | None
    clustered: bool

    def to_json(self) -> dict[str, Any]:
        """The entry of `result.json`: in percent, with `values` flat, seed after seed, and their number of seeds."""
        return {
            "mean": percent(self.mean),
            "std": None if self.std is None else percent(self.std),
            "ddof": self.ddof,
            "n": self.n,
            "seeds": len(self.values),
            "values": [percent(value) for row in self.values for value in row],
            "ci95": None if self.ci95 is None else [percent(bound) for bound in self.ci95],
            "clustered": self.clustered,
        }


def summarise(scores: Any, *, ddof: int = 1) -> Summary:
    """Summarise scores [distillation seeds, students]; a vector is the students of one seed.

    Students of one distilled set are not independent of each other: what differs between distillations is common to
    them all. So with several seeds the interval is taken over the seeds' means (every seed has as many students).

    Raises:
      ValueError: no score, a non-finite one, or an array of more than two axes.
    """
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"scores must be finite and [seeds, students], at least one: got {np.asarray(scores)!r}")
    clustered = len(table) > 1
    units = table.mean(axis=1) if clustered else table[0]
    return Summary(
        mean=float(table.mean()),
        std=float(table.std(ddof=ddof)) if table.size > ddof else None,
        ddof=ddof,
        n=table.size,
        values=tuple(tuple(row) for row in table.tolist()),
        ci95=_t_interval(units),
        clustered=clustered,
    )


def paired_difference(a: Any, b: Any, *, ddof: int = 1) -> Summary:
    """Summary of `a - b`, score by score: entry i of both must share what can be shared (the student's seed, the
    distillation seed), so that this common part of their variance drops out of the interval.

    Raises:
      ValueError: the shapes differ, or as `summarise`.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"scores to pair must have one shape: got {first.shape} and {second.shape}")
    return summarise(first - second, ddof=ddof)


def _t_interval(units: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean of independent, roughly normal numbers."""
    if len(units) < 2:
        return None
    from scipy.stats import t

    centre = units.mean()
    reach = t.ppf(0.975, len(units) - 1) * units.std(ddof=1) / np.sqrt(len(units))
    return float(centre - reach), float(centre + reach)
