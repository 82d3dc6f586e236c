"""Contrastive decoding of two models."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from jaxdistill.core.errors import UserError
from jaxdistill.generation.batches import sample
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.contrast import Contrast, Pair, contrastive_scores
from jaxdistill.generation.scorers import Model
from jaxdistill.models.decoder import Decoder

KEY = jax.random.key(0)
PROMPTS = jnp.array([[3, 1, 4], [0, 2, 6]])
MASK = jnp.array([[True, True, True], [False, True, True]])
TOKENS = jnp.array([[5, 9, 2, 6, 0, 11], [3, 8, 9, 7, 10, 1]])
ALL = jnp.ones((1, 20), bool)
RNG = np.random.default_rng(0)
BASE, EXPERT = (jax.nn.log_softmax(jnp.asarray(RNG.normal(size=(6, 9)), jnp.float32)) for _ in range(2))


@functools.partial(jax.jit, static_argnums=0)
def scores_along(scorer, params, tokens):
    """Scores before each of the tokens and after the last one."""
    logits, state = scorer.start(params, PROMPTS, MASK, length=9)

    def read(carry, token):
        logits, state = carry
        found = scorer.scores(logits, ALL)
        return scorer.advance(params, token, state, jnp.ones(2, bool)), found

    (logits, _), found = jax.lax.scan(read, (logits, state), tokens.T)
    return jnp.concatenate([found, scorer.scores(logits, ALL)[None]])


def test_cached_scores_are_those_of_whole_texts(base, expert):
    texts = [prompt[mask].tolist() for prompt, mask in zip(np.asarray(PROMPTS), np.asarray(MASK), strict=True)]
    whole = [text + tokens for text, tokens in zip(texts, TOKENS.tolist(), strict=True)]
    theirs, ours = (np.stack([row[-7:] for row in tiny.read(whole)], axis=1) for tiny in (base, expert))
    kept = theirs >= theirs.max(axis=-1, keepdims=True) + math.log(0.1)
    expected = np.where(kept, theirs - ours, -np.inf)
    found = scores_along(Contrast(base.model, expert.model), Pair(base.params, expert.params), TOKENS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    uncached = Contrast(*(dataclasses.replace(tiny.model, cached=False) for tiny in (base, expert)))
    np.testing.assert_allclose(scores_along(uncached, Pair(base.params, expert.params), TOKENS), found, atol=1e-5)


def test_shared_cache(base, expert):
    pair = Pair(base.params, expert.params)
    # Nearly all tokens are plausible, so that positions can be compared.
    contrast = Contrast(base.model, expert.model, alpha=1e-6)
    shared = dataclasses.replace(contrast, shared_cache=True)
    true, found = scores_along(contrast, pair, TOKENS), scores_along(shared, pair, TOKENS)
    np.testing.assert_array_equal(found[0], true[0])
    assert np.abs(found[1:] - true[1:]).max(axis=(1, 2)).min() > 1e-3
    # What is plausible is the base model's affair.
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(true))
    same = Pair(base.params, base.params)
    true, found = scores_along(contrast, same, TOKENS), scores_along(shared, same, TOKENS)
    np.testing.assert_allclose(found, true, atol=1e-5)
    np.testing.assert_allclose(found, 0.0, atol=1e-5)


def test_an_expert_like_the_base_leaves_the_plausible_set_uniform(base):
    contrast = Contrast(base.model, base.model, alpha=0.2)
    rows, pair = 3000, Pair(base.params, base.params)
    drawn = sample(contrast, pair, [[3, 1]], rows, Sampling(1), KEY, micro_batch=1000, log_probabilities=True)
    log_p = base.read([[3, 1]])[0][-1]
    plausible = log_p >= log_p.max() + math.log(0.2)
    counts = np.bincount(drawn.token_ids[:, 0], minlength=20)
    assert 2 <= plausible.sum() < 20 and counts[~plausible].sum() == 0
    assert chisquare(counts[plausible]).pvalue > 0.01
    # Log-probabilities are the base model's.
    np.testing.assert_allclose(drawn.log_probabilities[:, 0], log_p[drawn.token_ids[:, 0]], atol=1e-5)


def test_texts_of_a_contrast_do_not_depend_on_the_cache(base, expert):
    pair, sampling = Pair(base.params, expert.params), Sampling(6, banned=(4,), stop=(7,))
    drawn = []
    for cached in (True, False):
        models = [dataclasses.replace(tiny.model, cached=cached) for tiny in (base, expert)]
        drawn.append(sample(Contrast(*models), pair, [[3, 1], [9]], 3, sampling, KEY))
    np.testing.assert_array_equal(drawn[0].token_ids, drawn[1].token_ids)
    assert not (drawn[0].token_ids == 4).any()


def test_plausible_set():
    found = np.isfinite(contrastive_scores(BASE, EXPERT, alpha=0.3))
    p = np.exp(BASE)
    np.testing.assert_array_equal(found, p >= 0.3 * p.max(axis=1, keepdims=True))
    other = np.isfinite(contrastive_scores(BASE, EXPERT[:, ::-1], alpha=0.3))
    np.testing.assert_array_equal(other, found)
    assert np.isfinite(contrastive_scores(BASE, EXPERT, alpha=1e-30)).all()


def test_alpha_one_keeps_the_greatest_only():
    base = jnp.array([[0.0, 2.0, 2.0, 1.0], [3.0, 1.0, 0.0, 2.0]])
    found = np.isfinite(contrastive_scores(base, EXPERT[:2, :4], alpha=1.0))
    assert found.tolist() == [[False, True, True, False], [True, False, False, False]]


def test_bans_come_before_the_plausible_set():
    # Were the greatest token banned afterwards, nothing would be left.
    base = jnp.array([[5.0, 1.0, 0.9, -3.0]])
    allowed = jnp.array([[False, True, True, True]])
    found = contrastive_scores(base, jnp.zeros((1, 4)), alpha=0.5, allowed=allowed)
    np.testing.assert_allclose(found, [[-np.inf, 1.0, 0.9, -np.inf]])


@pytest.mark.parametrize("beta", [math.inf, 0.0, 1.5])
def test_logits_do_as_well_as_log_probabilities(beta):
    shifts = [jnp.asarray(RNG.normal(size=(6, 1)), jnp.float32) for _ in range(2)]
    plain = contrastive_scores(BASE, EXPERT, alpha=0.2, beta=beta)
    shifted = contrastive_scores(BASE + shifts[0], EXPERT + shifts[1], alpha=0.2, beta=beta)
    np.testing.assert_allclose(jax.nn.softmax(shifted), jax.nn.softmax(plain), atol=1e-6)


def test_beta():
    plausible = np.isfinite(contrastive_scores(BASE, EXPERT, alpha=0.2))
    values = {0.0: BASE, 1.5: 2.5 * BASE - 1.5 * EXPERT, math.inf: BASE - EXPERT}
    for beta, expected in values.items():
        found = contrastive_scores(BASE, EXPERT, alpha=0.2, beta=beta)
        np.testing.assert_allclose(found, np.where(plausible, expected, -np.inf), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 0.0}, r"alpha is 0.0; it must lie in \(0, 1\]"),
        ({"alpha": 1.1}, "alpha is 1.1"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"beta": -0.1}, "beta is -0.1; it must be at least 0, or inf for the plain difference"),
    ],
)
def test_refuses_values_out_of_range(base, expert, values, message):
    with pytest.raises(UserError, match=message):
        Contrast(base.model, expert.model, **values)


def test_refuses_models_that_do_not_go_together(base):
    def other(**changes):
        return Model(Decoder(dataclasses.replace(base.decoder.config, **changes)))

    with pytest.raises(UserError, match=r"vocabularies of 20 \(base\) and 21 \(expert\) tokens; both models must have"):
        Contrast(base.model, other(vocabulary=21))
    Contrast(base.model, other(layers=2))
    with pytest.raises(
        UserError, match=r"\(1, 2, 8\) \(base\) and \(2, 2, 8\) \(expert\); both models must have a cache"
    ):
        Contrast(base.model, other(layers=2), shared_cache=True)
    uncached = dataclasses.replace(base.model, cached=False)
    with pytest.raises(UserError, match="both models must have a cache"):
        Contrast(base.model, uncached, shared_cache=True)
    assert Contrast(base.model, other(positions=12)).positions == 12
