"""The loop and its micro-batches, on one model."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from jaxdistill.core.errors import UserError
from jaxdistill.generation.batches import sample
from jaxdistill.generation.choice import Sampling

KEY = jax.random.key(0)
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6]]
STOP = (7, 11)
BANNED = (8, 9)
SAMPLING = Sampling(8, min_new=2, top_p=0.9, banned=BANNED, stop=STOP)
SAMPLES = 3


def run(scorer, params, **changes):
    given = {"prompts": PROMPTS, "samples": SAMPLES, "sampling": SAMPLING, "key": KEY, "micro_batch": 9}
    given |= {"log_probabilities": True} | changes
    return sample(scorer, params, **given)


@pytest.fixture(scope="module")
def drawn(base):
    """Nine texts, in one micro-batch."""
    return run(base.model, base.params)


def test_result(drawn):
    assert drawn.token_ids.shape == drawn.log_probabilities.shape == (9, 8)
    assert drawn.token_ids.dtype == np.int32 and drawn.log_probabilities.dtype == np.float32
    assert not np.isin(drawn.token_ids, BANNED).any()
    assert drawn.stopped.any() and not drawn.stopped.all()
    for tokens, scores, length, stopped in zip(
        drawn.token_ids, drawn.log_probabilities, drawn.lengths, drawn.stopped, strict=True
    ):
        assert length >= 2 and stopped == (length < 8)
        assert not np.isin(tokens[:length], STOP).any()
        assert (scores[: length + 1] < 0).all() and (scores[length + 1 :] == 0).all()
        if stopped:
            assert tokens[length] in STOP and (tokens[length + 1 :] == STOP[0]).all()
    assert drawn.drawn_tokens == (drawn.log_probabilities < 0).sum()
    assert drawn.seconds > 0


def test_log_probabilities_are_those_of_the_untempered_model(base, drawn):
    prompts = [PROMPTS[row // SAMPLES] for row in range(9)]
    scores = base.read([prompt + tokens.tolist() for prompt, tokens in zip(prompts, drawn.token_ids, strict=True)])
    for row in range(9):
        tokens = drawn.token_ids[row, : drawn.lengths[row] + 1]
        expected = [scores[row][len(prompts[row]) - 1 + i, token] for i, token in enumerate(tokens)]
        np.testing.assert_allclose(drawn.log_probabilities[row, : len(tokens)], expected, atol=1e-5)


def test_the_cache_changes_nothing(base, drawn):
    uncached = run(dataclasses.replace(base.model, cached=False), base.params)
    np.testing.assert_array_equal(uncached.token_ids, drawn.token_ids)
    np.testing.assert_array_equal(uncached.lengths, drawn.lengths)
    np.testing.assert_allclose(uncached.log_probabilities, drawn.log_probabilities, atol=1e-5)


@pytest.mark.parametrize("changes", [{"micro_batch": 1}, {"micro_batch": 2}, {"micro_batch": 7}, {"early_exit": False}])
def test_micro_batches_and_early_exit_change_nothing(base, drawn, changes):
    # One sample at a time; two of three samples of a prompt; two of three prompts.
    other = run(base.model, base.params, **changes)
    np.testing.assert_array_equal(other.token_ids, drawn.token_ids)
    np.testing.assert_array_equal(other.lengths, drawn.lengths)
    np.testing.assert_array_equal(other.stopped, drawn.stopped)
    np.testing.assert_allclose(other.log_probabilities, drawn.log_probabilities, atol=1e-5)


def test_early_exit_of_all_rows_leaves_filling(base):
    # Nothing but stop tokens can be drawn: every text ends at once.
    banned = tuple(i for i in range(20) if i not in STOP)
    found = run(base.model, base.params, sampling=Sampling(8, banned=banned, stop=STOP))
    assert (found.lengths == 0).all() and found.stopped.all()
    assert (found.token_ids[:, 1:] == STOP[0]).all() and (found.log_probabilities[:, 1:] == 0).all()


def test_same_key_same_tokens(base, drawn):
    np.testing.assert_array_equal(run(base.model, base.params).token_ids, drawn.token_ids)
    other = run(base.model, base.params, key=jax.random.key(1))
    assert (other.token_ids != drawn.token_ids).any()


def test_a_prompt_alone(base, drawn):
    # Its number is part of its key: the others are there, but not asked for.
    wanted = [(1, 0), (1, 2), (2, 1)]
    found = run(base.model, base.params, wanted=wanted, progress=(reports := []).append)
    np.testing.assert_array_equal(found.token_ids, drawn.token_ids[[3, 5, 7]])
    assert reports == [3]
    # Without longer prompts beside it there is no padding.
    alone = run(base.model, base.params, prompts=[[1], PROMPTS[1]], wanted=[(1, 0), (1, 1), (1, 2)])
    np.testing.assert_array_equal(alone.token_ids, drawn.token_ids[3:6])
    np.testing.assert_allclose(alone.log_probabilities, drawn.log_probabilities[3:6], atol=1e-5)


def test_frequencies_are_those_of_the_model(base):
    rows = 4000
    found = run(base.model, base.params, prompts=[[3, 1]], samples=rows, sampling=Sampling(1), micro_batch=1000)
    log_p = base.read([[3, 1]])[0][-1].astype(np.float64)
    probabilities = np.exp(log_p) / np.exp(log_p).sum()
    counts = np.bincount(found.token_ids[:, 0], minlength=20)
    assert chisquare(counts, probabilities * rows).pvalue > 0.01
    np.testing.assert_allclose(found.log_probabilities[:, 0], log_p[found.token_ids[:, 0]], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "prompts is 0; at least 1 is needed"),
        ({"samples": 0}, "samples is 0"),
        ({"micro_batch": 0}, "micro_batch is 0"),
        ({"prompts": [[1], []]}, "prompt 1 has no tokens; start it with the model's start token"),
        ({"prompts": [[1, 20]]}, "token 20 of prompt 0 is outside the vocabulary of 20 tokens"),
        ({"sampling": Sampling(1, stop=(20,))}, "stop token 20 is outside the vocabulary of 20 tokens"),
        ({"sampling": Sampling(13)}, "prompts of 5 tokens and 13 new ones need 17 positions; the model has 16"),
    ],
)
def test_refuses(base, changes, message):
    with pytest.raises(UserError, match=message):
        run(base.model, base.params, **changes)


def test_scores_that_are_no_numbers_raise(base):
    broken = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), base.params)
    with pytest.raises(UserError, match="scores of sample 0 of prompt 0 were not finite"):
        run(base.model, broken)
