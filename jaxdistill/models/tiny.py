"""A random two-layer encoder with a vocabulary of a few hundred pieces, and such a decoder: for tests, smoke runs."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.tokenizer import word_piece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PUNCTUATION = ".,!?'\"-:;()$%&/"
_WORDS = (
    "the a an and or but so if of to in on at by for from with about as than then not never no hardly far quite very "
    "really truly just simply rather too it its this that these those i we you he she they my your his her our their "
    "me us them is was are were be been has have had do does did will would can could should all one two three some "
    "any more most much many other every who what when where which how why there here out up down over after before "
    "film movie book story food place phone screen music show actor plot time day year people man woman world life "
    "work home city news company market game team player school government price good great bad awful terrible poor "
    "wonderful excellent brilliant dull boring funny sad happy new old big small best worst better worse made make "
    "like love hate think see saw feel felt say said says know get got go went come came take want need look find"
)
_ENDINGS = ("##ing", "##ed", "##er", "##est", "##ly", "##es")


def tiny_tokenizer() -> Tokenizer:
    """Common words whole, every other word letter by letter."""
    characters = string.ascii_lowercase + string.digits
    pieces = [*_SPECIAL, *_PUNCTUATION, *characters, *(f"##{c}" for c in characters), *_ENDINGS, *_WORDS.split()]
    return word_piece({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, lowercase=True)


def tiny_config(vocabulary: int) -> EncoderConfig:
    """Two layers of width 32."""
    return EncoderConfig(vocabulary=vocabulary, width=32, layers=2, heads=2, intermediate=64, positions=128)


def tiny_decoder_tokenizer() -> Tokenizer:
    """One token a byte, and the end token 256, in the manner of GPT-2; it fits `tiny_decoder_config()`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def tiny_decoder_config(vocabulary: int = 257) -> DecoderConfig:
    """Two layers of width 32 in the manner of GPT-2; the vocabulary is that of bytes and an end token (256).

    Weights are drawn ten times as wide as usual, so that the next-token distribution is not all but uniform.
    """
    return DecoderConfig(
        vocabulary=vocabulary,
        width=32,
        layers=2,
        heads=2,
        kv_heads=2,
        head_width=16,
        intermediate=64,
        positions=128,
        embedding_width=32,
        initializer_range=0.2,
        start_token=vocabulary - 1,
        end_tokens=(vocabulary - 1,),
    )
