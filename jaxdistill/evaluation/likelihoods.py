"""Log-probabilities of any number of token rows under a language model: a few lengths, so few compiled programs."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int, Int64

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, PyTree
from jaxdistill.evaluation.score_cache import cached_scores, parameter_hash
from jaxdistill.io.plain import fingerprint
from jaxdistill.io.progress import Progress
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.decoder_folder import decoder_tokenizer, load_decoder
from jaxdistill.models.likelihood import token_log_probabilities
from jaxdistill.models.pretrained import short_name

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHORTEST = 16
TOKENS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder that scores texts.

    Attributes:
      name: short; part of the name of every metric that it gives, since no two models give comparable numbers.
      decoder: static.
      params: of the decoder.
      tokenizer: of the decoder, without truncation or padding.
    """

    name: str
    decoder: Decoder
    params: PyTree
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        tokens, rows = self.tokenizer.get_vocab_size(), self.decoder.config.vocabulary
        if tokens > rows:
            raise UserError(
                f"language model {self.name!r}: the tokenizer has {tokens} tokens, the model only {rows}; expected the "
                "tokenizer of this model"
            )

    @functools.cached_property
    def digest(self) -> str:
        """Hash of everything that its scores depend on."""
        config = [self.decoder.config, str(self.decoder.dtype)]
        return fingerprint([config, self.tokenizer.to_str(), parameter_hash(self.params)])


class Likelihoods(NamedTuple):
    """How likely rows of tokens are.

    Attributes:
      negative: negative log-probability of the scored tokens of each row together, in nats.
      tokens: how many tokens were scored.
    """

    negative: Float64[np.ndarray, " n"]
    tokens: Int64[np.ndarray, " n"]


def load_language_model(name: str | os.PathLike[str], **options: Any) -> LanguageModel:
    """A decoder with its tokenizer, named by its folder's or its hub name.

    Args:
      name: a folder, a hub id, or "tiny" (random, for tests and smoke runs).
      **options: of `models.decoder_folder.load_decoder`.

    Raises:
      UserError: the name leads nowhere, or the checkpoint or its tokenizer cannot be used.
    """
    loaded = load_decoder(name, **options)
    return LanguageModel(short_name(os.fspath(name)), loaded.decoder, loaded.params, decoder_tokenizer(loaded))


def likelihoods(
    model: LanguageModel,
    rows: Sequence[Sequence[int]],
    first: Sequence[int] | None = None,
    *,
    cache: Path | None = None,
    label: str = "",
) -> Likelihoods:
    """Score rows of tokens of any lengths.

    Rows are sorted into lengths of 16, 32, 64, ... tokens, longest first, about `TOKENS_AT_ONCE` tokens a batch: as
    many programs are compiled as lengths occur. Log-probabilities are summed in float64.

    Args:
      model: who scores.
      rows: token ids, at least one each, at most as many as the model has positions.
      first: number of the first scored token of each row; everything before it is only read. A row's very first token
        has nothing before it and is never scored. `None` scores the rest.
      cache: folder in which scores are kept, see `score_cache`.
      label: of a progress line; empty shows none.

    Raises:
      UserError: a row is empty or too long.
    """
    longest = model.decoder.config.positions
    for i, row in enumerate(rows):
        if not 1 <= len(row) <= longest:
            raise UserError(
                f"language model {model.name!r}: text {i} has {len(row)} tokens; accepted are 1 to {longest}"
            )
    starts = [1] * len(rows) if first is None else [max(1, int(start)) for start in first]
    items = [[list(map(int, row)), start] for row, start in zip(rows, starts, strict=True)]

    def score(missing: list[int]) -> Iterator[tuple[Sequence[int], Sequence[Sequence[float]]]]:
        batches = list(_batches(np.asarray([len(rows[i]) for i in missing]), longest))
        progress = Progress(label, len(batches)) if label else None
        try:
            for done, (members, shape) in enumerate(batches, start=1):
                numbers = [missing[m] for m in members]
                values = _score(model, [items[i][0] for i in numbers], shape)
                yield (
                    numbers,
                    [[-x[s:].sum(), len(x[s:])] for x, s in zip(values, [starts[i] for i in numbers], strict=True)],
                )
                if progress is not None:
                    progress.update(done)
        finally:
            if progress is not None:
                progress.close()

    found = cached_scores(items, score, folder=cache, scorer=lambda: model.digest)
    table = np.asarray(found, np.float64).reshape(len(rows), 2)
    return Likelihoods(table[:, 0], table[:, 1].astype(np.int64))


def _batches(lengths: Int[np.ndarray, " n"], longest: int) -> Iterator[tuple[Int[np.ndarray, " m"], tuple[int, int]]]:
    """(which rows, shape of their batch), longest first: what does not fit in memory shows at once."""
    bound = np.asarray([min(max(SHORTEST, _power(int(length))), longest) for length in lengths])
    for length in sorted(set(bound.tolist()), reverse=True):
        members = np.flatnonzero(bound == length)
        count = min(max(1, TOKENS_AT_ONCE // length), _power(len(members)))
        for start in range(0, len(members), count):
            yield members[start : start + count], (count, length)


def _power(number: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, number - 1).bit_length()


def _score(model: LanguageModel, rows: list[list[int]], shape: tuple[int, int]) -> list[Float64[np.ndarray, " l"]]:
    """Log-probability of each token of each row, 0 for the first."""
    token_ids, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for i, row in enumerate(rows):
        token_ids[i, : len(row)], mask[i, : len(row)] = row, True
    mask[len(rows) :, 0] = True  # rows that fill the batch up: attention over nothing would be no number
    values = np.asarray(_log_probabilities(model.decoder, model.params, token_ids, mask), np.float64)
    return [values[i, : len(row)] for i, row in enumerate(rows)]


@functools.partial(jax.jit, static_argnums=0)
def _log_probabilities(
    decoder: Decoder, params: PyTree, token_ids: Int[Array, "r l"], mask: Bool[Array, "r l"]
) -> Float[Array, "r l"]:
    return token_log_probabilities(decoder, params, Batch(token_ids=token_ids, mask=mask)).log_probabilities
