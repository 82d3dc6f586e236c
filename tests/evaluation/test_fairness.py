"""Fairness scores against hand cases, against their formulae in numpy, and where cells are empty."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation import fairness, metrics

RNG = np.random.default_rng(0)


def binary(recalls: tuple[tuple[float, float], ...], sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Counts [g, 2, 2] with these recalls of each class in each group; entry (c, g) of both."""
    counts = np.zeros((len(recalls[0]), 2, 2), np.int64)
    for label, (of_groups, numbers) in enumerate(zip(recalls, sizes, strict=True)):
        for group, (recall, n) in enumerate(zip(of_groups, numbers, strict=True)):
            hits = round(recall * n)
            counts[group, label, label], counts[group, label, 1 - label] = hits, n - hits
    return counts


def random_counts(groups: int, classes: int) -> np.ndarray:
    return RNG.integers(1, 60, size=(groups, classes, classes))


def fairlib_scores(counts: np.ndarray, rest: float) -> dict[str, np.ndarray]:
    """Rates of one confusion matrix with 1e-5 added to its counts; `rest` is what is added to TN."""
    hits = np.array([counts[c, c] for c in range(len(counts))])
    fp, fn, tp = (x + 1e-5 for x in (counts.sum(0) - hits, counts.sum(1) - hits, hits))
    tn = counts.sum() - (counts.sum(0) + counts.sum(1) - hits) + rest
    return {"tpr": tp / (tp + fn), "tnr": tn / (tn + fp), "fpr": fp / (fp + tn), "ppr": (tp + fp) / (tp + fp + fn + tn)}


def fairlib_gap(counts: np.ndarray, rate: str, power: float | None = None, rest: float = 1e-5) -> float:
    overall = fairlib_scores(counts.sum(0), rest)[rate]
    gaps = np.stack([fairlib_scores(of_group, rest)[rate] - overall for of_group in counts], axis=1)
    of_class = np.abs(gaps).sum(1) if power is None else np.mean(np.abs(gaps) ** power, axis=1) ** (1 / power)
    return float(np.sqrt(np.mean(of_class**2)))


@pytest.mark.parametrize("sizes", [((10, 10), (10, 10)), ((1000, 10), (20, 500)), ((10, 400), (700, 30))])
@pytest.mark.parametrize("centre", ["pooled", "mean"])
def test_the_hand_case_holds_for_groups_of_any_size(sizes, centre):
    counts = binary(((0.9, 0.5), (0.8, 0.6)), sizes)
    np.testing.assert_allclose(fairness.group_rates(counts), [[0.9, 0.5], [0.8, 0.6]])
    assert fairness.gap(counts, centre=centre) == pytest.approx(math.sqrt(0.1), abs=1e-12)
    assert fairness.fairness(counts) == pytest.approx(1 - 0.3162278, abs=1e-7)


def test_two_groups_give_the_root_mean_square_difference_and_three_do_not():
    counts = random_counts(2, 5)
    rates = fairness.group_rates(counts)
    assert fairness.gap(counts) == pytest.approx(np.sqrt(np.mean((rates[:, 0] - rates[:, 1]) ** 2)), abs=1e-12)
    # Three groups of recalls .9, .8, .1 and equal size lie .3, .2 and .5 from their mean, which sums to 1; the largest
    # difference is .8.
    three = binary(((0.9, 0.8, 0.1), (1.0, 1.0, 1.0)), ((10, 10, 10), (10, 10, 10)))
    spread = np.ptp(fairness.group_rates(three), axis=1)
    assert fairness.gap(three) == pytest.approx(math.sqrt(0.5))
    assert np.sqrt(np.mean(spread**2)) == pytest.approx(math.sqrt(0.32))


