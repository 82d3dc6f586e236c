"""Perplexity of held-out texts: the mean over all tokens, however they are batched."""

from __future__ import annotations

import math

import jax
import numpy as np

from jaxdistill.core.types import Batch
from jaxdistill.data.encoding import Encoded
from jaxdistill.evaluation.token_loss import make_token_loss, perplexity
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.tiny import tiny_decoder_config


def test_the_mean_is_over_tokens_and_does_not_depend_on_rows():
    decoder = Decoder(tiny_decoder_config(20))
    params = init_decoder(decoder, jax.random.key(0))
    rng = np.random.default_rng(0)
    lengths = np.array([2, 9, 5, 12, 7, 3])
    ids = rng.integers(0, 20, size=lengths.sum()).astype(np.int32)
    encoded = Encoded(ids, np.zeros(len(ids), np.int8), np.cumsum([0, *lengths]), np.zeros(6, np.int32), 0)
    padded = np.zeros((6, 12), np.int32)
    for i in range(6):
        padded[i, : lengths[i]] = encoded.tokens(i)
    logits = np.asarray(jax.jit(decoder.apply)({"params": params}, Batch(token_ids=padded)), np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    by_hand = [
        -log_probabilities[i, t, padded[i, t + 1]] for i, length in enumerate(lengths) for t in range(length - 1)
    ]
    for rows in (1, 2, 32):
        token_loss = make_token_loss(decoder, encoded, row_length=14, rows=rows)
        np.testing.assert_allclose(token_loss(params), np.mean(by_hand), rtol=1e-5)


def test_perplexity_is_infinite_where_it_is_no_number():
    assert math.isclose(perplexity(math.log(7.0)), 7.0)
    assert perplexity(800.0) == perplexity(math.nan) == math.inf
