"""Tokenizers from each set of files."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Tokenizer

from jaxdistill.core.errors import UserError
from jaxdistill.models.minilm import minilm_folder
from jaxdistill.models.tiny import tiny_tokenizer
from jaxdistill.models.tokenizer import load_tokenizer

TEXTS = ["A  well-made film, über-good!", "don't; 42nd\tstreet", "", "word " * 300]


@pytest.mark.needs_minilm
def test_minilm_is_neither_cut_nor_padded():
    saved = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    assert saved.truncation["max_length"] == 128 and saved.padding is not None
    tokenizer = load_tokenizer(minilm_folder())
    assert tokenizer.truncation is None and tokenizer.padding is None
    assert len(tokenizer.encode("word " * 300).ids) == 302
    assert tokenizer.encode("a film").ids == [101, 1037, 2143, 102]
    pair = tokenizer.encode("a film", "a book")
    assert pair.type_ids == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.needs_minilm
def test_vocab_txt_gives_the_same(tmp_path):
    shutil.copy(minilm_folder() / "vocab.txt", tmp_path)
    built, whole = load_tokenizer(tmp_path), load_tokenizer(minilm_folder())
    for text in TEXTS:
        assert built.encode(text).ids == whole.encode(text).ids
        assert built.encode(text, "second").type_ids == whole.encode(text, "second").type_ids


@pytest.mark.needs_minilm
def test_cased_vocab_txt(tmp_path):
    shutil.copy(minilm_folder() / "vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert load_tokenizer(tmp_path).encode("Film").tokens == ["[CLS]", "[UNK]", "[SEP]"]


@pytest.mark.needs_weights("roberta-tokenizer")
def test_vocab_and_merges_give_the_same(tmp_path, weights_dir):
    whole = load_tokenizer(weights_dir / "roberta-tokenizer")
    model = json.loads((weights_dir / "roberta-tokenizer" / "tokenizer.json").read_text("utf-8"))["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    built = load_tokenizer(tmp_path)
    for text in TEXTS:
        assert built.encode(text).ids == whole.encode(text).ids
    assert built.encode("a", "b").tokens == whole.encode("a", "b").tokens == ["<s>", "a", "</s>", "</s>", "b", "</s>"]


def test_tiny():
    tokenizer = tiny_tokenizer()
    assert tokenizer.encode("The film was Zoé!").tokens == [
        "[CLS]",
        "the",
        "film",
        "was",
        "z",
        "##o",
        "##e",
        "!",
        "[SEP]",
    ]
    assert tokenizer.token_to_id("[PAD]") == 0


HELLO = [15496, 11, 995, 0]


@pytest.mark.needs_weights("gpt2-bpe")
def test_gpt2_vocab_and_merges(weights_dir):
    tokenizer = load_tokenizer(weights_dir / "gpt2-bpe")
    assert tokenizer.encode("Hello, world!").ids == HELLO
    assert tokenizer.encode("Hello, world!<|endoftext|>").ids == [*HELLO, 50256]
    assert tokenizer.decode([*HELLO, 50256]) == "Hello, world!"


def byte_pairs(folder, tokens, family=None):
    """Files of a tokenizer that knows bytes and these tokens, and no merges but one."""
    from tokenizers import pre_tokenizers

    words = [*tokens, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\na b\n", "utf-8")
    if family:
        (folder / "config.json").write_text(json.dumps({"model_type": family}), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("special", "family", "tokens"),
    [
        (("<|endoftext|>",), None, ["ab"]),
        (("<s>", "</s>", "<|endoftext|>"), "gpt2", ["ab"]),
        (("<s>", "<pad>", "</s>", "<unk>"), "opt", ["</s>", "ab"]),
        (("<s>", "<pad>", "</s>", "<unk>"), "roberta", ["<s>", "ab", "</s>"]),
        (("<s>", "<pad>", "</s>", "<unk>"), None, ["<s>", "ab", "</s>"]),
        (("<|endoftext|>",), "phi", ["ab"]),
    ],
)
def test_config_or_vocabulary_tells_the_family(tmp_path, special, family, tokens):
    assert load_tokenizer(byte_pairs(tmp_path, special, family)).encode("ab").tokens == tokens


@pytest.mark.parametrize(
    ("special", "family", "message"),
    [
        (("<s>",), None, r"no <\|endoftext\|>; expected the vocabulary of a RoBERTa \(with <s> and </s>\) or a GPT-2"),
        (("<|endoftext|>", "!</w>"), None, "words end in </w>, which neither GPT-2's nor RoBERTa's do"),
        (("<s>",), "roberta", "no <s> and </s>; expected the vocabulary of a RoBERTa"),
    ],
)
def test_refuses_other_vocabularies(tmp_path, special, family, message):
    with pytest.raises(UserError, match=message):
        load_tokenizer(byte_pairs(tmp_path, special, family))
