"""Distinct n-grams and entropy against hand values."""

from __future__ import annotations

import pytest
from helpers import refused

from jaxdistill.evaluation.diversity import distinct_ngrams, diversity, ngrams, word_entropy


def test_ngrams():
    assert ngrams(["a", "b", "c"], 2) == [("a", "b"), ("b", "c")]
    assert ngrams(["a", "b"], 3) == []


@pytest.mark.parametrize(("n", "share"), [(1, 3 / 5), (2, 3 / 5), (3, 1 / 5)])
def test_reference_form_divides_by_words(n, share):
    assert distinct_ngrams([["a b a", "a c"]], n, form="reference") == pytest.approx(share)


@pytest.mark.parametrize(("n", "share"), [(1, 3 / 5), (2, 3 / 3), (3, 1.0), (4, None)])
def test_clean_form_divides_by_ngrams(n, share):
    assert distinct_ngrams([["a b a", "a c"]], n) == (share if share is None else pytest.approx(share))


def test_mean_over_prompts():
    texts = [["a b a", "a c"], ["x x x x"]]
    assert distinct_ngrams(texts, 1) == pytest.approx((3 / 5 + 1 / 4) / 2)
    assert distinct_ngrams([["a b"], ["x"]], 2) == 1.0  # the second prompt has no bigram


def test_prompts_belong_to_the_reference_form():
    # "p q" + " a" and "p q" + " b": words p q a p q b; bigrams pq, qa, qb.
    assert distinct_ngrams([[" a", " b"]], 1, form="reference", prompts=["p q"]) == pytest.approx(4 / 6)
    assert distinct_ngrams([[" a", " b"]], 2, form="reference", prompts=["p q"]) == pytest.approx(3 / 6)
    # Split at single spaces: two of them make an empty word.
    assert distinct_ngrams([["a  a"]], 1, form="reference") == pytest.approx(2 / 3)
    assert distinct_ngrams([["a  a"]], 1) == pytest.approx(1 / 2)


def test_entropy():
    assert word_entropy(["a b", "c d"]) == pytest.approx(2.0)
    assert word_entropy(["a a", "a b"]) == pytest.approx(-(0.75 * -0.4150375) + 0.5)
    assert word_entropy(["a"]) == 0.0 and word_entropy([""]) == 0.0


def test_figures_of_a_set():
    figures = diversity(["a b", "a b", "c"])
    assert figures["dist_1"] == pytest.approx(3 / 5) and figures["dist_2"] == 0.5 and figures["dist_3"] is None
    assert figures["words"] == pytest.approx(5 / 3) and figures["distinct_texts"] == pytest.approx(2 / 3)


def test_refuses():
    with refused("n is 0"):
        distinct_ngrams([["a"]], 0)
    with refused("of the texts of 0 prompts"):
        distinct_ngrams([], 1)
    with refused("form 'other' is unknown"):
        distinct_ngrams([["a"]], 1, form="other")
    with refused("the clean form reads no prompts"):
        distinct_ngrams([["a"]], 1, prompts=["p"])
    with refused("2 prompts for the texts of 1"):
        distinct_ngrams([["a"]], 1, form="reference", prompts=["p", "q"])
