"""How differently a classifier treats groups of people, computed from the confusion counts of each group.

Counts of disjoint sets of examples add up, as those of `metrics` do, so one tensor of counts is all that a loop has to
keep. Rates and gaps are fractions. A cell is one class in one group; a rate of a cell without examples is undefined,
so such cells are left out and `coverage` says how much was compared.

Source: Han et al., "Towards Fair (Supervised) Dataset Distillation for Text Classification", SustaiNLP 2022, with the
measures of fairlib (Han et al., EMNLP 2022 demonstrations).
"""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation import metrics

Counts = Int[Array | np.ndarray, "g c c"]
Rate = Literal["tpr", "tnr", "fpr", "ppr"]
Centre = Literal["pooled", "mean"]
# What fairlib adds to every count; it makes the recall of an empty cell 0.5.
FAIRLIB_SMOOTHING = 1e-5


def group_confusion(
    logits: Float[Array, "n c"],
    labels: Int[Array, " n"],
    groups: Int[Array, " n"],
    weights: Float[Array, " n"] | None = None,
    *,
    num_groups: int,
) -> Int[Array, "g c c"]:
    """Counts of (group, true class, predicted class); jit- and vmap-friendly, and mergeable by addition.

    Args:
      logits: class scores; the prediction is the first class of the highest score.
      labels: true classes.
      groups: group of each example, 0 to `num_groups` - 1 (`data.balance.check_groups` makes sure of it).
      weights: an example of weight 0 (filler) is not counted, any other counts once. `None` counts all.
      num_groups: g; static.

    Returns:
      int32 counts: entry (k, i, j) is how many examples of group k and class i were called j.
    """
    classes = logits.shape[-1]
    counted = jnp.ones(labels.shape, jnp.int32) if weights is None else (weights > 0).astype(jnp.int32)
    predicted = jnp.argmax(logits, axis=-1)
    return jnp.zeros((num_groups, classes, classes), jnp.int32).at[groups, labels, predicted].add(counted)


def group_rates(counts: Counts, rate: Rate = "tpr", *, smoothing: float = 0.0) -> Float[np.ndarray, "c g"]:
    """A rate of each class in each group, one class against the rest.

    Args:
      counts: see `group_confusion`.
      rate: "tpr" is the recall TP / (TP + FN), "tnr" is TN / (TN + FP), "fpr" is FP / (FP + TN), and "ppr" is the share
        of the group's examples that are called by this class.
      smoothing: added to each of TP, FP, FN and TN.

    Returns:
      float64 rates; NaN where there is nothing to divide by.

    Raises:
      ValueError: no example was counted.
    """
    return _rates(_as_counts(counts), rate, smoothing).T


def gap(
    counts: Counts,
    rate: Rate = "tpr",
    *,
    smoothing: float = 0.0,
    group_power: float | None = None,
    class_power: float = 2.0,
    centre: Centre = "pooled",
) -> float:
    """GAP: how far the rates of the groups lie apart, aggregated over groups and then over classes.

    With r_cg the rate of class c in group g and r_c its centre, gap_c = Σ_g |r_cg − r_c| and
    GAP = sqrt(mean_c gap_c²). For two groups gap_c = |r_c0 − r_c1|, however large the groups and whatever the centre
    between the two, so that GAP is the root mean square of the differences (Ravfogel et al. 2020, INLP). For more
    groups it may exceed 1. Cells without examples add nothing; classes with fewer than two groups are left out.

    Args:
      counts: see `group_confusion`.
      rate: which rate is compared; see `group_rates`.
      smoothing: added to each of TP, FP, FN and TN, of the groups and of their sum; cells without examples then count.
        `FAIRLIB_SMOOTHING` gives the numbers of fairlib (whose TN is 3e-5 smaller: no matter but for "tnr" and "fpr" of
        an empty cell).
      group_power: gap_c is the generalised mean of this power over groups in place of the sum; `inf` is the largest.
      class_power: power of the generalised mean over classes.
      centre: r_c is the rate of all examples together ("pooled", as in fairlib) or the mean of the groups' rates.

    Raises:
      ValueError: no class has the rate in two groups, so that nothing can be compared; a power that is not positive.
    """
    host = _as_counts(counts)
    rates = _rates(host, rate, smoothing)
    comparable = _comparable(rates)
    if not comparable.any():
        raise ValueError("no class has examples in two groups: there is nothing to compare")
    rates = rates[:, comparable]
    middle = _rates(host.sum(axis=0), rate, smoothing)[comparable] if centre == "pooled" else np.nanmean(rates, axis=0)
    deviations = np.abs(rates - middle[None])
    of_class = np.nansum(deviations, axis=0) if group_power is None else _power_mean(deviations, group_power)
    return float(_power_mean(of_class, class_power))


