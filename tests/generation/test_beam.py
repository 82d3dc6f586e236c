"""Beam search: greedy as one beam, what is found against all texts there are, caches that follow their beams."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.generation.beam import beam_search
from jaxdistill.models.t5 import T5, init_t5
from jaxdistill.models.t5_config import T5Config

CONFIG = T5Config(
    vocabulary=7,
    width=8,
    heads=2,
    head_width=4,
    intermediate=16,
    encoder_layers=1,
    decoder_layers=2,
    buckets=8,
    farthest=16,
    initializer_factor=3.0,
    start=1,
    end=2,
)
MODEL = T5(CONFIG)
TOKENS = {"start": 1, "end": 2, "padding": 0}
ROWS, LENGTH = 3, 4


def step(params, tokens, cache):
    return MODEL.apply({"params": params}, tokens, cache, method="step")


@jax.jit
def read(params, token_ids, memory, mask):
    return MODEL.apply({"params": params}, token_ids, memory, mask, method="decode")


@pytest.fixture(scope="module")
def made():
    params = init_t5(MODEL, jax.random.key(0))
    memory = jax.random.normal(jax.random.key(1), (ROWS, 5, 8))
    mask = jnp.arange(5)[None] < jnp.array([[5], [3], [4]])
    return params, memory, mask


def search(made, beams, length=LENGTH):
    params, memory, mask = made
    cache = MODEL.apply({"params": params}, memory, mask, length, method="start")
    return beam_search(step, params, cache, beams=beams, length=length, **TOKENS)


@functools.cache
def texts():
    """All that can be written: ended after 1 to 3 tokens, or full."""
    words = [token for token in range(CONFIG.vocabulary) if token not in (0, 2)]
    found = [(*text, 2) for n in (1, 2, 3) for text in itertools.product(words, repeat=n)]
    return found + list(itertools.product(words, repeat=4))


def scores(made, rows):
    """Log-probability of texts by reading them whole, without a cache: [rows, texts]."""
    params, memory, mask = made
    ids = np.zeros((len(rows), LENGTH), np.int32)
    weights = np.zeros((len(rows), LENGTH), np.float32)
    for i, text in enumerate(rows):
        ids[i, : len(text)], weights[i, : len(text)] = text, 1.0
    inputs = np.concatenate([np.ones((len(rows), 1), np.int32), ids[:, :-1]], axis=1)
    found = []
    for row in range(ROWS):
        tiled = [jnp.repeat(x[row : row + 1], len(rows), axis=0) for x in (memory, mask)]
        logits = read(params, jnp.asarray(inputs), *tiled)
        chances = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), ids[..., None], axis=2)[..., 0]
        found.append((chances * weights).sum(axis=1))
    return np.stack(found)


def test_the_best_of_all_texts_are_found_where_no_beam_is_dropped(made):
    """With 800 beams nothing that could win is ever dropped."""
    every = scores(made, texts())
    found = search(made, 800)
    for row in range(ROWS):
        best = np.argsort(-every[row])[:5]
        np.testing.assert_allclose(np.asarray(found.scores)[row, :5], every[row, best], rtol=1e-4)
        for place, text in enumerate(texts()[i] for i in best):
            kept = np.asarray(found.token_ids)[row, place]
            assert tuple(kept[: len(text)]) == text and not kept[len(text) :].any()
            assert int(found.lengths[row, place]) == len(text) - (text[-1] == 2)


def test_scores_are_those_of_the_texts_read_anew(made):
    """So each beam's cache holds its own text, whatever beams it went through."""
    found = search(made, 3)
    for row in range(ROWS):
        rows = []
        for ids, length in zip(np.asarray(found.token_ids)[row], np.asarray(found.lengths)[row], strict=True):
            rows.append(tuple(ids[: length + 1]) if length < LENGTH else tuple(ids))
        assert len(set(rows)) == 3
        np.testing.assert_allclose(found.scores[row], scores(made, rows)[row], rtol=1e-4)
        assert np.all(np.diff(found.scores[row]) <= 0)


def test_one_beam_is_greedy(made):
    params, memory, mask = made
    found = search(made, 1)
    for row in range(ROWS):
        ids = [1]
        while len(ids) <= LENGTH and (ids[-1] != 2 or len(ids) == 1):
            padded = jnp.asarray([ids + [0] * (LENGTH - len(ids))])
            last = np.array(read(params, padded, memory[row : row + 1], mask[row : row + 1])[0, len(ids) - 1])
            last[0] = -np.inf
            if len(ids) == 1:
                last[2] = -np.inf  # no text is empty
            ids.append(int(np.argmax(last)))
        np.testing.assert_array_equal(np.asarray(found.token_ids)[row, 0, : len(ids) - 1], ids[1:])
        assert int(found.lengths[row, 0]) == len(ids) - 1 - (ids[-1] == 2)


def test_rows_do_not_touch_one_another(made):
    params, memory, mask = made
    alone = search((params, memory[1:2], mask[1:2]), 3)
    together = search(made, 3)
    np.testing.assert_array_equal(alone.token_ids[0], together.token_ids[1])
    np.testing.assert_allclose(alone.scores[0], together.scores[1], rtol=1e-5)


@pytest.mark.parametrize(("beams", "length"), [(0, 4), (2, 0)])
def test_no_beam_and_no_token_are_refused(made, beams, length):
    with pytest.raises(UserError, match="at least 1 of each"):
        search(made, beams, length)
