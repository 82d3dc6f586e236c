"""Texts as documents of a language model: tokenised, closed by the end token, long ones cut into rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.data.encoding import Encoded

if TYPE_CHECKING:
    import tokenizers

_CHUNK = 8192


def encode_documents(
    texts: Sequence[str],
    tokenizer: tokenizers.Tokenizer,
    *,
    row_length: int,
    end: int,
    start: int | None = None,
    truncate: bool = False,
) -> Encoded:
    """Tokenise texts as they are, white space included, with the special tokens that the tokenizer adds.

    A document longer than a row becomes several examples that overlap by one token, so that each of its tokens but the
    first is predicted once. Special tokens written out in a text ("<|endoftext|>") become these tokens. Examples of a
    single token, which predict nothing, are left out.

    Args:
      texts: of the documents.
      tokenizer: not changed; truncation and padding saved with it are ignored.
      row_length: most tokens of an example.
      end: token that closes each document, unless it ends in it already.
      start: token that opens each document, unless it begins with it already; `None` adds none.
      truncate: cut off what is beyond a row, the end token with it, instead of going on in another example.

    Returns:
      Examples in the order of the texts, all of label 0; `truncated` counts documents that were cut off.

    Raises:
      UserError: rows of fewer than 2 tokens; not one token to predict.
    """
    if row_length < 2:
        raise UserError(f"row_length is {row_length}: a row needs at least 2 tokens, one to read and one to predict")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    pieces: list[np.ndarray] = []
    truncated = 0
    for first in range(0, len(texts), _CHUNK):
        for encoding in tokenizer.encode_batch_fast(list(texts[first : first + _CHUNK])):
            ids = encoding.ids
            opening = [start] if start is not None and ids[:1] != [start] else []
            closing = [end] if ids[-1:] != [end] or not ids else []
            document = np.asarray([*opening, *ids, *closing], np.int32)
            if truncate:
                truncated += len(document) > row_length
                document = document[:row_length]
            pieces += [document[at : at + row_length] for at in range(0, len(document) - 1, row_length - 1)]
    if not pieces:
        raise UserError(f"{len(texts)} texts have no token to predict: give at least one text that is not empty")
    return Encoded(
        ids=np.concatenate(pieces),
        token_types=np.zeros(sum(map(len, pieces)), np.int8),
        offsets=np.cumsum([0, *map(len, pieces)]),
        labels=np.zeros(len(pieces), np.int32),
        truncated=truncated,
    )
