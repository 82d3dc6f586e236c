"""Clipped sums, noise, sealed records: the promises that privacy rests on."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.privacy.accounting import Budget, Ledger
from jaxdistill.privacy.mechanism import (
    Mechanism,
    Sealed,
    clipped,
    clipped_sums,
    cosine_ceiling,
    paper_noise,
    signal_to_noise,
)

NAN, HUGE = float("nan"), 1e30


def vectors(records):
    """A record's contribution: its own numbers; logarithms of negative ones are not finite."""
    return jnp.where(records < -5.0, jnp.log(records), records)


RECORDS = jnp.asarray(
    [[0.3, 0.1], [3.0, 4.0], [0.0, 0.0], [HUGE, HUGE], [-9.0, 1.0], [NAN, 1.0], [0.6, 0.8], [1e-30, 0.0]], jnp.float32
)
BLOCKS = jnp.asarray([0, 1, 0, 1, 0, 1, 1, 0])


def sums(records=RECORDS, blocks=BLOCKS, count=3, **options: Any):
    return clipped_sums(vectors, records, blocks, jnp.ones(len(blocks), bool), count, **{"bound": 0.5, **options})


def test_rows_are_no_longer_than_the_bound():
    found = np.asarray(clipped(vectors(RECORDS), 0.5))
    assert np.all(np.linalg.norm(found, axis=1) <= 0.5 * (1 + 1e-6))
    np.testing.assert_allclose(found[[0, 1, 3]], [[0.3, 0.1], [0.3, 0.4], [0.5 / 2**0.5] * 2], rtol=1e-6)
    np.testing.assert_array_equal(found[[2, 4, 5]], 0.0)  # nothing, and what is not finite
    normalized = np.asarray(clipped(vectors(RECORDS), 0.5, "normalize"))
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), [0.5, 0.5, 0, 0.5, 0, 0, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("clip", ["clip", "normalize"])
def test_one_record_moves_the_sums_by_no_more_than_the_bound(clip):
    whole = sums(clip=clip)
    assert np.all(np.isfinite(whole))
    for i in range(len(BLOCKS)):
        rest = np.delete(np.arange(len(BLOCKS)), i)
        without = sums(RECORDS[rest], BLOCKS[rest], clip=clip)
        assert np.linalg.norm(whole - without) <= 0.5 * (1 + 1e-6)


def test_sums_are_of_each_block_whatever_the_micro_batch():
    expected = np.zeros((3, 2))
    np.add.at(expected, np.asarray(BLOCKS), np.asarray(clipped(vectors(RECORDS), 0.5)))
    for micro_batch in (1, 3, 8, 32):
        np.testing.assert_allclose(sums(micro_batch=micro_batch), expected, rtol=1e-6)
    np.testing.assert_array_equal(sums(RECORDS[:0], BLOCKS[:0]), np.zeros((3, 2)))


def released(records=RECORDS, blocks: Any = BLOCKS, *, seed=0, sigma=2.0, count=3, **fields: Any):
    mechanism = Mechanism(sigma=sigma, **{"bound": 0.5, **fields})
    return mechanism.release(
        vectors,
        Sealed(records),
        Sealed(np.asarray(blocks)),
        count,
        key=jax.random.key(seed),
        ledger=Ledger(Budget(1e6, 1e-5)),
        identity="a",
        what="sums",
    )


def test_noise_has_its_deviation_and_is_new_for_each_key():
    draws = np.stack([released(RECORDS[:0], BLOCKS[:0], seed=seed, count=100) for seed in range(20)])
    assert abs(draws.std() / (2.0 * 0.5) - 1.0) < 0.05
    assert not np.array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(released(), released())


def test_a_block_without_records_takes_the_same_path():
    np.testing.assert_allclose(released() - released(RECORDS[:0], BLOCKS[:0]), sums(), atol=1e-5)


def test_poisson_sums_leave_records_out():
    ones, blocks = jnp.ones((4000, 1)), np.zeros(4000, np.int32)
    total = float(released(ones, blocks, count=1, bound=1.0, sigma=2.0, rate=0.25, micro_batch=500)[0, 0])
    assert abs(total - 1000) < 4 * math.sqrt(4000 * 0.25 * 0.75)


def test_a_release_beyond_the_budget_is_not_made():
    def never(records):
        raise AssertionError("records were read")

    ledger = Ledger(Budget(1.0, 1e-5))
    with pytest.raises(UserError, match="the budget is 1"):
        Mechanism(sigma=1.0).release(
            never,
            Sealed(RECORDS),
            Sealed(np.asarray(BLOCKS)),
            3,
            key=jax.random.key(0),
            ledger=ledger,
            identity="a",
            what="x",
        )
    assert not ledger.releases


@pytest.mark.parametrize(
    "read",
    [
        len,
        list,
        bool,
        pickle.dumps,
        copy.copy,
        np.asarray,
        jnp.asarray,
        hash,
        lambda x: x[0],
        lambda x: x + 1,
        lambda x: x.shape,
        lambda x: x.value,
        lambda x: x == 1,
        lambda x: jax.tree.map(jnp.sum, x),
    ],
)
def test_sealed_records_cannot_be_read(read):
    with pytest.raises((PermissionError, TypeError)):
        read(Sealed(RECORDS))


def test_sealed_records_show_nothing():
    assert repr(Sealed(RECORDS)) == str(Sealed(RECORDS)) == "Sealed(...)"


@pytest.mark.parametrize(
    ("records", "size", "ratio"), [(25, 104_908_800, 0.00065), (500, 4096, 2.1), (5000, 256, 84.0), (25, 1024, 0.21)]
)
def test_signal_to_noise(records, size, ratio):
    found = signal_to_noise(records, 3.730632, size)
    assert found == pytest.approx(ratio, rel=0.03)
    assert cosine_ceiling(found) == pytest.approx(ratio / math.hypot(1, ratio), rel=0.05)


@pytest.mark.parametrize(
    ("records", "epsilon", "delta", "noise"),
    [(25, 0.05, 1e-4, 3.47489), (29, 0.05, 1e-4, 2.9956), (21, 0.05, 1e-4, 4.1368)],
)
def test_published_noise(records, epsilon, delta, noise):
    assert paper_noise(records, epsilon, delta) == pytest.approx(noise, abs=1e-4)


def test_published_noise_beyond_epsilon_1():
    """(a + sqrt(a^2 + eps)) / (eps sqrt 2) with a = sqrt(ln(2 / (sqrt(16 delta + 1) - 1))), by hand at delta 1e-5."""
    a = math.sqrt(math.log(2 / (math.sqrt(1.00016) - 1)))
    assert a == pytest.approx(3.1821, abs=1e-3)
    assert paper_noise(10, 4.0, 1e-5) == pytest.approx((a + math.sqrt(a * a + 4)) / (4 * math.sqrt(2)) / 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"sigma": 1.0, "bound": 0.0}, "bound is 0.0"),
        ({"sigma": 1.0, "rate": 1.5}, "rate is 1.5"),
        ({"sigma": 1.0, "micro_batch": 0}, "micro_batch is 0"),
    ],
)
def test_what_cannot_be(fields, message):
    with pytest.raises(UserError, match=message):
        Mechanism(**fields)