def coverage(counts: Counts) -> float:
    """Share of the cells whose recall enters `gap`: they hold examples, and so does another group of their class.

    Raises:
      ValueError: no example was counted.
    """
    rates = _rates(_as_counts(counts), "tpr", 0.0)
    return float((~np.isnan(rates) & _comparable(rates)[None]).mean())


def fairness(counts: Counts, *, smoothing: float = 0.0) -> float:
    """1 − GAP of the recalls.

    Raises:
      ValueError: as `gap`.
    """
    return 1.0 - gap(counts, smoothing=smoothing)


def equalised_odds(counts: Counts, *, smoothing: float = 0.0) -> float:
    """The larger of the gaps in true and in false positive rates (Hardt et al. 2016 ask for both to be 0).

    Raises:
      ValueError: as `gap`.
    """
    return max(gap(counts, "tpr", smoothing=smoothing), gap(counts, "fpr", smoothing=smoothing))


def demographic_parity(counts: Counts, *, smoothing: float = 0.0) -> float:
    """Gap in the shares that are called by each class, whatever the true one; 0 is parity.

    Raises:
      ValueError: as `gap`.
    """
    return gap(counts, "ppr", smoothing=smoothing)


def accuracy(counts: Counts) -> float:
    """Fraction of all examples called by their true class.

    Raises:
      ValueError: no example was counted.
    """
    return metrics.accuracy(_as_counts(counts).sum(axis=0))


def worst_group_accuracy(counts: Counts) -> float:
    """Accuracy in the group where it is least, among the groups that have examples.

    Raises:
      ValueError: no example was counted.
    """
    return min(metrics.accuracy(of_group) for of_group in _as_counts(counts) if of_group.any())


def dto(accuracy: float, gap: float) -> float:
    """Distance to the optimum, accuracy 1 and GAP 0: sqrt((1 − accuracy)² + GAP²)."""
    return float(np.hypot(1.0 - accuracy, gap))


