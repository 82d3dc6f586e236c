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
    mean = float(table.mean())
    return Summary(
        mean=mean,
        std=float(table.std(ddof=ddof)) if table.size > ddof else None,
        ddof=ddof,
        n=table.size,
        values=tuple(tuple(row) for row in table.tolist()),
        ci95=_t_interval(units, mean),
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


def crossed_difference(own: Any, base: Any) -> Summary:
    """Difference of a method with several distillation seeds to a baseline without any, learner by learner.

    Entry (s, i) of `own` and entry i of `base` share learner i, and all seeds meet the same baseline scores. So both
    the seeds and the learners are samples, crossed: with d = own - base, the variance of the mean of d is taken as
    var(d averaged over learners) / S + var(d averaged over seeds) / n, and the degrees of freedom as those of the
    smaller sample. Where one of the two varies little this is close to the interval over the other; it is never
    narrower than either.

    Args:
      own: scores [S seeds, n learners] of the method, S and n at least 2.
      base: scores [n learners] of the baseline.

    Raises:
      ValueError: other shapes, or a non-finite score.
    """
    first, second = np.asarray(own, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if first.ndim != 2 or min(first.shape) < 2 or second.shape != first.shape[1:]:
        raise ValueError(
            f"scores to cross must be [seeds, learners] and [learners], 2 or more of each: "
            f"got {first.shape} and {second.shape}"
        )
    difference = first - second[None]
    of_seeds, of_learners = difference.mean(axis=1), difference.mean(axis=0)
    variance = of_seeds.var(ddof=1) / len(of_seeds) + of_learners.var(ddof=1) / len(of_learners)
    summary = summarise(difference)
    interval = _interval(summary.mean, float(np.sqrt(variance)), min(first.shape) - 1)
    return dataclasses.replace(summary, ci95=interval)


def _t_interval(units: np.ndarray, mean: float) -> tuple[float, float] | None:
    """95 % interval of the mean of independent, roughly normal numbers."""
    if len(units) < 2:
        return None
    return _interval(mean, float(units.std(ddof=1) / np.sqrt(len(units))), len(units) - 1)


def _interval(centre: float, standard_error: float, freedom: int) -> tuple[float, float]:
    from scipy.stats import t

    reach = float(t.ppf(0.975, freedom)) * standard_error
    return centre - reach, centre + reach
