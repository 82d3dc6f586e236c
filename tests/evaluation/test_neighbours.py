"""Nearest training texts: hand values of Jaccard's coefficient, ties, cosines."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused

from jaxdistill.evaluation import neighbours
from jaxdistill.evaluation.neighbours import nearest_by_encoder, nearest_by_ngrams, nearest_rows

OTHERS = ["the cat sat", "a dog ran far", "The Cat ran", "cat, cat!"]


def test_words():
    found = nearest_by_ngrams(["the cat ran home", "dog", "bird"], OTHERS, count=2)
    # {the cat ran home} shares 2 of 5 words with text 0, 1 of 7 with text 1, 3 of 4 with text 2, 1 of 4 with text 3.
    assert found.rows.tolist() == [[2, 0], [1, 0], [0, 1]]
    np.testing.assert_allclose(found.similarities, [[3 / 4, 2 / 5], [1 / 4, 0], [0, 0]], rtol=1e-6)
    bigrams = nearest_by_ngrams(["the cat ran home"], OTHERS, n=2)
    assert bigrams.rows.tolist() == [[2]] and bigrams.similarities[0, 0] == pytest.approx(2 / 3)


def test_characters():
    found = nearest_by_ngrams(["ab  c"], ["AB C", "abc", "b c"], unit="character", n=3, count=3)
    assert found.rows.tolist() == [[0, 2, 1]]  # "ab ", "b c" against those, "abc", and "b c"
    np.testing.assert_allclose(found.similarities, [[1, 1 / 2, 0]])


def test_texts_without_words_are_near_to_nothing():
    found = nearest_by_ngrams(["...", ""], OTHERS)
    assert found.rows.tolist() == [[0], [0]] and not found.similarities.any()
    assert nearest_by_ngrams(["cat", "..."], ["", "cat"]).rows.tolist() == [[1], [0]]


def test_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 6, 4))) for _ in range(30)]
    whole = nearest_by_ngrams(texts[:7], texts[7:], count=3)
    monkeypatch.setattr(neighbours, "_CHUNK_OF_SETS", 2)
    cut = nearest_by_ngrams(texts[:7], texts[7:], count=3)
    np.testing.assert_array_equal(cut.rows, whole.rows)
    np.testing.assert_array_equal(cut.similarities, whole.similarities)


def test_cosines():
    found = nearest_rows(np.asarray([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.asarray([[0.0, 1.0], [3.0, 0.0]]), 2)
    assert found.rows.tolist() == [[1, 0], [0, 1], [0, 1]]
    np.testing.assert_allclose(found.similarities, [[1, 0], [0.5**0.5] * 2, [0, 0]], atol=1e-9)


def test_an_encoder_finds_the_same_text():
    texts = [("a good film",), ("the plot is dull",), ("my phone",)]
    found = nearest_by_encoder("tiny", texts[1:], texts)
    assert found.rows.tolist() == [[1], [2]]
    np.testing.assert_allclose(found.similarities, 1.0, atol=1e-5)


def test_refuses():
    with refused("n-grams of 0 'word'"):
        nearest_by_ngrams(["a"], ["b"], n=0)
    with refused("n-grams of 1 'line'"):
        nearest_by_ngrams(["a"], ["b"], unit="line")
