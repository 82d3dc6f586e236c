"""How much of a text comes back: of texts that were embedded and written out again, beside the first ones.

BLEU is that of Papineni et al. (ACL 2002) over all texts, up to four words, without smoothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.diversity import ngrams
from jaxdistill.evaluation.overlap import words_of

_GRAMS = 4


def round_trip(
    texts: Sequence[str],
    again: Sequence[str],
    cosines: Float[np.ndarray, " n"],
) -> dict[str, float]:
    """Figures of a round trip.

    Args:
      texts: what was embedded.
      again: what came back.
      cosines: of the embeddings of both.

    Returns:
      "median_cosine", "mean_cosine", "low_cosine" (5 % are below it), "token_f1" (mean over texts), "bleu" in percent,
      "exact" (share, case and white space aside), "texts".

    Raises:
      UserError: no texts, or not as many on both sides.
    """
    if not texts or not len(texts) == len(again) == len(cosines):
        raise UserError(f"round trip: {len(texts)} texts, {len(again)} that came back, {len(cosines)} cosines")
    pairs = [(words_of(a), words_of(b)) for a, b in zip(texts, again, strict=True)]
    return {
        "median_cosine": float(np.median(cosines)),
        "mean_cosine": float(np.mean(cosines)),
        "low_cosine": float(np.quantile(cosines, 0.05)),
        "token_f1": float(np.mean([_f1(a, b) for a, b in pairs])),
        "bleu": bleu(again, texts),
        "exact": float(np.mean([a == b for a, b in pairs])),
        "texts": len(texts),
    }


def bleu(found: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of texts with one reference each, in percent."""
    hits, totals = np.zeros(_GRAMS), np.zeros(_GRAMS)
    lengths = np.zeros(2)
    for text, reference in zip(found, references, strict=True):
        own, real = words_of(text), words_of(reference)
        lengths += len(own), len(real)
        for n in range(1, _GRAMS + 1):
            mine, theirs = Counter(ngrams(own, n)), Counter(ngrams(real, n))
            hits[n - 1] += sum((mine & theirs).values())
            totals[n - 1] += sum(mine.values())
    if not hits.all():
        return 0.0
    penalty = min(0.0, 1.0 - lengths[1] / lengths[0])
    return 100.0 * math.exp(penalty + float(np.mean(np.log(hits / totals))))


def random_cosine(vectors: Float[np.ndarray, "n d"], *, quantile: float = 0.999, pairs: int = 20000) -> float:
    """Cosine that random pairs of texts exceed in 1 - `quantile` of all cases: what an inversion has to beat.

    Args:
      vectors: of at least two texts.
      quantile: see above.
      pairs: drawn, always the same ones.
    """
    rng = np.random.default_rng(0)
    first = rng.integers(len(vectors), size=pairs)
    second = (first + rng.integers(1, len(vectors), size=pairs)) % len(vectors)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return float(np.quantile(np.sum(unit[first] * unit[second], axis=1), quantile))


def _f1(own: list[str], real: list[str]) -> float:
    shared = sum((Counter(own) & Counter(real)).values())
    return 2.0 * shared / max(1, len(own) + len(real))
