"""Diversity of generated texts: distinct n-grams, and the entropy of their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdistill.core.errors import UserError


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, from left to right."""
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct_ngrams(
    texts: Sequence[Sequence[str]],
    n: int,
    *,
    form: str = "clean",
    prompts: Sequence[str] | None = None,
) -> float | None:
    """Dist-n: distinct n-grams of the texts of a prompt, divided by how many there are; mean over prompts.

    The more words, the fewer of them are new: compare only as many texts of about one length. Li et al. 2016 (A
    Diversity-Promoting Objective Function for Neural Conversation Models) define it; divisors differ between papers.

    Args:
      texts: of each prompt, its texts, prompt not included.
      n: words of an n-gram, at least 1.
      form: "clean" reads the texts alone, cut at white space, and divides by the number of n-grams: 1 means that
        nothing is repeated, for every n. "reference" puts the prompt in front of each of its texts, cuts at single
        spaces, and divides by the number of words for every n, as published code of detoxification does.
      prompts: for "reference"; `None` where the texts hold theirs already.

    Returns:
      from 0 to 1; prompts whose texts have no n-gram are left out of the mean of the clean form (all of them: `None`).

    Raises:
      UserError: no prompt, n below 1, another form, or prompts that do not fit.
    """
    if n < 1 or not texts:
        raise UserError(
            f"distinct n-grams: n is {n}, of the texts of {len(texts)} prompts; at least 1 of both is needed"
        )
    if form not in ("clean", "reference"):
        raise UserError(f"distinct n-grams: form {form!r} is unknown; accepted are clean and reference")
    if form == "clean" and prompts is not None:
        raise UserError("distinct n-grams: the clean form reads no prompts; leave them out, or give form='reference'")
    if prompts is not None and len(prompts) != len(texts):
        raise UserError(f"distinct n-grams: {len(prompts)} prompts for the texts of {len(texts)}; give one for each")
    shares = []
    for i, group in enumerate(texts):
        if form == "clean":
            words = [text.split() for text in group]
        else:
            prompt = "" if prompts is None else prompts[i]
            words = [(prompt + text).split(" ") for text in group]
        found = [gram for text in words for gram in ngrams(text, n)]
        divisor = len(found) if form == "clean" else sum(map(len, words))
        if divisor:
            shares.append(len(set(found)) / divisor)
    return float(np.mean(shares)) if shares else None


def word_entropy(texts: Sequence[str]) -> float:
    """Entropy of the words of all texts together, cut at white space, in bits a word; 0 without any words."""
    counts = np.asarray(list(Counter(word for text in texts for word in text.split()).values()), np.float64)
    shares = counts / counts.sum()
    return float(-np.sum(shares * np.log2(shares))) + 0.0


def diversity(texts: Sequence[str]) -> dict[str, Any]:
    """Figures of a set of texts without prompts, for a result file.

    Returns:
      "dist_1", "dist_2", "dist_3" (clean form, all texts together), "word_entropy" in bits, "words" (mean of a text),
      "distinct_texts" (share of the texts that are the first of their wording).
    """
    figures: dict[str, Any] = {f"dist_{n}": distinct_ngrams([texts], n) for n in (1, 2, 3)}
    return figures | {
        "word_entropy": word_entropy(texts),
        "words": float(np.mean([len(text.split()) for text in texts])),
        "distinct_texts": len(set(texts)) / len(texts),
    }
