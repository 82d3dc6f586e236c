"""Membership inference: scores by which an attacker tells records that a set was made from, from others like them.

The attacker has the set, trains learners on it and sees what they say of a record. Sources: Yeom et al. (CSF 2018) for
the loss, Carlini et al. (S&P 2022) for the likelihood ratio, of which this is the offline form: its reference learners
have seen none of the records.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.diversity import ngrams
from jaxdistill.evaluation.overlap import words_of


def label_margins(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """log(p / (1 - p)) of each record's label: near a normal distribution over learners, unlike its probability.

    Args:
      logits: of a learner.
      labels: class ids.
    """
    logits = np.asarray(logits, np.float64)
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    largest = others.max(axis=1)
    return logits[rows, labels] - largest - np.log(np.exp(others - largest[:, None]).sum(axis=1))


def loss_scores(margins: Float[np.ndarray, "s n"]) -> Float[np.ndarray, " n"]:
    """Minus the cross-entropy of each record, mean of the learners: lower losses for members.

    Args:
      margins: see `label_margins`, of learners trained on the set.
    """
    return -np.logaddexp(0.0, -margins).mean(axis=0)


def likelihood_ratio_scores(
    margins: Float[np.ndarray, "s n"], references: Float[np.ndarray, "r n"]
) -> Float[np.ndarray, " n"]:
    """Standard deviations by which a record's margin lies above what learners that never met it give it.

    The mean is each record's own; the deviation is one for all, which few references tell better.

    Args:
      margins: of learners trained on the set.
      references: of learners trained on other sets of its size, made from none of the records.

    Raises:
      UserError: fewer than two references.
    """
    if len(references) < 2:
        raise UserError(f"likelihood-ratio attack: {len(references)} reference learners; at least 2 are needed")
    deviation = float(np.sqrt(references.var(axis=0, ddof=1).mean()))
    return (margins.mean(axis=0) - references.mean(axis=0)) / max(deviation, 1e-12)


def nearest_text_scores(records: Sequence[str], texts: Sequence[str]) -> Float[np.ndarray, " n"]:
    """Share of a record's pairs of words, or of the one word that it has, that the nearest text of a set has too.

    Args:
      records: texts that may have been members.
      texts: of the set.
    """

    words = [words_of(text) for text in texts]
    there = {size: [set(ngrams(own, size)) for own in words] for size in (1, 2)}

    def score(record: list[str]) -> float:
        size = min(2, max(1, len(record)))
        own = set(ngrams(record, size))
        return max(len(own & text) for text in there[size]) / max(1, len(own))

    return np.asarray([score(words_of(record)) for record in records], np.float64)
