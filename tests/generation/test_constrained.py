"""Choice among given tokens."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.generation.constrained import choose_among

KEY = jax.random.key(0)
PREFIX = [3, 1]
RNG = np.random.default_rng(0)
IDS = np.stack([RNG.permutation(20)[:4] for _ in range(15)]).reshape(3, 5, 4)
MASK = RNG.random(IDS.shape) < 0.7
MASK[..., 0] = True


@pytest.fixture(scope="module")
def logits_after(base):
    """Log-probabilities of the token after a text."""
    return lambda tokens: base.read([tokens])[0][-1]


def test_greedy_takes_the_most_likely_candidate(base, logits_after):
    found = choose_among(base.model, base.params, PREFIX, IDS, MASK, KEY)
    for row in range(3):
        text = list(PREFIX)
        for i in range(5):
            scores, candidates = logits_after(text), IDS[row, i][MASK[row, i]]
            text.append(int(candidates[np.argmax(scores[candidates])]))
            np.testing.assert_allclose(found.log_probabilities[row, i], scores[text[-1]], atol=1e-5)
        assert found.token_ids[row].tolist() == text[2:]
    assert found.lengths.tolist() == [5, 5, 5] and not found.stopped.any()
    two_by_two = choose_among(base.model, base.params, PREFIX, IDS, MASK, KEY, micro_batch=2)
    np.testing.assert_array_equal(two_by_two.token_ids, found.token_ids)


def test_one_candidate_leaves_no_choice(base):
    found = choose_among(base.model, base.params, PREFIX, IDS[..., :1], MASK[..., :1], KEY)
    np.testing.assert_array_equal(found.token_ids, IDS[..., 0])


def test_draws_are_in_proportion_among_candidates(base, logits_after):
    rows = 2000
    ids, mask = np.tile(IDS[:1, :1], (rows, 1, 1)), np.ones((rows, 1, 4), bool)
    banned = (int(IDS[0, 0, 1]),)
    found = choose_among(
        base.model, base.params, PREFIX, ids, mask, KEY, temperature=1.0, banned=banned, micro_batch=rows
    )
    left = np.delete(IDS[0, 0], 1)
    p = np.exp(logits_after(PREFIX)[left])
    shares = [(found.token_ids[:, 0] == token).mean() for token in left]
    assert sum(shares) == pytest.approx(1.0)
    np.testing.assert_allclose(shares, p / p.sum(), atol=0.04)


@pytest.mark.parametrize(
    ("ids", "mask", "banned", "message"),
    [
        (
            IDS,
            MASK & (np.arange(5) != 2)[None, :, None],
            (),
            "position 2 of text 0 has no candidate that is not banned",
        ),
        (IDS[:, :, :1], MASK[:, :, :1], (int(IDS[1, 3, 0]),), "has no candidate that is not banned"),
        (np.full_like(IDS, 20), MASK, (), "candidate 20 is outside the vocabulary of 20 tokens"),
        (IDS[:, :0], MASK[:, :0], (), r"candidates of shape \(3, 0, 4\); expected \(texts, positions, candidates\)"),
    ],
)
def test_refuses(base, ids, mask, banned, message):
    with pytest.raises(UserError, match=message):
        choose_among(base.model, base.params, PREFIX, ids, mask, KEY, banned=banned)
