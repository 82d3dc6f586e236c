"""A checkpoint's tokenizer, as a `tokenizers.Tokenizer` without truncation or padding.

The `tokenizers` library is used directly: importing transformers takes seconds, and adds nothing here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder: `tokenizer.json`, else `vocab.txt`, else `vocab.json` and `merges.txt`.

    Truncation and padding saved with it (MiniLM's pads everything to 128) are switched off: encoding decides those.

    Raises:
      UserError: none of the files is there, or one is broken.
    """
    from tokenizers import Tokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.txt").is_file():
            tokenizer = _from_vocab_txt(folder)
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            tokenizer = _from_merges(folder)
        else:
            raise UserError(f"{folder}: no tokenizer; expected tokenizer.json, vocab.txt, or vocab.json and merges.txt")
    except UserError:
        raise
    except Exception as error:  # the Rust library raises bare Exception for files it cannot parse
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: the tokenizer files cannot be read: {reason}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def word_piece(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    """BERT's tokenizer over a vocabulary that holds [UNK], [CLS] and [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocabulary])
    return tokenizer


def _from_vocab_txt(folder: Path) -> Tokenizer:
    """BERT's tokenizer from `vocab.txt`; cased if `tokenizer_config.json` says so."""
    settings = folder / "tokenizer_config.json"
    lowercase = json.loads(settings.read_text("utf-8")).get("do_lower_case", True) if settings.is_file() else True
    words = (folder / "vocab.txt").read_text("utf-8").splitlines()
    return word_piece({word: i for i, word in enumerate(words)}, lowercase=lowercase)


def _from_merges(folder: Path) -> Tokenizer:
    """RoBERTa's tokenizer from `vocab.json` and `merges.txt`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    end, start = tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<s>")
    if end is None or start is None:
        raise UserError(f"{folder / 'vocab.json'}: no <s> and </s>; expected the vocabulary of a RoBERTa")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", end), ("<s>", start), add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    return tokenizer
