"""Fluency: perplexity of texts, and of continuations given their prompts, under any language model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int, Int64

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.likelihoods import LanguageModel, likelihoods

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A perplexity as large as this says that the scorer met what it cannot read; one such text would be the whole mean.
LIMIT = 1e4


@dataclasses.dataclass(frozen=True, eq=False)
class Perplexities:
    """Perplexity of each text, and what it is made of.

    Attributes:
      metric: "perplexity/" and the name of the scorer.
      negative: negative log-probability of each text's scored tokens, in nats.
      tokens: by how many tokens it is divided.
      truncated: how many texts were cut to what the scorer reads.
    """

    metric: str
    negative: Float64[np.ndarray, " n"]
    tokens: Int64[np.ndarray, " n"]
    truncated: int = 0

    @property
    def values(self) -> Float64[np.ndarray, " n"]:
        """exp(negative / tokens); NaN where no token was scored."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(self.tokens == 0, np.nan, np.exp(self.negative / self.tokens))

    def summary(self, limit: float = LIMIT) -> dict[str, Any]:
        """Figures for a result file.

        Returns:
          "mean": of the values below `limit`, `None` where there is none; "dropped": how many others there are, NaN
          included; "corpus": exp of the mean over all tokens of the texts that were not dropped, to which long texts
          contribute more; "texts", "tokens", "truncated": counts.
        """
        values = self.values
        kept = values < limit  # False for NaN
        mean = float(values[kept].mean()) if kept.any() else None
        corpus = float(np.exp(self.negative[kept].sum() / self.tokens[kept].sum())) if kept.any() else None
        return {
            "mean": mean,
            "corpus": corpus,
            "dropped": int((~kept).sum()),
            "truncated": self.truncated,
            "texts": len(values),
            "tokens": int(self.tokens.sum()),
        }


def text_perplexities(
    model: LanguageModel, texts: Sequence[str], *, max_length: int = 1024, cache: Path | None = None, label: str = ""
) -> Perplexities:
    """Perplexity of whole texts.

    Where the model names a start token and its tokenizer does not put it in front, it is put there, so that the first
    token of a text counts too. Without one, the first token only serves the others.

    Args:
      model: who scores.
      texts: any.
      max_length: tokens of a text at most, start token included; the model's positions hold too. Longer texts are cut
        and counted.
      cache: see `score_cache`.
      label: of a progress line; empty shows none.
    """
    start, length = model.decoder.config.start_token, min(max_length, model.decoder.config.positions)
    ids = [encoding.ids for encoding in model.tokenizer.encode_batch(list(texts))]
    if start is not None:
        ids = [row if row[:1] == [start] else [start, *row] for row in ids]
    found = likelihoods(model, _filled([row[:length] for row in ids]), cache=cache, label=label)
    truncated = sum(len(row) > length for row in ids)
    return Perplexities(f"perplexity/{model.name}", found.negative, found.tokens, truncated)


def continuation_perplexities(
    model: LanguageModel,
    prompts: Sequence[str],
    continuations: Sequence[str],
    *,
    tokenize: str = "joint",
    prompt_length: str = "row",
    cache: Path | None = None,
    label: str = "",
) -> Perplexities:
    """exp((NLL(prompt + continuation) - NLL(prompt)) / new tokens) of each continuation, with NLL the negative
    log-probability of all tokens but the first.

    Special tokens are those that the tokenizer adds by itself.

    Args:
      model: who scores.
      prompts: of each continuation; repeated where it has several.
      continuations: appended to the prompts as they are.
      tokenize: "joint" tokenises prompt and continuation once; new tokens are those that end behind the last character
        of the prompt, and a token across the boundary is one of them. "apart" tokenises the prompt alone as well and
        takes the difference of both, also where they disagree about the boundary, as published code does.
      prompt_length: whose tokens are taken off to count the new ones: those of the row's own prompt, or of the prompt
        that was met for the first time most recently ("last_scored", as published code does; the same while rows of a
        prompt stand together).
      cache: see `score_cache`.
      label: of a progress line; empty shows none.

    Raises:
      UserError: not as many prompts as continuations, an unknown choice, or a text longer than the model reads.
    """
    if len(prompts) != len(continuations):
        raise UserError(f"perplexity: {len(prompts)} prompts for {len(continuations)} continuations; give one for each")
    for name, value, accepted in (
        ("tokenize", tokenize, ("joint", "apart")),
        ("prompt_length", prompt_length, ("row", "last_scored")),
    ):
        if value not in accepted:
            raise UserError(f"perplexity: {name} is {value!r}: accepted are {' and '.join(accepted)}")
    whole = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    if tokenize == "joint":
        rows, lengths = encode_behind(model.tokenizer, whole, [len(prompt) for prompt in prompts])
        negative = likelihoods(model, _filled(rows), lengths.tolist(), cache=cache, label=label).negative
    else:
        rows = [encoding.ids for encoding in model.tokenizer.encode_batch(whole)]
        before = [encoding.ids for encoding in model.tokenizer.encode_batch(list(prompts))]
        both = likelihoods(model, _filled(rows + before), cache=cache, label=label).negative
        negative = both[: len(rows)] - both[len(rows) :]
        lengths = np.asarray([len(row) for row in before], np.int64)
    # The first token of all is never scored, so it is no new one either.
    lengths = np.maximum(lengths, 1)
    if prompt_length == "last_scored":
        lengths = _of_last_fresh(prompts, lengths)
    tokens = np.asarray([len(row) for row in _filled(rows)], np.int64) - lengths
    return Perplexities(f"perplexity/{model.name}", negative, tokens)


def encode_behind(
    tokenizer: Tokenizer, texts: Sequence[str], characters: Sequence[int]
) -> tuple[list[list[int]], Int64[np.ndarray, " n"]]:
    """Token ids of texts, and for each text the number of its first token that ends behind that many characters (as
    many as it has tokens where none does)."""
    rows, firsts = [], []
    for encoding, boundary in zip(tokenizer.encode_batch(list(texts)), characters, strict=True):
        behind = [end > boundary for _, end in encoding.offsets]
        rows.append(encoding.ids)
        firsts.append(behind.index(True) if True in behind else len(behind))
    return rows, np.asarray(firsts, np.int64)


def _filled(rows: list[list[int]]) -> list[list[int]]:
    """Rows without a token get one, which as the first of its row is never scored."""
    return [row or [0] for row in rows]


def _of_last_fresh(prompts: Sequence[str], lengths: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """For each row the length of the prompt that was new most recently."""
    seen: set[str] = set()
    found, current = [], 0
    for prompt, length in zip(prompts, lengths.tolist(), strict=True):
        if prompt not in seen:
            seen.add(prompt)
            current = length
        found.append(current)
    return np.asarray(found, np.int64)
