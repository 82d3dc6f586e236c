"""A tokenizer of one's own: byte pairs learned from texts, as GPT-2's, and the decoder config that goes with one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxdistill.core.errors import UserError
from jaxdistill.models.decoder_config import DecoderConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
_BYTES = 256


def train_tokenizer(
    texts: Sequence[str], *, vocabulary: int, end: str = END_OF_TEXT, special: Sequence[str] = ()
) -> Tokenizer:
    """Learn byte pairs (Sennrich et al. 2016, over bytes as in GPT-2), so that any text can be encoded and decoded.

    The same texts in the same order give the same tokenizer. About 20 MB of text take half a minute on one core.

    Args:
      texts: to learn from.
      vocabulary: tokens at most, special ones and the 256 bytes included; fewer where the texts have no more pairs.
      end: token that closes a text, number 0. Encoding adds no special tokens.
      special: further special tokens, numbered on from 1.

    Raises:
      UserError: no texts, a vocabulary too small for bytes and special tokens, a special token given twice or empty.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokens = [end, *special]
    if not any(texts):
        raise UserError("tokenizer: there are no texts to learn from")
    if len(set(tokens)) != len(tokens) or not all(tokens):
        raise UserError(f"tokenizer: special tokens {', '.join(map(repr, tokens))} must differ and not be empty")
    if vocabulary < (least := _BYTES + len(tokens)):
        raise UserError(
            f"tokenizer: vocabulary is {vocabulary}: it takes at least {least}, for {_BYTES} bytes and {len(tokens)} "
            "special tokens"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    options = {"special_tokens": tokens, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, **options), len(texts))
    return tokenizer


def with_tokenizer(
    config: DecoderConfig,
    tokenizer: Tokenizer,
    *,
    end: str = END_OF_TEXT,
    start: str | None = None,
    padding: str | None = None,
) -> DecoderConfig:
    """The config with the vocabulary and the special tokens of a tokenizer.

    Args:
      config: of a decoder yet to be trained.
      tokenizer: of its texts.
      end: token that closes a text.
      start: token that texts start from; the end token by default, as in GPT-2.
      padding: token that pads; the end token by default.

    Raises:
      UserError: the tokenizer has no such token.
    """
    ids = {name: tokenizer.token_to_id(name) for name in (end, start or end, padding or end)}
    if missing := [name for name, number in ids.items() if number is None]:
        raise UserError(f"the tokenizer has no token {missing[0]!r}; name the one that closes its texts")
    return dataclasses.replace(
        config,
        vocabulary=tokenizer.get_vocab_size(),
        start_token=ids[start or end],
        end_tokens=(ids[end],),
        padding_token=ids[padding or end],
    )
