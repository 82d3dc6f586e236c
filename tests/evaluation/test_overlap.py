"""Runs of words, copies and new n-grams against hand values and against plain sets."""

from __future__ import annotations

import time

import numpy as np
import pytest
from helpers import refused

from jaxdistill.evaluation.diversity import ngrams
from jaxdistill.evaluation.overlap import TrainingWords, words_of

TRAINING = ["The cat sat on the mat.", "A dog ran; the cat slept", "", "one"]


def test_words():
    assert words_of("The CAT's  mat, naïve 2x!") == ["the", "cat", "s", "mat", "naïve", "2x"]


def test_hand_values():
    found = TrainingWords(TRAINING).overlap(["the cat ran", "THE cat sat on the mat!", "cat sat on", "bird", "..."])
    assert found.longest.tolist() == [2, 6, 3, 0, 0]
    assert found.copied.tolist() == [False, True, False, False, False]
    assert found.words.tolist() == [3, 6, 3, 1, 0]
    # Of 13 words one is new, of 9 bigrams one ("cat ran"), of 6 trigrams one.
    assert found.new == {1: pytest.approx(1 / 13), 2: pytest.approx(1 / 9), 3: pytest.approx(1 / 6), 4: 0.0}
    summary = found.summary()
    assert summary["copied"] == pytest.approx(0.2) and summary["contained"] == pytest.approx(0.4)
    assert (summary["longest_run"], summary["longest_run_most"]) == (pytest.approx(11 / 5), 6)
    assert summary["new_2grams"] == pytest.approx(1 / 9)


def test_no_run_crosses_two_texts():
    words = TrainingWords(["a b", "c d"])
    assert words.overlap(["b c"]).longest.tolist() == [1]
    assert words.overlap(["d a b c"]).longest.tolist() == [2]
    assert words.overlap(["a"], sizes=(2,)).new == {2: None}
    assert words.overlap(["a b c d e"], sizes=(5,)).new == {5: 1.0}  # longer than any training text


def test_random_texts_against_sets():
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 4, rng.integers(0, 12)))) for _ in range(60)]
    training, given = texts[:40], texts[40:]
    known = {n: {gram for text in training for gram in ngrams(text.split(), n)} for n in range(1, 13)}

    def longest(text):
        return max((n for n in known if any(gram in known[n] for gram in ngrams(text.split(), n))), default=0)

    found = TrainingWords(training).overlap(given, sizes=(1, 2, 3, 5))
    assert found.longest.tolist() == [longest(text) for text in given]
    for n, share in found.new.items():
        grams = [gram for text in given for gram in ngrams(text.split(), n)]
        assert share == pytest.approx(np.mean([gram not in known[n] for gram in grams]))
    assert found.copied.tolist() == [text in training and text != "" for text in given]


def test_a_large_training_split_takes_seconds():
    rng = np.random.default_rng(0)
    training = [" ".join(row) for row in rng.integers(0, 2000, (20_000, 10)).astype(str)]
    given = [*training[:200], *(" ".join(row) for row in rng.integers(0, 2000, (200, 10)).astype(str))]
    start = time.perf_counter()
    found = TrainingWords(training).overlap(given)
    assert time.perf_counter() - start < 10
    assert found.copied[:200].all() and found.longest[:200].tolist() == [10] * 200
    assert not found.copied[200:].any() and found.longest[200:].max() < 5


def test_refuses_nothing_to_compare_with():
    with refused("there are no training texts"):
        TrainingWords([])
