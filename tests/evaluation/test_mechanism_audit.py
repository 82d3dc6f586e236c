"""The audit of a mechanism: the correct one keeps its claim, three broken ones are refuted."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxdistill.evaluation.mechanism_audit import audit_mechanism
from jaxdistill.evaluation.privacy_audit import gaussian_auc
from jaxdistill.privacy import mechanism as mechanisms
from jaxdistill.privacy.accounting import Budget, calibrate
from jaxdistill.privacy.mechanism import Mechanism

CLAIM = Budget(1.0, 1e-5)
CORRECT = Mechanism(calibrate(CLAIM), micro_batch=1000)
# Small, since noise in other directions than the canary's tells nothing.
OPTIONS = {"size": 16, "norm": 10.0, "key": jax.random.key(0)}


class QuarterOfTheNoise(Mechanism):
    def release(self, *args, **options):
        return dataclasses.replace(CORRECT, sigma=self.sigma / 4).release(*args, **options)


def test_the_correct_mechanism_is_not_refuted():
    found = audit_mechanism(CORRECT, CLAIM, **OPTIONS)
    assert not found.flagged and found.epsilon <= 1.0 and found.one_run["epsilon"] <= 1.0
    assert found.expected_auc == pytest.approx(0.5752, abs=1e-4)
    error = (found.auc_high - found.auc_low) / (2 * 1.96)
    assert found.auc == pytest.approx(found.expected_auc, abs=3 * error)


@pytest.mark.parametrize("sigma, auc", [(0.5, 0.9214), (2.0, 0.6382)])
def test_attacks_see_what_a_release_of_that_noise_shows(sigma, auc):
    found = audit_mechanism(dataclasses.replace(CORRECT, sigma=sigma), CLAIM, **OPTIONS)
    assert found.auc == pytest.approx(auc, abs=3 * (found.auc_high - found.auc_low) / (2 * 1.96))
    assert found.expected_auc == pytest.approx(auc, abs=1e-4)


def test_a_quarter_of_the_noise_is_refuted():
    found = audit_mechanism(QuarterOfTheNoise(CORRECT.sigma), CLAIM, **OPTIONS)
    assert found.flagged and found.epsilon > 1.0
    assert found.auc == pytest.approx(gaussian_auc(CORRECT.sigma / 4), abs=0.03)


def test_replaced_records_are_attacked_by_their_opposite():
    claim = Budget(1.0, 1e-5, "replace_one")
    correct = Mechanism(calibrate(claim), micro_batch=1000)
    found = audit_mechanism(correct, claim, **OPTIONS)
    assert not found.flagged and found.expected_auc == pytest.approx(0.5752, abs=1e-4)
    # Noise for records that are added or removed is half of what a replaced one needs.
    for sigma in (CORRECT.sigma / 2, correct.sigma / 4):
        assert audit_mechanism(dataclasses.replace(correct, sigma=sigma), claim, **OPTIONS).flagged


def test_no_noise_is_refuted(monkeypatch):
    real = jax.random.normal
    # Canaries are drawn as ever; what has the shape of the sums is noise.
    monkeypatch.setattr(
        mechanisms.jax.random,
        "normal",
        lambda key, shape, *rest: jnp.zeros(shape, *rest) if rest else real(key, shape, *rest),
    )
    found = audit_mechanism(CORRECT, CLAIM, **OPTIONS | {"size": 128})
    assert found.flagged and found.auc == 1.0
    assert found.one_run == {"epsilon": found.one_run["epsilon"], "canaries": 128, "guesses": 24, "correct": 24}
    assert found.one_run["epsilon"] > 1.0


def test_a_canary_that_is_not_clipped_is_refuted(monkeypatch):
    monkeypatch.setattr(mechanisms, "clipped", lambda vectors, bound, clip: vectors)
    found = audit_mechanism(CORRECT, CLAIM, **OPTIONS)
    assert found.flagged and found.epsilon > 1.0


def test_sampled_releases():
    """Each run has four sums over random halves: the accountant's noise keeps the claim."""
    claim = Budget(2.0, 1e-5)
    sampled = Mechanism(calibrate(Budget(2.0, 1e-5)) * 2, rate=0.5, micro_batch=1000)
    found = audit_mechanism(sampled, claim, releases=4, **OPTIONS | {"draws": 1000})
    assert not found.flagged and found.expected_auc is None
    assert 0.5 < found.auc < gaussian_auc(sampled.sigma / 2)
