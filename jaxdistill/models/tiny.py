"""Random models of two layers with a vocabulary of a few hundred pieces: for tests and smoke runs."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, cast

from jaxdistill.models.config import EncoderConfig, Family
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.decoder_families import decoder_config
from jaxdistill.models.t5_config import T5Config
from jaxdistill.models.tokenizer import word_piece
from jaxdistill.models.xlnet_config import XLNetConfig

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


# How the families put texts together, in the words of `tokenizers`' templates.
_TEMPLATES = {
    "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
    "xlnet": ("$A [SEP] [CLS]:2", "$A [SEP] $B:1 [SEP]:1 [CLS]:2"),
    "t5": ("$A [SEP]", "$A [SEP] $B [SEP]"),
    "opt": ("[CLS] $A", "[CLS] $A [CLS] $B"),
    "llama": ("[CLS] $A", "[CLS] $A [CLS]:1 $B:1"),
}
_SIZES: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "intermediate": 64}
_HIDDEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 128}
_DECODERS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "n_inner": 64},
    "opt": _HIDDEN | {"ffn_dim": 64},
    "llama": _HIDDEN | {"intermediate_size": 64},
    "phi": _HIDDEN | {"intermediate_size": 64},
    "falcon": _HIDDEN | {"ffn_hidden_size": 64},
}


def tiny_tokenizer(family: str = "bert") -> Tokenizer:
    """Common words whole, every other word letter by letter; texts are put together as the family does, with BERT's
    special tokens."""
    from tokenizers import processors

    characters = string.ascii_lowercase + string.digits
    pieces = [*_SPECIAL, *_PUNCTUATION, *characters, *(f"##{c}" for c in characters), *_ENDINGS, *_WORDS.split()]
    tokenizer = word_piece({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, lowercase=True)
    if family in _TEMPLATES:
        single, pair = _TEMPLATES[family]
        special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    elif family in _DECODERS:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)  # adds nothing
    return tokenizer


def tiny_config(vocabulary: int, family: str = "bert") -> EncoderConfig | DecoderConfig | XLNetConfig | T5Config:
    """Two layers of width 32, for classifiers of any family."""
    if family == "t5":
        sizes = {"width": 32, "heads": 2, "head_width": 16, "intermediate": 64, "encoder_layers": 2}
        return T5Config(vocabulary=vocabulary, decoder_layers=0, positions=128, **sizes)
    if family == "xlnet":
        return XLNetConfig(vocabulary=vocabulary, positions=128, **_SIZES)
    if family in _DECODERS:
        end = {"eos_token_id": _SPECIAL.index("[SEP]"), "pad_token_id": 0}
        return decoder_config({"model_type": family, "vocab_size": vocabulary} | _DECODERS[family] | end)
    offset, types = {"bert": (0, 2), "roberta": (2, 1), "distilbert": (0, 0)}[family]
    sizes: dict[str, Any] = _SIZES | {"positions": 128 + offset, "position_offset": offset, "token_types": types}
    return EncoderConfig(family=cast(Family, family), vocabulary=vocabulary, **sizes)


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
