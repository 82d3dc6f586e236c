"""Which of GRADMM's texts are kept: by what the language model would label them, by distance, by likelihood.

Source: GRADMM (Nguyen et al., ICML 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdistill.evaluation.likelihoods import LanguageModel, likelihoods

if TYPE_CHECKING:
    from jaxdistill.methods.gradmm_settings import Filtering


def keep_texts(
    texts: Sequence[str],
    labels: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    per_class: int,
    *,
    balance: bool,
    usable: Bool[np.ndarray, " n"] | None = None,
) -> tuple[list[int], dict[str, int]]:
    """Indices of the texts that are kept, class by class, the best first; and how many were dropped by what.

    Args:
      texts: candidates.
      labels: of each.
      scores: lower is better.
      per_class: texts of each class, at most.
      balance: of two classes, drop the worst of the one with the higher mean score until it is no longer higher.
      usable: texts that may be kept; where too few are, the others of their class follow them.
    """
    usable = np.ones(len(texts), bool) if usable is None else usable
    dropped = {"duplicates": 0, "unusable": int(np.sum(~usable)), "balance": 0}
    seen: set[tuple[int, str]] = set()
    order = sorted(range(len(texts)), key=lambda i: (not usable[i], scores[i], i))
    chosen: dict[int, list[int]] = {int(label): [] for label in np.unique(labels)}
    for i in order:
        label, text = int(labels[i]), texts[i].strip()
        if (label, text) in seen or not text:
            dropped["duplicates"] += 1
            continue
        seen.add((label, text))
        if len(chosen[label]) < per_class:
            chosen[label].append(i)
    if balance and len(chosen) == 2:
        first, second = chosen.values()
        while len(first) > 1 and len(second) > 1:
            means = [float(np.mean(scores[own])) for own in (first, second)]
            if means[0] == means[1]:
                break
            higher, lower = (first, second) if means[0] > means[1] else (second, first)
            while len(higher) > 1 and np.mean(scores[higher]) > np.mean(scores[lower]):
                higher.remove(max(higher, key=lambda i: (scores[i], i)))
                dropped["balance"] += 1
            break
    return [i for own in chosen.values() for i in own], dropped


def mean_negative_likelihoods(model: LanguageModel, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
    """Nats a token of each text under a language model; 0 for texts of one token, which nothing precedes."""
    rows = [item.ids for item in model.tokenizer.encode_batch(list(texts))]
    found = likelihoods(model, rows)
    return np.asarray(found.negative / np.maximum(found.tokens, 1), np.float64)


def few_shot_labels(
    model: LanguageModel, texts: Sequence[str], label_words: Sequence[str], filtering: Filtering
) -> Int[np.ndarray, " n"]:
    """What the language model calls each text after some examples, by the probability of the whole label word."""
    shown = "".join(f"Input: {text.strip()}\nLabel: {label}\n\n" for text, label in filtering.examples)
    heads = [f"{shown}Input: {text.strip()}\nLabel:" for text in texts]
    return _likeliest(model, heads, [f" {word}" for word in label_words])


def zero_shot_labels(
    model: LanguageModel, texts: Sequence[str], prompt: str, label_words: Sequence[str]
) -> Int[np.ndarray, " n"]:
    """What it calls each text when asked by the prompt alone."""
    return _likeliest(model, [f"{text.strip()}{prompt}" for text in texts], label_words)


def _likeliest(model: LanguageModel, heads: Sequence[str], endings: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Which ending of each text is the likeliest."""
    scores = np.zeros((len(heads), len(endings)))
    for column, ending in enumerate(endings):
        whole = [model.tokenizer.encode(f"{head}{ending}").ids for head in heads]
        begun = [model.tokenizer.encode(head).ids for head in heads]
        # The ending's own tokens: what all have cost less what those before have.
        scores[:, column] = likelihoods(model, begun).negative - likelihoods(model, whole).negative
    return np.argmax(scores, axis=1).astype(np.int64)
