from __future__ import annotations

import json

import numpy as np
import pytest

from jaxdistill.evaluation.statistics import crossed_difference, paired_difference, summarise


def test_one_seed_interval_is_over_its_students():
    summary = summarise([0.1, 0.2, 0.3, 0.4])
    # t(0.975, 3) = 3.1824; standard error = 0.129099 / 2.
    assert summary.mean == pytest.approx(0.25)
    assert summary.std == pytest.approx(0.129099, abs=1e-6)
    assert summary.ci95 == pytest.approx((0.25 - 0.205426, 0.25 + 0.205426), abs=1e-6)
    assert (summary.n, summary.clustered, summary.ddof) == (4, False, 1)


def test_several_seeds_are_the_units_of_the_interval():
    summary = summarise([[0.7, 0.9], [0.5, 0.7], [0.6, 0.8]])
    # Seed means 0.8, 0.6, 0.7; t(0.975, 2) = 4.30265; standard error = 0.1 / sqrt(3).
    assert summary.ci95 == pytest.approx((0.7 - 0.248414, 0.7 + 0.248414), abs=1e-6)
    assert summary.std == pytest.approx(np.std([0.7, 0.9, 0.5, 0.7, 0.6, 0.8], ddof=1))
    assert summary.clustered and summary.n == 6


def test_interval_equals_scipy():
    from scipy.stats import ttest_1samp

    scores = np.random.default_rng(0).normal(0.8, 0.02, size=30)
    reference = ttest_1samp(scores, 0.0).confidence_interval(0.95)
    assert summarise(scores).ci95 == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    scores = rng.normal(0.0, 1.0, size=(600, 4, 1)) + rng.normal(0.0, 0.5, size=(600, 4, 10))

    def coverage(runs) -> float:
        bounds = np.array([summarise(run).ci95 for run in runs])
        return float(np.mean((bounds[:, 0] < 0.0) & (bounds[:, 1] > 0.0)))

    assert 0.92 < coverage(scores) < 0.98
    assert coverage(scores.reshape(600, -1)) < 0.6, "the case clustering is for"


def test_ddof_zero_is_the_population_formula():
    assert summarise([0.0, 1.0], ddof=0).std == pytest.approx(0.5)


def test_one_student_has_no_spread():
    summary = summarise([0.5])
    assert (summary.mean, summary.std, summary.ci95, summary.n) == (0.5, None, None, 1)
    assert summarise([0.5], ddof=0).std == 0.0


def test_pairing_removes_what_is_common():
    common = np.random.default_rng(2).normal(0.7, 0.1, size=(1, 50))
    difference = paired_difference(common + 0.02, common)
    assert difference.mean == pytest.approx(0.02)
    assert difference.std == pytest.approx(0.0, abs=1e-12)
    assert difference.ci95 == pytest.approx((0.02, 0.02), abs=1e-9)


def test_paired_difference_is_clustered_by_seed():
    a, b = np.array([[0.9, 0.7], [0.8, 0.8]]), np.array([[0.5, 0.5], [0.6, 0.6]])
    difference = paired_difference(a, b)
    # Differences of the seed means 0.3 and 0.2; t(0.975, 1) = 12.7062; standard error = 0.05.
    assert difference.clustered
    assert difference.ci95 == pytest.approx((0.25 - 0.635310, 0.25 + 0.635310), abs=1e-6)


def test_crossed_difference_has_the_variance_of_both():
    own, base = np.array([[0.9, 0.7, 0.8], [0.8, 0.9, 0.7]]), np.array([0.5, 0.6, 0.4])
    difference = crossed_difference(own, base)
    # d = [.4 .1 .4; .3 .3 .3]: seed means .3 .3 (variance 0), learner means .35 .2 .35 (variance .0075);
    # standard error sqrt(0 / 2 + .0075 / 3) = .05; t(0.975, 1) = 12.7062.
    assert difference.mean == pytest.approx(0.3)
    assert difference.ci95 == pytest.approx((0.3 - 0.635310, 0.3 + 0.635310), abs=1e-6)
    assert difference.clustered and difference.n == 6


def test_crossed_difference_is_not_narrowed_by_more_seeds_of_one_baseline():
    """What pairing seed by seed got wrong: a baseline's own spread stays however many distillations there are."""
    base = np.array([0.4, 0.5, 0.6, 0.7])
    own = np.full((50, 4), 0.8)
    low, high = crossed_difference(own, base).ci95
    # Standard error sqrt(var(base) / 4) = 0.0645497; t(0.975, 3) = 3.18245.
    assert (low, high) == pytest.approx((0.25 - 0.205426, 0.25 + 0.205426), abs=1e-6)
    assert np.ptp(paired_difference(own, np.tile(base, (50, 1))).ci95) < 1e-6


@pytest.mark.parametrize("own, base", [([[0.1, 0.2]], [0.1, 0.2]), ([[0.1], [0.2]], [0.1]), ([[0, 1], [1, 0]], [0])])
def test_scores_that_do_not_cross_are_refused(own, base):
    with pytest.raises(ValueError, match=r"\[seeds, learners\] and \[learners\], 2 or more of each"):
        crossed_difference(own, base)


def test_json_is_in_percent_and_flat():
    entry = summarise([[0.5, 0.25], [1.0, 0.75]]).to_json()
    assert json.loads(json.dumps(entry)) == entry
    assert entry["mean"] == 62.5 and entry["values"] == [50.0, 25.0, 100.0, 75.0]
    assert (entry["n"], entry["seeds"], entry["ddof"], entry["clustered"]) == (4, 2, 1, True)
    assert entry["ci95"][0] < 62.5 < entry["ci95"][1]
    assert summarise([0.5]).to_json()["std"] is None


@pytest.mark.parametrize("scores", [[], [0.1, float("nan")], np.zeros((2, 2, 2))])
def test_impossible_scores_are_refused(scores):
    with pytest.raises(ValueError, match=r"scores must be finite and \[seeds, students\]"):
        summarise(scores)


def test_scores_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match=r"one shape: got \(2,\) and \(3,\)"):
        paired_difference([0.1, 0.2], [0.1, 0.2, 0.3])
