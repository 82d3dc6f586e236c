"""The training texts that lie nearest to given texts: by shared n-grams, or by sentence vectors of an encoder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.diversity import ngrams
from jaxdistill.evaluation.overlap import words_of
from jaxdistill.evaluation.sentences import sentence_vectors

_CHUNK = 256  # vectors compared at once: their cosines to 30,000 rows take 31 MB
_CHUNK_OF_SETS = 64  # a few such arrays at once


class Neighbours(NamedTuple):
    """For each text the k nearest of m others, nearest first; of equally near ones the first.

    Attributes:
      rows: numbers of the others.
      similarities: cosines, or Jaccard coefficients.
    """

    rows: Int[np.ndarray, "n k"]
    similarities: Float[np.ndarray, "n k"]


def nearest_rows(vectors: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"], count: int = 1) -> Neighbours:
    """Nearest rows by cosine; a vector of zeros has cosine 0 to all."""
    unit = others / np.maximum(np.linalg.norm(others, axis=-1, keepdims=True), 1e-12)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    parts = [_nearest(vectors[i : i + _CHUNK] @ unit.T, count) for i in range(0, len(vectors), _CHUNK)]
    return _joined(parts, min(count, len(others)))


def nearest_by_ngrams(
    texts: Sequence[str],
    others: Sequence[str],
    *,
    unit: str = "word",
    n: int = 1,
    count: int = 1,
) -> Neighbours:
    """Nearest texts by the Jaccard coefficient of their sets of n-grams: shared ones over all of both.

    Args:
      texts, others: any.
      unit: "word" (see `overlap.words_of`) or "character" (without case, white space as one space).
      n: words or characters of an n-gram.
      count: neighbours of each text.

    Raises:
      UserError: n below 1, or an unknown unit.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    if n < 1 or unit not in ("word", "character"):
        raise UserError(f"neighbours: n-grams of {n} {unit!r}: accepted are 1 or more of word or character")
    pieces = functools.partial(_pieces, unit=unit, n=n)
    count = min(count, len(others))
    if not any(pieces(text) for text in texts):  # the vectoriser refuses an empty vocabulary
        rows = np.broadcast_to(np.arange(count), (len(texts), count)).copy()
        return Neighbours(rows, np.zeros((len(texts), count)))
    options: dict[str, Any] = {"analyzer": pieces, "binary": True, "dtype": np.float32}
    found: Any = CountVectorizer(**options).fit_transform([*texts, *others])
    sizes = np.asarray(found.sum(axis=1)).ravel()
    own, there = found[: len(texts)], found[len(texts) :].T.tocsr()

    def coefficients(part: slice) -> Float[np.ndarray, "b m"]:
        shared = (own[part] @ there).toarray()
        union = sizes[: len(texts)][part, None] + sizes[None, len(texts) :] - shared
        return shared / np.maximum(union, 1.0)

    starts = range(0, len(texts), _CHUNK_OF_SETS)
    parts = [_nearest(coefficients(slice(i, i + _CHUNK_OF_SETS)), count) for i in starts]
    return _joined(parts, count)


def nearest_by_encoder(
    encoder: str, texts: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]], *, count: int = 1
) -> Neighbours:
    """Nearest texts by cosine of an encoder's mean features, see `sentences.sentence_vectors`.

    The encoder reads all of `others`: MiniLM a hundred short texts a second on one CPU core.
    """
    vectors = sentence_vectors(encoder, [*texts, *others])
    return nearest_rows(vectors[: len(texts)], vectors[len(texts) :], count)


def _pieces(text: str, unit: str, n: int) -> list:
    """The n-grams of a text."""
    if unit == "word":
        return ngrams(words_of(text), n)
    text = " ".join(text.casefold().split())
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def _nearest(similarities: Float[np.ndarray, "b m"], count: int) -> Neighbours:
    count = min(count, similarities.shape[1])
    if count == 1:
        best = similarities.argmax(axis=1)[:, None]
    else:
        # Among those that tie with the last one taken, a partition may take any: sort by value, then by number.
        threshold = -np.partition(-similarities, count - 1, axis=1)[:, count - 1]
        best = np.empty((len(similarities), count), np.int64)
        for i, row in enumerate(similarities):
            candidates = np.flatnonzero(row >= threshold[i])
            best[i] = candidates[np.argsort(-row[candidates], kind="stable")[:count]]
    return Neighbours(best, np.take_along_axis(similarities, best, axis=1))


def _joined(parts: list[Neighbours], count: int) -> Neighbours:
    if not parts:
        return Neighbours(np.zeros((0, count), np.int64), np.zeros((0, count)))
    return Neighbours(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
