"""What attacks prove of a claim of privacy: lower bounds of epsilon, never guarantees.

Sources: Jagielski, Ullman, Oprea (NeurIPS 2020) for bounds by error rates of a test; Steinke, Nasr, Jagielski (NeurIPS
2023) for audits by one run.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdistill.core.errors import UserError
from jaxdistill.io.plain import plain


@dataclasses.dataclass(frozen=True)
class Attack:
    """How well scores tell members from others.

    Attributes:
      auc: probability that a member's score is above another's, ties half.
      auc_low, auc_high: its interval, by DeLong's variance.
      true_positives: share of members above the threshold that the given share of others exceeds.
      true_positives_low, true_positives_high: Clopper-Pearson interval of that share, the threshold taken as given.
      false_positives: that share of others, at most.
      members, others: how many there were.
    """

    auc: float
    auc_low: float
    auc_high: float
    true_positives: float
    true_positives_low: float
    true_positives_high: float
    false_positives: float
    members: int
    others: int

    def to_json(self) -> dict[str, Any]:
        return plain(self)


def attack(
    members: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
    *,
    false_positives: float = 0.01,
    significance: float = 0.05,
) -> Attack:
    """How well scores tell members, which have the higher ones, from others.

    Args:
      members: scores of records that were used.
      others: scores of records that were not.
      false_positives: share of others that may be taken for members.
      significance: of the intervals, both sides together.

    Raises:
      UserError: fewer than two scores on a side, or one that is not finite.
    """
    _check(members, others)
    above, variance = _auc(members, others)
    half = _normal_quantile(1.0 - significance / 2.0) * math.sqrt(variance)
    threshold = _threshold(others, false_positives)
    caught = int(np.sum(members > threshold))
    low, high = clopper_pearson(caught, len(members), significance)
    return Attack(
        auc=above,
        auc_low=max(0.0, above - half),
        auc_high=min(1.0, above + half),
        true_positives=caught / len(members),
        true_positives_low=low,
        true_positives_high=high,
        false_positives=float(np.mean(others > threshold)),
        members=len(members),
        others=len(others),
    )


def clopper_pearson(successes: int, trials: int, significance: float = 0.05) -> tuple[float, float]:
    """Exact interval of a share, `significance / 2` on each side."""
    from scipy.stats import beta

    low = 0.0 if successes == 0 else float(beta.ppf(significance / 2, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.ppf(1 - significance / 2, successes + 1, trials - successes))
    return low, high


def epsilon_from_errors(
    caught: int, members: int, mistaken: int, others: int, *, delta: float, significance: float = 0.05
) -> float:
    """Lower bound of epsilon from a test's errors: ln((TPR_low - delta) / FPR_high), 0 where that is less.

    Holds with probability 1 - significance where the threshold was chosen on other runs.

    Args:
      caught: members that the test calls members.
      members: all of them.
      mistaken: others that it calls members.
      others: all of them.
      delta: of the claim.
      significance: half of it for each rate.
    """
    low, high = clopper_pearson(caught, members, significance)[0], clopper_pearson(mistaken, others, significance)[1]
    return max(0.0, math.log((low - delta) / high)) if low > delta else 0.0


def epsilon_from_scores(
    members: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
    *,
    delta: float,
    significance: float = 0.05,
) -> float:
    """Lower bound of epsilon from scores of runs with and without a record.

    The threshold, and which side of it means a member, are chosen on the first half of each; the bound is that of the
    second halves, which must be independent of the first.

    Raises:
      UserError: see `attack`.
    """
    _check(members, others)
    halves = [(np.asarray(x)[: len(x) // 2], np.asarray(x)[len(x) // 2 :]) for x in (members, others)]
    (train_members, test_members), (train_others, test_others) = halves
    if not len(train_members) or not len(train_others):
        return 0.0
    best, chosen, z = -math.inf, (1.0, math.inf), _normal_quantile(1.0 - significance / 2.0)
    for sign in (1.0, -1.0):
        inside, outside = np.sort(sign * train_members), np.sort(sign * train_others)
        thresholds = np.unique(np.concatenate([inside, outside]))
        caught = len(inside) - np.searchsorted(inside, thresholds, "right")
        mistaken = len(outside) - np.searchsorted(outside, thresholds, "right")
        # A rough bound is enough to choose by.
        values = _rough_epsilon(caught / len(inside), len(inside), mistaken / len(outside), len(outside), delta, z)
        if (value := float(np.max(values))) > best:
            best, chosen = value, (sign, float(thresholds[np.argmax(values)]))
    sign, threshold = chosen
    caught = int(np.sum(sign * test_members > threshold))
    mistaken = int(np.sum(sign * test_others > threshold))
    return epsilon_from_errors(
        caught, len(test_members), mistaken, len(test_others), delta=delta, significance=significance
    )


def p_value_of_one_run(epsilon: float, canaries: int, guesses: int, correct: int, delta: float) -> float:
    """How likely so many correct guesses are under (epsilon, delta)-privacy, at most.

    P[X >= v] + 2 m delta max_{1 <= i <= v} (P[X >= v - i] - P[X >= v]) / i with X ~ Bin(r, 1 / (1 + e^-epsilon)).

    Args:
      epsilon: of the claim, 0 or more.
      canaries: m, each included with probability 1/2.
      guesses: r of them.
      correct: v of these.
      delta: of the claim.
    """
    from scipy.stats import binom

    probability = 1.0 / (1.0 + math.exp(-epsilon))
    tail = binom.sf(np.arange(correct, -1, -1) - 1, guesses, probability)  # P[X >= v], P[X >= v - 1], ...
    extra = 0.0
    if delta > 0.0 and correct > 0:
        extra = float(np.max((tail[1:] - tail[0]) / np.arange(1, correct + 1)))
    return min(1.0, float(tail[0]) + 2.0 * canaries * delta * extra)


def epsilon_from_one_run(
    canaries: int, guesses: int, correct: int, *, delta: float = 0.0, significance: float = 0.05
) -> float:
    """Largest epsilon that the guesses of one run refute, 0 where they refute none.

    Raises:
      UserError: more correct than guesses, or more guesses than canaries.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise UserError(
            f"{correct} correct of {guesses} guesses on {canaries} canaries: expected correct <= guesses <= canaries"
        )

    def refuted(epsilon: float) -> bool:
        return p_value_of_one_run(epsilon, canaries, guesses, correct, delta) <= significance

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2.0 * high
        if high > 64.0:
            return low
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def gaussian_auc(sigma: float) -> float:
    """AUC of the best test of one Gaussian release with a record of full length against one without."""
    return _normal(1.0 / (sigma * math.sqrt(2.0)))


