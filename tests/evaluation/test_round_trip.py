"""Figures of texts that came back from their embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.round_trip import bleu, random_cosine, round_trip


def test_bleu_by_hand():
    """Of five words four stand in the reference; pairs 3 of 4, threes 2 of 3, fours 1 of 2; and one word is missing."""
    found, reference = ["a b c d x"], ["a b c d e f"]
    expected = 100 * np.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu(found, reference) == pytest.approx(expected)
    assert bleu(reference, reference) == pytest.approx(100.0)
    assert bleu(["a b"], ["a b"]) == 0.0  # there is no run of four words to count


def test_figures_of_a_round_trip():
    texts, again = ["A good film .", "dull plot", "fine"], ["a good film .", "dull dull", "bad"]
    found = round_trip(texts, again, np.array([1.0, 0.5, 0.0]))
    assert found["exact"] == pytest.approx(1 / 3) and found["texts"] == 3
    assert found["token_f1"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["median_cosine"] == 0.5 and found["low_cosine"] == pytest.approx(0.05)
    with pytest.raises(UserError, match="0 texts"):
        round_trip([], [], np.zeros(0))


def test_cosines_of_random_pairs():
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    found = random_cosine(np.stack([np.cos(angles), np.sin(angles)], axis=1), quantile=0.5)
    assert found == pytest.approx(0.0, abs=0.05)
    assert random_cosine(np.array([[1.0, 0.0], [0.0, 2.0]])) == pytest.approx(0.0)  # never a text with itself