def test_the_centre_matters_for_three_groups():
    counts = binary(((0.9, 0.8, 0.1), (1.0, 1.0, 1.0)), ((10, 10, 80), (10, 10, 10)))
    pooled = (9 + 8 + 8) / 100
    expected = abs(0.9 - pooled) + abs(0.8 - pooled) + abs(0.1 - pooled)
    assert fairness.gap(counts, class_power=math.inf) == pytest.approx(expected)
    assert fairness.gap(counts, class_power=math.inf, centre="mean") == pytest.approx(1.0)


@pytest.mark.parametrize("groups", [2, 3])
def test_parity_with_the_formulae_of_fairlib(groups):
    for _ in range(5):
        counts = random_counts(groups, 4)
        for rate in ("tpr", "tnr", "fpr", "ppr"):
            found = fairness.gap(counts, rate, smoothing=fairness.FAIRLIB_SMOOTHING)
            assert found == pytest.approx(fairlib_gap(counts, rate), abs=1e-12)
            # fairlib takes TN as the rest after smoothing the others, so it is smaller by 3e-5 than meant.
            assert found == pytest.approx(fairlib_gap(counts, rate, rest=-2e-5), abs=1e-6)
        found = fairness.gap(counts, smoothing=fairness.FAIRLIB_SMOOTHING, group_power=4.0)
        assert found == pytest.approx(fairlib_gap(counts, "tpr", power=4.0), abs=1e-12)


def test_powers_choose_the_mean():
    counts = binary(((0.9, 0.5), (0.8, 0.6)), ((10, 10), (10, 10)))
    assert fairness.gap(counts, class_power=1.0) == pytest.approx(0.3)
    assert fairness.gap(counts, class_power=math.inf) == pytest.approx(0.4)
    assert fairness.gap(counts, group_power=1.0, class_power=1.0) == pytest.approx(0.15)
    assert fairness.gap(counts, group_power=math.inf, class_power=math.inf) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="power of a mean of gaps must be positive: got 0"):
        fairness.gap(counts, class_power=0.0)


@pytest.mark.parametrize("kind", ["perfect", "constant"])
def test_perfect_and_constant_classifiers_are_fair(kind):
    sizes = RNG.integers(1, 50, size=(3, 4))
    counts = np.zeros((3, 4, 4), np.int64)
    for group in range(3):
        counts[group, range(4), range(4) if kind == "perfect" else 1] = sizes[group]
    scores = fairness.fairness_scores(counts)
    for name in ("gap", "tnr_gap", "fpr_gap", "equalised_odds"):
        assert scores[name] == pytest.approx(0, abs=1e-12)
    assert scores["fairness"] == pytest.approx(1)
    # A perfect classifier calls as many of each class as there are, which differs between these groups.
    assert (scores["demographic_parity"] > 0.01) == (kind == "perfect")


def test_an_empty_cell_is_left_out_and_coverage_says_so():
    counts = binary(((0.9, 0.5), (0.8, 0.6)), ((10, 10), (10, 0)))
    assert np.isnan(fairness.group_rates(counts)[1, 1])
    assert fairness.gap(counts) == pytest.approx(0.4)
    assert fairness.coverage(counts) == 0.5
    assert fairness.coverage(random_counts(2, 3)) == 1.0
    smoothed = fairness.group_rates(counts, smoothing=fairness.FAIRLIB_SMOOTHING)
    assert smoothed[1, 1] == 0.5
    assert fairness.gap(counts, smoothing=1e-5) == pytest.approx(math.sqrt((0.4**2 + 0.3**2) / 2), abs=1e-4)
    three = np.concatenate([counts, counts[:1]])
    assert fairness.coverage(three) == pytest.approx(5 / 6)


def test_nothing_to_compare_is_an_error():
    alone = binary(((0.9, 0.0), (0.8, 0.0)), ((10, 0), (10, 0)))
    with pytest.raises(ValueError, match="no class has examples in two groups"):
        fairness.gap(alone)
    assert fairness.coverage(alone) == 0.0
    assert fairness.worst_group_accuracy(alone) == pytest.approx(0.85)
    with pytest.raises(ValueError, match="no example was counted"):
        fairness.gap(np.zeros((2, 2, 2), np.int32))