def normalised_dto(accuracies: Float[np.ndarray, " m"], fairnesses: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Distance of each candidate to the best accuracy and the best fairness found among them, as fairlib's tables
    have it: both are divided by their maxima first, so that a number says nothing outside its table.

    Args:
      accuracies: of each candidate.
      fairnesses: 1 − GAP of each candidate.

    Raises:
      ValueError: no candidate, or a maximum that is not positive.
    """
    if not len(accuracies) or min(np.max(accuracies), np.max(fairnesses)) <= 0:
        raise ValueError(f"there must be a positive accuracy and fairness: got {accuracies} and {fairnesses}")
    return np.hypot(1.0 - accuracies / np.max(accuracies), 1.0 - fairnesses / np.max(fairnesses))


def fairness_scores(
    counts: Counts,
    *,
    smoothing: float = 0.0,
    names: tuple[tuple[str, ...], tuple[str, ...]] | None = None,
) -> dict[str, float]:
    """All scores of this module that one tensor of counts gives.

    Args:
      counts: see `group_confusion`.
      smoothing: see `gap`.
      names: of the classes and of the groups; with them, the recall of each cell is given too.

    Returns:
      "accuracy", "worst_group_accuracy", "gap" (of recalls), "tnr_gap", "fpr_gap", "equalised_odds",
      "demographic_parity", "fairness", "dto", "coverage", and "tpr/<class>/<group>" of each cell that has one.

    Raises:
      ValueError: as `gap`.
    """
    scores = {"accuracy": accuracy(counts), "worst_group_accuracy": worst_group_accuracy(counts)}
    scores["gap"] = gap(counts, smoothing=smoothing)
    scores |= {f"{rate}_gap": gap(counts, rate, smoothing=smoothing) for rate in ("tnr", "fpr")}
    scores["equalised_odds"] = equalised_odds(counts, smoothing=smoothing)
    scores["demographic_parity"] = demographic_parity(counts, smoothing=smoothing)
    scores["fairness"] = 1.0 - scores["gap"]
    scores["dto"] = dto(scores["accuracy"], scores["gap"])
    scores["coverage"] = coverage(counts)
    if names is not None:
        for label, of_groups in zip(names[0], group_rates(counts, smoothing=smoothing), strict=True):
            for group, value in zip(names[1], of_groups, strict=True):
                if not np.isnan(value):
                    scores[f"tpr/{label}/{group}"] = float(value)
    return scores


def leakage(
    train_features: Float[Array | np.ndarray, "n d"],
    train_groups: Int[Array | np.ndarray, " n"],
    test_features: Float[Array | np.ndarray, "m d"],
    test_groups: Int[Array | np.ndarray, " m"],
) -> float:
    """How well hidden features tell the group: test accuracy of a linear support vector machine fitted on train.

    C is 0.1 and the groups weigh alike in the fit. What guessing scores is the share of the larger group in test.

    Raises:
      UserError: features that are not finite; a training split of one group.
    """
    from sklearn.svm import LinearSVC

    for where, features in (("train", train_features), ("test", test_features)):
        if not np.isfinite(np.asarray(features)).all():
            raise UserError(f"leakage: {where} features must be finite")
    if len(np.unique(train_groups)) < 2:
        raise UserError("leakage: train must hold examples of at least 2 groups")
    # The primal problem: there are far more examples than features, and it draws nothing at random.
    # scikit-learn has no annotations, so `dual` is taken for a string after its default "auto".
    machine = LinearSVC(C=0.1, class_weight="balanced", dual=False, max_iter=10_000)  # pyright: ignore
    machine.fit(np.asarray(train_features, np.float64), np.asarray(train_groups))
    return float(machine.score(np.asarray(test_features, np.float64), np.asarray(test_groups)))


def _rates(counts: np.ndarray, rate: Rate, smoothing: float) -> np.ndarray:
    """[..., c] rates of [..., c, c] counts; NaN where there is nothing to divide by."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    missed, wrong = counts.sum(axis=-1) - hits, counts.sum(axis=-2) - hits
    rest = counts.sum(axis=(-2, -1))[..., None] - hits - missed - wrong
    tp, fn, fp, tn = (part + smoothing for part in (hits, missed, wrong, rest))
    shares = {"tpr": (tp, tp + fn), "tnr": (tn, tn + fp), "fpr": (fp, fp + tn), "ppr": (tp + fp, tp + fp + fn + tn)}
    part, whole = shares[rate]
    return np.divide(part, whole, out=np.full(hits.shape, np.nan), where=whole > 0)


def _comparable(rates: np.ndarray) -> np.ndarray:
    """Which classes have a rate in two groups or more; `rates` is [g, c]."""
    return (~np.isnan(rates)).sum(axis=0) >= 2


def _power_mean(values: np.ndarray, power: float) -> np.ndarray:
    """Generalised mean over the first axis of numbers that are not negative; NaN entries are left out."""
    if not power > 0:
        raise ValueError(f"the power of a mean of gaps must be positive: got {power}")
    if np.isinf(power):
        return np.asarray(np.nanmax(values, axis=0))
    return np.asarray(np.nanmean(values**power, axis=0) ** (1.0 / power))


def _as_counts(counts: Any) -> np.ndarray:
    """Host copy in 64 bits, so that summing the counts of a large split cannot overflow."""
    host = np.asarray(counts).astype(np.int64)
    if not host.sum():
        raise ValueError("no example was counted: a score of nothing is undefined")
    return host
