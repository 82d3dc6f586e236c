"""How much of distilled texts stands in the training texts: runs of words, copies, new n-grams.

Words are compared by number, and a run of words by a 64-bit hash that all runs of one length get at once, so that
millions of training words take a fraction of a second a length. Two different runs share a hash about once in 10^19.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt64

from jaxdistill.core.errors import UserError

_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2**64


def words_of(text: str) -> list[str]:
    """Words as they are compared: without case, punctuation and spaces."""
    return re.findall(r"\w+", text.casefold())


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Texts as numbers of words.

    Attributes:
      words: of all texts, one after another.
      offsets: n + 1 positions in `words`.
      prefix: sum of the hashes of all words before a position, each times a power of the base.
      inverse: powers of the inverse of the base.
    """

    words: Int32[np.ndarray, " total"]
    offsets: Int64[np.ndarray, " n_and_1"]
    prefix: UInt64[np.ndarray, " total_and_1"]
    inverse: UInt64[np.ndarray, " total"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def runs(self, length: int) -> tuple[UInt64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
        """(hash, number of its text) of every run of `length` words that lies within one text."""
        lengths = np.diff(self.offsets)
        owner = np.repeat(np.arange(len(lengths)), np.maximum(lengths - length + 1, 0))
        counts = np.bincount(owner, minlength=len(lengths))
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        start = self.offsets[owner] + within
        return (self.prefix[start + length] - self.prefix[start]) * self.inverse[start], owner


class TrainingWords:
    """The words of the training texts, read once for any number of comparisons.

    Args:
      texts: of the training split, at least one.
    """

    def __init__(self, texts: Sequence[str]):
        if not texts:
            raise UserError("overlap: there are no training texts to compare with")
        self._numbers: dict[str, int] = {}
        self._corpus = _corpus([words_of(text) for text in texts], self._numbers)
        self._whole = {self._wording(self._corpus, i) for i in range(len(texts))}
        self._sorted = functools.lru_cache(maxsize=8)(lambda length: np.sort(self._corpus.runs(length)[0]))

    def overlap(self, texts: Sequence[str], sizes: Sequence[int] = (1, 2, 3, 4)) -> Overlap:
        """Compare texts with the training texts.

        Args:
          texts: any.
          sizes: n of the n-grams of which the new ones are counted.
        """
        numbers = _corpus([words_of(text) for text in texts], dict(self._numbers))
        copies = [self._wording(numbers, i) in self._whole for i in range(len(texts))]
        lengths = np.diff(numbers.offsets)
        return Overlap(
            {n: self._new_share(numbers, n) for n in sizes},
            self._longest(numbers),
            np.asarray(copies, bool) & (lengths > 0),
            lengths,
        )

    def _wording(self, corpus: Corpus, i: int) -> bytes:
        return corpus.words[corpus.offsets[i] : corpus.offsets[i + 1]].tobytes()

    def _known(self, runs: UInt64[np.ndarray, " m"], length: int) -> Bool[np.ndarray, " m"]:
        """Which runs occur in the training texts."""
        there = self._sorted(length)
        if not len(there):
            return np.zeros(len(runs), bool)
        return there[np.minimum(np.searchsorted(there, runs), len(there) - 1)] == runs

    def _new_share(self, corpus: Corpus, n: int) -> float | None:
        runs, _ = corpus.runs(n)
        return float(1.0 - self._known(runs, n).mean()) if len(runs) else None

    def _longest(self, corpus: Corpus) -> Int64[np.ndarray, " n"]:
        """For each text the most words in a row that stand in one training text."""

        @functools.cache
        def shared(length: int) -> Bool[np.ndarray, " n"]:
            runs, owner = corpus.runs(length)
            return np.bincount(owner, self._known(runs, length), minlength=len(corpus)) > 0

        # What holds for a length holds for every smaller one. All searches visit lengths of one grid, so few are made.
        most = 1 << int(np.diff(corpus.offsets).max(initial=1)).bit_length()
        grid = range(1, most)
        found = [bisect.bisect_left(grid, True, key=lambda k, i=i: not shared(k)[i]) for i in range(len(corpus))]
        return np.asarray(found, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Overlap:
    """What texts share with the training texts.

    Attributes:
      new: by n, the share of the texts' n-grams that stand in no training text; `None` without n-grams.
      longest: words of the longest run of each text that stands in a training text.
      copied: which texts are a training text, but for case, punctuation and spaces; one without words is no copy.
      words: of each text.
    """

    new: dict[int, float | None]
    longest: Int[np.ndarray, " n"]
    copied: Bool[np.ndarray, " n"]
    words: Int[np.ndarray, " n"]

    def summary(self) -> dict[str, Any]:
        """Figures for a result file.

        Returns:
          "new_<n>grams": as `new`; "copied": share of the texts; "contained": share of the texts that stand as a
          whole, or as part, in a training text; "longest_run", "longest_run_most": mean and maximum of `longest`.
        """
        figures: dict[str, Any] = {f"new_{n}grams": share for n, share in self.new.items()}
        return figures | {
            "copied": float(self.copied.mean()),
            "contained": float(((self.longest == self.words) & (self.words > 0)).mean()),
            "longest_run": float(self.longest.mean()),
            "longest_run_most": int(self.longest.max()),
        }


def _corpus(texts: Sequence[list[str]], numbers: dict[str, int]) -> Corpus:
    """Texts by number of word; new words are added to `numbers`."""
    flat = np.asarray([numbers.setdefault(word, len(numbers)) for text in texts for word in text], np.int32)
    offsets = np.cumsum([0, *map(len, texts)])
    powers, inverse = _powers(_BASE, len(flat)), _powers(pow(_BASE, -1, 2**64), len(flat))
    prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mix(flat) * powers, dtype=np.uint64)])
    return Corpus(flat, offsets.astype(np.int64), prefix, inverse)


def _powers(base: int, count: int) -> UInt64[np.ndarray, " n"]:
    """base**0, base**1, ... modulo 2**64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mix(numbers: Int32[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """A hash of each number (the finaliser of SplitMix64)."""
    z = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(_BASE)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