def test_all_scores_of_a_hand_case():
    counts = binary(((0.9, 0.5), (0.8, 0.6)), ((10, 10), (10, 10)))
    names = (("negative", "positive"), ("a", "b"))
    found = fairness.fairness_scores(counts, names=names)
    gap = math.sqrt(0.1)
    expected = {
        "accuracy": 0.7,
        "worst_group_accuracy": 0.55,
        "gap": gap,
        "tnr_gap": gap,  # of two classes, the true negatives of one are the true positives of the other
        "fpr_gap": gap,
        "equalised_odds": gap,
        "demographic_parity": 0.1,  # called negative: .55 of group a, .45 of group b
        "fairness": 1 - gap,
        "dto": math.sqrt(0.3**2 + 0.1),
        "coverage": 1.0,
        "tpr/negative/a": 0.9,
        "tpr/negative/b": 0.5,
        "tpr/positive/a": 0.8,
        "tpr/positive/b": 0.6,
    }
    assert found == pytest.approx(expected)
    assert "tpr/negative/a" not in fairness.fairness_scores(counts)


def test_distance_to_the_optimum():
    assert fairness.dto(1.0, 0.0) == 0.0
    assert fairness.dto(0.7, 0.4) == pytest.approx(0.5)
    found = fairness.normalised_dto(np.array([0.8, 0.6]), np.array([0.45, 0.9]))
    np.testing.assert_allclose(found, [0.5, 0.25])
    with pytest.raises(ValueError, match="positive accuracy and fairness"):
        fairness.normalised_dto(np.array([]), np.array([]))


def test_counting_skips_filler_and_maps_over_students():
    labels, groups = jnp.asarray(RNG.integers(3, size=40)), jnp.asarray(RNG.integers(2, size=40))
    logits = jnp.asarray(RNG.normal(size=(2, 40, 3)).astype(np.float32))
    weights = (jnp.arange(40) < 30).astype(jnp.float32) * 2.5

    @jax.jit
    def count(logits):
        return fairness.group_confusion(logits, labels, groups, weights, num_groups=2)

    counts = jax.vmap(count)(logits)
    assert counts.shape == (2, 2, 3, 3) and counts.dtype == jnp.int32
    for student in range(2):
        expected = np.zeros((2, 3, 3), int)
        for i in range(30):
            expected[groups[i], labels[i], int(logits[student, i].argmax())] += 1
        np.testing.assert_array_equal(counts[student], expected)
        pooled = metrics.confusion(logits[student], labels, weights)
        assert fairness.accuracy(counts[student]) == metrics.accuracy(pooled)
        worst = min(np.trace(of_group) / of_group.sum() for of_group in expected)
        assert fairness.worst_group_accuracy(counts[student]) == pytest.approx(worst)


def test_leakage_finds_the_group_and_only_the_group():
    groups = np.repeat([0, 1], [150, 50])
    noise = RNG.normal(size=(400, 5)).astype(np.float32)
    told = noise.copy()
    told[:200, 2] += 6 * groups
    told[200:, 2] += 6 * groups
    found = fairness.leakage(told[:200], groups, told[200:], groups)
    assert found > 0.95
    assert found == fairness.leakage(jnp.asarray(told[:200]), jnp.asarray(groups), told[200:], groups)
    # Groups weigh alike in the fit, so features that say nothing do not lead it to guess the larger group.
    assert 0.35 < fairness.leakage(noise[:200], groups, noise[200:], groups) < 0.68


def test_leakage_refuses_what_it_cannot_fit():
    features, groups = np.ones((4, 2)), np.array([0, 0, 1, 1])
    with pytest.raises(UserError, match="train must hold examples of at least 2 groups"):
        fairness.leakage(features, np.zeros(4, int), features, groups)
    with pytest.raises(UserError, match="test features must be finite"):
        fairness.leakage(features, groups, np.full((4, 2), np.nan), groups)
