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


def separate_pairs(tokenizer: Tokenizer, token: str) -> Tokenizer:
    """The tokenizer with a token between the two texts of a pair, and nothing around them.

    Args:
      tokenizer: one that adds nothing of its own; it is changed.
      token: of its vocabulary.
    """
    from tokenizers import processors

    between = processors.TemplateProcessing(
        single="$A", pair=f"$A {token} $B:1", special_tokens=[(token, tokenizer.token_to_id(token))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), between])
    return tokenizer


def _from_vocab_txt(folder: Path) -> Tokenizer:
    """BERT's tokenizer from `vocab.txt`; cased if `tokenizer_config.json` says so."""
    settings = folder / "tokenizer_config.json"
    lowercase = json.loads(settings.read_text("utf-8")).get("do_lower_case", True) if settings.is_file() else True
    words = (folder / "vocab.txt").read_text("utf-8").splitlines()
    return word_piece({word: i for i, word in enumerate(words)}, lowercase=lowercase)


def _from_merges(folder: Path) -> Tokenizer:
    """The tokenizer of `vocab.json` and `merges.txt`: bytes and their merges are alike in all families, the special
    tokens are not. `config.json` tells the family; without it, or for another one, the vocabulary does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    family = _family(folder)
    if family not in ("gpt2", "opt", "roberta"):
        has_ends = all(tokenizer.token_to_id(token) is not None for token in ("<s>", "</s>"))
        family = "roberta" if has_ends else "gpt2"
    {"gpt2": _like_gpt2, "opt": _like_opt, "roberta": _like_roberta}[family](tokenizer, folder)
    return tokenizer


def _family(folder: Path) -> str | None:
    """What `config.json` says that the model is, where there is one."""
    path = folder / "config.json"
    return json.loads(path.read_text("utf-8")).get("model_type") if path.is_file() else None


def _like_gpt2(tokenizer: Tokenizer, folder: Path) -> None:
    """One special token, the end of a text; encoding adds none."""
    _ids(tokenizer, folder, ("<|endoftext|>",), "a RoBERTa (with <s> and </s>) or a GPT-2")
    if tokenizer.token_to_id("!</w>") is not None:
        raise UserError(f"{folder / 'vocab.json'}: words end in </w>, which neither GPT-2's nor RoBERTa's do")
    tokenizer.add_special_tokens(["<|endoftext|>"])


def _like_opt(tokenizer: Tokenizer, folder: Path) -> None:
    """RoBERTa's special tokens; encoding puts </s> in front, and nothing at the end."""
    from tokenizers import processors

    end, *_ = _ids(tokenizer, folder, ("</s>",), "an OPT")
    first = processors.TemplateProcessing(single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", end)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), first])
    tokenizer.add_special_tokens([t for t in ("<s>", "<pad>", "</s>", "<unk>") if tokenizer.token_to_id(t) is not None])


def _like_roberta(tokenizer: Tokenizer, folder: Path) -> None:
    """<s> and </s> around a text."""
    from tokenizers import AddedToken, processors

    start, end = _ids(tokenizer, folder, ("<s>", "</s>"), "a RoBERTa")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", end), ("<s>", start), add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])


def _ids(tokenizer: Tokenizer, folder: Path, tokens: tuple[str, ...], owner: str) -> list[int]:
    """Ids of special tokens that have to be there."""
    found = [i for i in map(tokenizer.token_to_id, tokens) if i is not None]
    if len(found) < len(tokens):
        raise UserError(f"{folder / 'vocab.json'}: no {' and '.join(tokens)}; expected the vocabulary of {owner}")
    return found
