"""Cuts and draws of one token."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from jaxdistill.core.errors import UserError
from jaxdistill.generation.choice import Sampling, allowed_tokens, cut, draw

# The second row has ties on the edge of most cuts, the third is all but certain, the fourth knows few tokens.
PROBABILITIES = np.array(
    [
        [0.05, 0.4, 0.1, 0.2, 0.02, 0.03, 0.15, 0.05],
        [0.125, 0.125, 0.25, 0.125, 0.125, 0.125, 0.0625, 0.0625],
        [0.0001, 0.0001, 0.0001, 0.9994, 0.0001, 0.0001, 0.0001, 0.0],
        [0.0, 0.5, 0.0, 0.0, 0.3, 0.0, 0.2, 0.0],
    ]
)
with np.errstate(divide="ignore"):
    SCORES = jnp.asarray(np.log(PROBABILITIES), jnp.float32)


def oracle(probabilities, temperature, top_k, top_p):
    """The support, by sorting: most likely first, the lower token id first among equal ones."""
    p = probabilities ** (1 / temperature)
    support = set(np.flatnonzero(p))
    if top_k is not None:
        support &= set(np.argsort(-p, kind="stable")[:top_k])
    if top_p < 1:
        p = np.array([value if i in support else 0.0 for i, value in enumerate(p)])
        p = p / p.sum()
        order, mass, kept = np.argsort(-p, kind="stable"), 0.0, set()
        for token in order:
            if mass >= top_p:
                break
            kept.add(token)
            mass += p[token]
        support &= kept
    return support


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, 8, 99])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.6, 0.375, 1e-6])
def test_support_is_that_of_sorting(temperature, top_k, top_p):
    kept = np.asarray(cut(SCORES, Sampling(1, temperature=temperature, top_k=top_k, top_p=top_p)))
    for row, probabilities in zip(kept, PROBABILITIES, strict=True):
        assert set(np.flatnonzero(np.isfinite(row))) == oracle(probabilities, temperature, top_k, top_p)
    inside = np.isfinite(kept)
    np.testing.assert_allclose(kept[inside], np.asarray(SCORES)[inside] / temperature, rtol=1e-6)


def test_bans_come_before_the_nucleus():
    sampling = Sampling(1, top_p=0.65, banned=(1, 2))
    allowed = allowed_tokens(sampling, 8, jnp.int32(0))
    kept = np.isfinite(cut(jnp.where(allowed, SCORES, -jnp.inf), sampling))
    # In row 0, without tokens 1 and 2: 0.2 and 0.15 are 70 % of 0.5.
    assert [np.flatnonzero(row).tolist() for row in kept] == [[3, 6], [0, 3, 4, 5], [3], [4, 6]]


def test_stop_tokens_wait_for_the_least_length():
    sampling = Sampling(3, min_new=2, banned=(0,), stop=(4, 5))
    allowed = [np.flatnonzero(allowed_tokens(sampling, 6, jnp.int32(i))[0]).tolist() for i in range(3)]
    assert allowed == [[1, 2, 3], [1, 2, 3], [1, 2, 3, 4, 5]]


def test_temperature_zero_takes_the_first_of_the_most_likely():
    scores = jnp.array([[0.0, 2.0, 2.0], [3.0, 1.0, 3.0]])
    assert draw(scores, jax.random.split(jax.random.key(0), 2), Sampling(1, temperature=0.0)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1), PROBABILITIES[0]),
        (Sampling(1, temperature=0.5), PROBABILITIES[0] ** 2),
        (Sampling(1, top_k=2), np.where(PROBABILITIES[0] >= 0.2, PROBABILITIES[0], 0)),
        (Sampling(1, top_p=0.75), np.where(PROBABILITIES[0] >= 0.15, PROBABILITIES[0], 0)),
    ],
)
def test_frequencies(sampling, expected):
    rows = 4000
    tokens = draw(jnp.tile(SCORES[:1], (rows, 1)), jax.random.split(jax.random.key(1), rows), sampling)
    counts, expected = np.bincount(tokens, minlength=8), expected / expected.sum() * rows
    assert counts[expected == 0].sum() == 0
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new": 0}, "max_new is 0; it must be at least 1"),
        ({"max_new": 2, "min_new": 3}, "min_new is 3; it must lie between 0 and max_new, 2"),
        ({"max_new": 1, "temperature": -1.0}, "temperature is -1.0"),
        ({"max_new": 1, "temperature": float("nan")}, "temperature is nan"),
        ({"max_new": 1, "top_k": 0}, "top_k is 0; it must be at least 1, or None for no limit"),
        ({"max_new": 1, "top_p": 0.0}, r"top_p is 0.0; it must lie in \(0, 1\]"),
        ({"max_new": 1, "top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_refuses_values_out_of_range(values, message):
    with pytest.raises(UserError, match=message):
        Sampling(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"banned": (6,)}, "banned token 6 is outside the vocabulary of 6 tokens"),
        ({"stop": (-1,)}, "stop token -1 is outside"),
        ({"banned": (0, 1, 2, 3, 4), "stop": (5,), "min_new": 1}, "all 6 tokens of the vocabulary are banned"),
    ],
)
def test_refuses_tokens_outside_the_vocabulary(values, message):
    with pytest.raises(UserError, match=message):
        Sampling(2, **values).check(6)
