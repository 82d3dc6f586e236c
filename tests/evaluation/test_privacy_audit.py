"""Bounds of epsilon and of attacks: check values, coverage, and mechanisms that do and do not keep their word."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.privacy_audit import (
    attack,
    clopper_pearson,
    epsilon_from_errors,
    epsilon_from_one_run,
    epsilon_from_scores,
    gaussian_auc,
    p_value_of_one_run,
)
from jaxdistill.privacy.accounting import Budget, calibrate
from jaxdistill.privacy.mechanism import clipped


@pytest.mark.parametrize(("sigma", "auc"), [(0.5, 0.9214), (1.0, 0.7602), (2.0, 0.6382), (3.7306, 0.5752)])
def test_auc_of_one_gaussian_release(sigma, auc):
    assert gaussian_auc(sigma) == pytest.approx(auc, abs=1e-4)
    rng = np.random.default_rng(0)
    found = attack(rng.normal(1 / sigma, 1.0, 4000), rng.normal(0.0, 1.0, 4000))
    assert found.auc == pytest.approx(auc, abs=3 * (found.auc_high - found.auc_low) / (2 * 1.96))
    assert found.auc_low < found.auc < found.auc_high
    assert found.false_positives <= 0.01


def test_auc_by_pairs_with_ties():
    members, others = np.array([1.0, 2.0, 2.0]), np.array([0.0, 2.0])
    found = attack(members, others)
    pairs = [(m > o) + 0.5 * (m == o) for m in members for o in others]
    assert found.auc == pytest.approx(np.mean(pairs))


def test_true_positives_at_a_share_of_others():
    others = np.arange(200.0)
    found = attack(np.array([150.0, 197.5, 198.0, 250.0]), others, false_positives=0.01)
    assert (found.true_positives, found.false_positives) == (0.75, 0.01)  # above 197 are 198 and 199
    assert (found.true_positives_low, found.true_positives_high) == pytest.approx(clopper_pearson(3, 4))


@pytest.mark.parametrize(("runs", "largest"), [(100, 3.28), (500, 4.91), (1000, 5.60)])
def test_largest_bound_without_errors(runs, largest):
    assert epsilon_from_errors(runs, runs, 0, runs, delta=0.0) == pytest.approx(largest, abs=0.01)


def test_clopper_pearson():
    """Against the rule of three's exact form, and the defining tail."""
    assert clopper_pearson(0, 100)[1] == pytest.approx(1 - 0.025 ** (1 / 100))
    low, high = clopper_pearson(3, 10)
    tail = sum(math.comb(10, i) * low**i * (1 - low) ** (10 - i) for i in range(3, 11))
    assert tail == pytest.approx(0.025) and high > 0.3


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "epsilon"),
    [
        (100, 100, 100, 0.0, 3.4930),
        (100, 100, 80, 0.0, 0.9584),
        (50, 50, 50, 0.0, 2.7847),
        (100, 100, 100, 1e-5, 3.4902),
        (100, 100, 80, 1e-5, 0.9581),
        (100, 100, 50, 0.0, 0.0),
        (100, 0, 0, 0.0, 0.0),
    ],
)
def test_one_run(canaries, guesses, correct, delta, epsilon):
    found = epsilon_from_one_run(canaries, guesses, correct, delta=delta)
    assert found == pytest.approx(epsilon, abs=1e-4)
    if epsilon:
        assert p_value_of_one_run(found, canaries, guesses, correct, delta) == pytest.approx(0.05, abs=1e-4)


CLAIM, DELTA, RUNS = 1.0, 1e-5, 4000


def mechanism_scores(noise: float, norm: float, clip: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores <release, canary> / (sigma bound) of runs with and without a canary, the other records being known.

    Only the component along the canary matters to this score, so that is all that is drawn.
    """
    sigma = calibrate(Budget(CLAIM, DELTA))
    canary = jnp.asarray([[norm, 0.0]], jnp.float32)
    length = float((clipped(canary, 1.0) if clip else canary)[0, 0])
    keys = jax.random.split(jax.random.key(seed))
    draws = [noise * np.asarray(jax.random.normal(key, (RUNS,)), np.float64) for key in keys]
    return length / sigma + draws[0], draws[1]


@pytest.mark.parametrize(
    ("noise", "norm", "clip", "broken"),
    [
        (1.0, 1.0, True, False),
        (1.0, 50.0, True, False),
        (0.25, 1.0, True, True),
        (0.0, 1.0, True, True),
        (1.0, 50.0, False, True),
    ],
    ids=["correct", "correct, long canary", "a quarter of the noise", "no noise", "no clipping"],
)
def test_broken_mechanisms_are_flagged_and_correct_ones_not(noise, norm, clip, broken):
    bounds = [epsilon_from_scores(*mechanism_scores(noise, norm, clip, seed), delta=DELTA) for seed in range(3)]
    assert all((bound > CLAIM) == broken for bound in bounds), bounds


def test_scores_may_point_the_other_way():
    rng = np.random.default_rng(0)
    members, others = rng.normal(-4, 1, 400), rng.normal(0, 1, 400)
    assert epsilon_from_scores(members, others, delta=0.0) == pytest.approx(
        epsilon_from_scores(-members, -others, delta=0.0), abs=1e-9
    )
    assert epsilon_from_scores(members, others, delta=0.0) > 2.0


def test_bounds_rarely_exceed_the_truth():
    """Two identical distributions: any bound above 0 is an error, of which 5 % are allowed."""
    rng = np.random.default_rng(1)
    above = [epsilon_from_scores(rng.normal(size=60), rng.normal(size=60), delta=0.0) > 0.0 for _ in range(100)]
    assert np.mean(above) <= 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attack(np.ones(1), np.ones(5)), "1 scores of members; at least 2"),
        (lambda: attack(np.ones(5), np.array([1.0, np.nan])), "scores of others are not all finite"),
        (lambda: epsilon_from_one_run(10, 20, 5), "5 correct of 20 guesses on 10 canaries"),
    ],
)
def test_what_cannot_be(call, message):
    with pytest.raises(UserError, match=message):
        call()
