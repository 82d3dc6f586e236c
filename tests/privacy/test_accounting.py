"""Epsilon of releases, noise of budgets, the ledger."""

from __future__ import annotations

import json

import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.privacy.accounting import Budget, Ledger, Release, calibrate, epsilon_of, renyi_epsilon_of


def release(sigma, rate=1.0, count=1, name="a"):
    return Release(name, f"sum {name}", sigma, rate, count)


@pytest.mark.parametrize(
    ("epsilon", "delta", "sigma"),
    [(0.05, 1e-4, 44.784593), (1.0, 1e-5, 3.730632), (4.0, 1e-5, 1.081162), (8.0, 1e-5, 0.600229)],
)
def test_noise_of_one_release(epsilon, delta, sigma):
    assert calibrate(Budget(epsilon, delta)) == pytest.approx(sigma, abs=1e-6)
    assert epsilon_of([release(sigma)], delta) == pytest.approx(epsilon, rel=1e-5)


def test_epsilon_of_full_sums():
    assert epsilon_of([release(1.0)], 1e-5) == pytest.approx(4.37718, abs=1e-4)
    assert epsilon_of([release(2.0, count=4)], 1e-5) == pytest.approx(4.37718, abs=1e-4)
    assert epsilon_of([release(2.0, count=2), release(2.0, count=2, name="b")], 1e-5) == pytest.approx(
        4.37718, abs=1e-4
    )
    assert epsilon_of([], 1e-5) == 0.0


@pytest.mark.parametrize(
    ("rate", "sigma", "count", "by_loss", "by_renyi"),
    [(0.01, 1.0, 100, 0.71804, 1.21415), (0.1, 2.0, 10, 0.79847, 0.9355)],
)
def test_epsilon_of_poisson_sums(rate, sigma, count, by_loss, by_renyi):
    sums = [release(sigma, rate, count)]
    assert epsilon_of(sums, 1e-5) == pytest.approx(by_loss, abs=1e-3)
    assert renyi_epsilon_of(sums, 1e-5) == pytest.approx(by_renyi, abs=1e-3)


def test_renyi_is_never_tighter():
    for sums in ([release(1.0)], [release(2.0, 0.1, 10)], [release(4.0), release(1.5, 0.05, 20, "b")]):
        assert epsilon_of(sums, 1e-5) <= renyi_epsilon_of(sums, 1e-5)


def test_noise_of_poisson_sums():
    sigma = calibrate(Budget(1.0, 1e-5), rate=0.01, count=100)
    assert sigma == pytest.approx(0.90203, abs=1e-3)
    assert Ledger(Budget(1.0, 1e-5)).charge(release(sigma, 0.01, 100)) <= 1.0 + 1e-6


def test_replacing_a_record_costs_twice_the_noise():
    assert calibrate(Budget(1.0, 1e-5, "replace_one")) == pytest.approx(2 * 3.730632, abs=1e-5)
    assert epsilon_of([release(2.0)], 1e-5, "replace_one") == pytest.approx(4.37718, abs=1e-4)
    with pytest.raises(UserError, match="Poisson sums need add_remove"):
        epsilon_of([release(2.0, 0.5)], 1e-5, "replace_one")
    with pytest.raises(UserError, match="Poisson sums need add_remove"):
        calibrate(Budget(1.0, 1e-5, "replace_one"), rate=0.5)


def test_ledger_refuses_to_exceed_and_keeps_its_entries(tmp_path):
    path, budget = tmp_path / "privacy.json", Budget(1.0, 1e-5)
    ledger = Ledger(budget, path)
    assert ledger.epsilon() == 0.0 and not path.exists()
    first = release(calibrate(budget))
    assert ledger.charge(first) == pytest.approx(1.0, rel=1e-6)
    assert ledger.charge(first) == pytest.approx(1.0, rel=1e-6)  # the same numbers again
    assert len(ledger.releases) == 1
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"'sum b' with sigma 100 would spend epsilon 1\.00.* the budget is 1; raise"):
        ledger.charge(release(100.0, name="b"))
    with pytest.raises(UserError, match="identity of another release"):
        ledger.charge(release(99.0))
    assert path.read_bytes() == before
    again = Ledger(budget, path)
    assert again.releases == (first,) and again.epsilon() == ledger.epsilon()
    assert str(again) == "spent: epsilon 1.0000 of 1 at delta 1e-05, add_remove, 1 release"
    with pytest.raises(UserError, match="of a budget of epsilon 1, delta 1e-05, add_remove; asked for are epsilon 2"):
        Ledger(Budget(2.0, 1e-5), path)
    stored = json.loads(path.read_text())
    assert stored["epsilon"] <= stored["epsilon_by_renyi_divergences"]
    path.write_text("{}")
    with pytest.raises(UserError, match="not a ledger"):
        Ledger(budget, path)


def test_halves_of_a_budget(tmp_path):
    """Two releases calibrated together spend it to the end; a third is refused."""
    budget = Budget(4.0, 1e-5)
    sigma, ledger = calibrate(budget, count=2), Ledger(budget)
    assert ledger.charge(release(sigma)) < 4.0
    assert ledger.charge(release(sigma, name="b")) == pytest.approx(4.0, rel=1e-6)
    with pytest.raises(UserError, match="the budget is 4"):
        ledger.charge(release(sigma, name="c"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(0.0, 1e-5), "epsilon is 0.0"),
        (lambda: Budget(1.0, 0.0), "delta is 0.0"),
        (lambda: Budget(1.0, 1.0), "delta is 1.0"),
        (lambda: Budget(1.0, 1e-5, "swap"), "add_remove or replace_one"),  # pyright: ignore[reportArgumentType]
        (lambda: release(0.0), "sigma of 'sum a' is 0.0"),
        (lambda: release(1.0, 0.0), "rate of 'sum a' is 0.0"),
        (lambda: release(1.0, 1.0, 0), "count of 'sum a' is 0"),
    ],
)
def test_what_cannot_be(make, message):
    with pytest.raises(UserError, match=message):
        make()
