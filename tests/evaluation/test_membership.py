"""Scores of membership inference: hand values, and attacks that have something to find."""

from __future__ import annotations

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.membership import (
    label_margins,
    likelihood_ratio_scores,
    loss_scores,
    nearest_text_scores,
)
from jaxdistill.evaluation.privacy_audit import attack


def test_margins_are_log_odds_of_the_label():
    logits, labels = np.array([[1.0, 2.0, 0.5], [300.0, -300.0, 0.0]]), np.array([1, 1])
    odds = np.exp(2.0) / (np.exp(1.0) + np.exp(0.5))
    np.testing.assert_allclose(label_margins(logits, labels), [np.log(odds), -600.0], rtol=1e-6)


def test_the_loss_is_the_cross_entropy_of_the_margin():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 3)), rng.integers(0, 3, 5)
    entropy = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), labels]
    margins = np.stack([label_margins(logits, labels)] * 2)
    np.testing.assert_allclose(loss_scores(margins), -entropy, rtol=1e-6)


def test_the_likelihood_ratio_sees_past_how_hard_a_record_is():
    """Members lie one deviation above what references give; records differ by much more than that."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(0.0, 5.0, 400)
    member = np.arange(400) < 200
    margins = hardness + 1.0 * member + rng.normal(0.0, 0.5, (4, 400))
    references = hardness + rng.normal(0.0, 0.5, (16, 400))
    ratio = likelihood_ratio_scores(margins, references)
    by_ratio, by_loss = (attack(s[:200], s[200:]) for s in (ratio, loss_scores(margins)))
    assert by_ratio.auc > 0.95 and by_loss.auc_low < 0.6
    assert np.mean(ratio[200:]) == pytest.approx(0.0, abs=0.2) and np.mean(ratio[:200]) == pytest.approx(2.0, abs=0.2)
    with pytest.raises(UserError, match="at least 2"):
        likelihood_ratio_scores(margins, references[:1])


def test_nearest_texts_share_pairs_of_words():
    records = ["a good film indeed", "dull", "bad plot", ""]
    found = nearest_text_scores(records, ["what a good film", "dull and long"])
    np.testing.assert_allclose(found, [2 / 3, 1.0, 0.0, 0.0])  # of one word alone that word is looked for
    np.testing.assert_allclose(nearest_text_scores(["dull"], ["dull"]), [1.0])
