"""TF-IDF vectors of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# One letter or digit is a word too: not every language writes words of two or more.
_WORD = r"(?u)\b\w+\b"


class Tfidf:
    """Counts of lower-case words, weighted by how rare a word is, each text scaled to unit length (scikit-learn's
    `TfidfVectorizer` with its own defaults).

    The texts given here are all that is ever learned from: their words are the vocabulary, and how many of them hold a
    word is how rare it is. Other words count for nothing in `__call__`. Of a pair of texts each has its own vocabulary,
    and their vectors stand side by side. Where no text has a word at all, the vector is one feature, always 0.

    Args:
      texts: one or two strings an example, at least one example.
    """

    def __init__(self, texts: Sequence[tuple[str, ...]]):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._columns: list[TfidfVectorizer | None] = []
        for column in zip(*texts, strict=True):
            has_words = any(re.search(_WORD, text) for text in column)
            self._columns.append(TfidfVectorizer(token_pattern=_WORD).fit(column) if has_words else None)

    @property
    def words(self) -> tuple[frozenset[str], ...]:
        """The vocabulary of each text of an example."""
        return tuple(frozenset(() if column is None else column.vocabulary_) for column in self._columns)

    def __call__(self, texts: Sequence[tuple[str, ...]]) -> Any:
        """The vectors of n texts or pairs: a sparse SciPy matrix [n, f], in rows."""
        from scipy.sparse import csr_matrix, hstack

        parts = [
            csr_matrix((len(texts), 1)) if vectoriser is None else vectoriser.transform(column)
            for vectoriser, column in zip(self._columns, zip(*texts, strict=True), strict=True)
        ]
        return hstack(parts, format="csr")