def _check(members: np.ndarray, others: np.ndarray) -> None:
    for name, scores in (("members", members), ("others", others)):
        if len(scores) < 2:
            raise UserError(f"audit: {len(scores)} scores of {name}; at least 2 are needed")
        if not np.all(np.isfinite(scores)):
            raise UserError(f"audit: scores of {name} are not all finite")


def _auc(members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """AUC and DeLong's variance of it."""
    ordered_members, ordered_others = np.sort(members), np.sort(others)

    def below(x: np.ndarray, ordered: np.ndarray) -> np.ndarray:
        """Share of `ordered` below each, ties half."""
        return (np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")) / (2.0 * len(ordered))

    of_members, of_others = below(members, ordered_others), 1.0 - below(others, ordered_members)
    variance = np.var(of_members, ddof=1) / len(members) + np.var(of_others, ddof=1) / len(others)
    return float(np.mean(of_members)), float(variance)


def _threshold(others: np.ndarray, share: float) -> float:
    """The least score that no more than this share of others exceeds."""
    ordered = np.sort(others)
    return float(ordered[len(ordered) - 1 - math.floor(share * len(ordered))])


def _rough_epsilon(
    caught: np.ndarray, members: int, mistaken: np.ndarray, others: int, delta: float, z: float
) -> np.ndarray:
    """`epsilon_from_errors` of shares, by Wilson's score bounds at z standard deviations; -inf where there is none."""

    def bound(share: np.ndarray, trials: int, sign: float) -> np.ndarray:
        half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
        return (share + z * z / (2 * trials) + sign * half) / (1 + z * z / trials)

    above = bound(caught, members, -1.0) - delta
    return np.where(above > 0, np.log(np.maximum(above, 1e-300) / bound(mistaken, others, 1.0)), -math.inf)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)
