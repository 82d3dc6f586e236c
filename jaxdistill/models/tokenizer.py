"""A checkpoint's tokenizer, as a `tokenizers.Tokenizer` without truncation or padding.

The `tokenizers` library is used directly: importing transformers takes seconds, and adds nothing here.
"""

from __future__ import annotations

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
            tokenizer = _word_piece(folder)
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            tokenizer = _byte_level(folder)
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


def _word_piece(folder: Path) -> Tokenizer:
    """BERT's tokenizer from `vocab.txt`; cased if `tokenizer_config.json` says so."""
    import json

    from tokenizers.implementations import BertWordPieceTokenizer

    settings = folder / "tokenizer_config.json"
    lowercase = json.loads(settings.read_text("utf-8")).get("do_lower_case", True) if settings.is_file() else True
    # The wrapper class is unpicklable and lacks methods of the real one; its state is a complete Tokenizer.
    return BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lowercase)._tokenizer


def _byte_level(folder: Path) -> Tokenizer:
    """RoBERTa's tokenizer from `vocab.json` and `merges.txt`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([t for t in ("<s>", "<pad>", "</s>", "<unk>")] + [AddedToken("<mask>", lstrip=True)])
    ends = {token: tokenizer.token_to_id(token) for token in ("</s>", "<s>")}
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ends["</s>"]), ("<s>", ends["<s>"]), add_prefix_space=False
    )
    return tokenizer
