"""Tokenise a split once, into flat arrays."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int8, Int32, Int64

from jaxdistill.core.errors import UserError
from jaxdistill.data.splits import Split

if TYPE_CHECKING:
    import tokenizers

_CHUNK = 8192


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """A tokenised split, ragged: the tokens of example i are `ids[offsets[i]:offsets[i + 1]]`.

    Attributes:
      ids: token ids of all examples, one after another, special tokens included.
      token_types: 0 for the first text, 1 for the second.
      offsets: n + 1 positions in `ids`.
      labels: class ids.
      truncated: how many examples were cut to the maximal length.
      groups: protected group of each example, one-hot; `None` where none is known.
      weights: of each example in training; `None` means all 1.
    """

    ids: Int32[np.ndarray, " total"]
    token_types: Int8[np.ndarray, " total"]
    offsets: Int64[np.ndarray, " n_and_1"]
    labels: Int32[np.ndarray, " n"]
    truncated: int
    groups: Float32[np.ndarray, "n g"] | None = None
    weights: Float32[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Tokens of each example."""
        return np.diff(self.offsets)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the tokenisation."""
        if not self.truncated:
            return ()
        return (f"{self.truncated:,} of {len(self):,} texts were truncated to {int(self.lengths.max())} tokens",)

    def tokens(self, index: int | np.integer) -> Int32[np.ndarray, " length"]:
        """Token ids of one example."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


def encode(split: Split, tokenizer: tokenizers.Tokenizer, max_length: int) -> Encoded:
    """Tokenise texts or text pairs with the tokenizer's special tokens; about 10,000 short texts a second and core.

    Each field is stripped. Longer inputs are truncated from the end of the longest field. Truncation and padding that
    were saved with the tokenizer are ignored; the tokenizer itself is not changed.

    Args:
      max_length: most tokens of an example, special ones included.

    Raises:
      UserError: `max_length` leaves no room for text; a text that a tokenizer of whole texts (see
        `models.words.row_vectors`) does not know.
    """
    pair = len(split) > 0 and len(split.texts[0]) == 2
    special = tokenizer.num_special_tokens_to_add(is_pair=pair)
    if max_length <= special:
        raise UserError(f"max_length {max_length} leaves no room for text beside {special} special tokens")
    if _takes_whole_texts(tokenizer):
        return _encode_whole(split, tokenizer)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")

    # Tokenizers without special tokens make nothing of an empty text: it becomes one unknown word.
    unknown = [tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "") or 0]
    ids, types, lengths, truncated = [np.zeros(0, np.int32)], [np.zeros(0, np.int8)], [np.zeros(1, np.int64)], 0
    for start in range(0, len(split), _CHUNK):
        fields = [tuple(field.strip() for field in text) for text in split.texts[start : start + _CHUNK]]
        chunk = tokenizer.encode_batch_fast(fields if pair else [text for (text,) in fields])
        ids += [np.asarray(e.ids or unknown, np.int32) for e in chunk]
        types += [np.asarray(e.type_ids or [0], np.int8) for e in chunk]
        lengths.append(np.asarray([max(len(e), 1) for e in chunk], np.int64))
        truncated += sum(bool(e.overflowing) for e in chunk)
    return Encoded(
        ids=np.concatenate(ids),
        token_types=np.concatenate(types),
        offsets=np.cumsum(np.concatenate(lengths)),
        labels=split.labels.astype(np.int32),
        truncated=truncated,
    )


def _takes_whole_texts(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether texts are words as they are: for those there is no part that could be known where the whole is not."""
    from tokenizers.models import WordLevel

    return tokenizer.pre_tokenizer is None and isinstance(tokenizer.model, WordLevel)


def _encode_whole(split: Split, tokenizer: tokenizers.Tokenizer) -> Encoded:
    """One token a text; an empty text too may be a word."""
    ids = np.zeros(len(split), np.int32)
    for row, (text,) in enumerate(split.texts):
        number = tokenizer.token_to_id(text.strip())
        if number is None:
            shown = repr(text.strip() if len(text) <= 40 else text[:37] + "...")
            raise UserError(f"text {shown} has no vector: accepted are the texts of the task itself")
        ids[row] = number
    offsets = np.arange(len(split) + 1)
    return Encoded(ids, np.zeros(len(split), np.int8), offsets, split.labels.astype(np.int32), truncated=0)
