"""Byte pairs learned from texts, and the decoder config that follows a tokenizer."""

from __future__ import annotations

import pytest
from helpers import refused

from jaxdistill.data.toy import toy_reviews
from jaxdistill.models.tiny import tiny_decoder_config
from jaxdistill.models.tokenizer import load_tokenizer
from jaxdistill.models.train_tokenizer import train_tokenizer, with_tokenizer

TEXTS = [text for (text,) in toy_reviews(300, 10)[0].texts]


def test_any_text_comes_back_and_common_words_are_one_token(tmp_path):
    tokenizer = train_tokenizer(TEXTS, vocabulary=400, special=("<sep>",))
    assert tokenizer.get_vocab_size() == 400
    assert (tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<sep>")) == (0, 1)
    for text in (*TEXTS[:20], "Zürich, 東京 \n\t 🙂", "  two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert "Ġjust" in tokenizer.encode("it is just so").tokens
    assert tokenizer.encode("a <sep> b<|endoftext|>").ids.count(1) == 1
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(tmp_path)
    assert again.to_str() == train_tokenizer(TEXTS, vocabulary=400, special=("<sep>",)).to_str()
    assert again.encode(TEXTS[0]).ids == tokenizer.encode(TEXTS[0]).ids


def test_the_config_follows_the_tokenizer():
    tokenizer = train_tokenizer(TEXTS[:20], vocabulary=300, end="<end>", special=("<pad>", "<start>"))
    config = with_tokenizer(tiny_decoder_config(), tokenizer, end="<end>", start="<start>", padding="<pad>")
    assert (config.vocabulary, config.end_tokens, config.start_token, config.padding_token) == (300, (0,), 2, 1)
    alike = with_tokenizer(tiny_decoder_config(), tokenizer, end="<end>")
    assert (alike.start_token, alike.padding_token) == (0, 0)
    with refused("the tokenizer has no token '<|endoftext|>'"):
        with_tokenizer(tiny_decoder_config(), tokenizer)


@pytest.mark.needs_weights("gpt2-bpe")
def test_the_byte_pairs_of_gpt2_are_read_from_their_two_files(weights_dir):
    config = with_tokenizer(tiny_decoder_config(), load_tokenizer(weights_dir / "gpt2-bpe"))
    assert (config.vocabulary, config.end_tokens, config.start_token) == (50257, (50256,), 50256)


@pytest.mark.parametrize(
    "texts, options, message",
    [
        ([], {"vocabulary": 300}, "there are no texts to learn from"),
        ([""], {"vocabulary": 300}, "there are no texts to learn from"),
        (["a"], {"vocabulary": 257, "special": ("<sep>",)}, "vocabulary is 257: it takes at least 258"),
        (["a"], {"vocabulary": 300, "special": ("<|endoftext|>",)}, "must differ and not be empty"),
        (["a"], {"vocabulary": 300, "end": ""}, "must differ and not be empty"),
    ],
)
def test_mistakes_end_in_one_line(texts, options, message):
    with refused(message):
        train_tokenizer(texts, **options)
