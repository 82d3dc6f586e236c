"""Labelled texts as token sequences: round trip, spaces, new tokens, what is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from helpers import refused

from jaxdistill.methods.dilm_texts import new_generator, text_form
from jaxdistill.models.decoder_folder import load_decoder
from jaxdistill.models.tiny import tiny_decoder_tokenizer

LENGTH = 40


@pytest.fixture(scope="module")
def loaded():
    return load_decoder("tiny")


@pytest.fixture(scope="module")
def byte_tokenizer():
    tokenizer = tiny_decoder_tokenizer()
    assert tokenizer.token_to_id("<|endoftext|>") == 256
    return tokenizer


@pytest.fixture(scope="module")
def generator(loaded, byte_tokenizer):
    return new_generator(
        loaded.decoder, loaded.params, byte_tokenizer, classes=3, fields=2, max_length=LENGTH, key=jax.random.key(0)
    )


def test_new_tokens(loaded, generator, byte_tokenizer):
    assert generator.decoder.config.vocabulary == 257 + 5 and byte_tokenizer.get_vocab_size() == 257
    form = generator.form
    assert (form.padding, form.separator, form.starts, form.end) == (257, 258, (259, 260, 261), 256)
    old, new = (p["embeddings"]["word"]["table"] for p in (loaded.params, generator.params))
    np.testing.assert_array_equal(new[:257], old)
    for start in form.starts:
        np.testing.assert_array_equal(new[start], old[256])
    assert not np.array_equal(new[257], new[258]) and 0.05 < float(np.std(new[257:259])) < 0.5
    assert generator.decoder.config.padding_token == 257
    again = new_generator(
        generator.decoder,
        generator.params,
        form.tokenizer,
        classes=3,
        fields=2,
        max_length=LENGTH,
        key=jax.random.key(1),
    )
    assert again.params is generator.params


def test_pairs_round_trip(generator):
    form = generator.form
    texts = [("a dog ", "an animal"), ("é!", "x  y")]
    encoded = form.encode(texts, np.array([2, 0]))
    expected = "<bos_2> a dog <sep> an animal <|endoftext|>"
    assert encoded[0] == form.tokenizer.encode(expected).ids and encoded[0][-2:] == [
        form.tokenizer.token_to_id("Ġ"),
        256,
    ]
    assert [form.decode(tokens[1:]) for tokens in encoded] == [("a dog", "an animal"), ("é!", "x  y")]
    batch = form.batch(encoded, 32)
    assert batch.token_ids.shape == (2, 32) and batch.token_ids[1, -1] == form.padding
    np.testing.assert_array_equal(batch.mask.sum(axis=1), [len(tokens) for tokens in encoded])
    (cut,) = form.encode([("z" * 50, "b")], np.array([1]))
    assert len(cut) == LENGTH and cut[0] == form.starts[1] and cut[-1] == form.end


def test_what_a_model_may_write(generator):
    form = generator.form
    a, b = form.tokenizer.encode(" a ").ids, form.tokenizer.encode("b").ids
    assert form.decode(a) is None
    assert form.decode([*a, form.separator]) == ("a", "")
    assert form.decode([*a, form.separator, *b, form.separator, *a, form.end, form.padding]) == ("a", "b")


def test_single_texts(loaded, byte_tokenizer):
    made = new_generator(
        loaded.decoder, loaded.params, byte_tokenizer, classes=2, fields=1, max_length=LENGTH, key=jax.random.key(0)
    )
    (encoded,) = made.form.encode([(" fine ",)], np.array([1]))
    assert made.form.tokenizer.decode(encoded, skip_special_tokens=False) == "<bos_1> fine <|endoftext|>"
    assert made.form.decode(encoded[1:-1]) == ("fine",)


def test_refusals(loaded, generator, byte_tokenizer):
    with refused("text 'a <sep> b' holds <sep>, which separates texts here"):
        generator.form.encode([("a <sep> b", "c")], np.array([0]))
    with refused("no <pad>, <sep>, <bos_0>, <bos_1>; expected one trained for 2 classes"):
        text_form(byte_tokenizer, loaded.config, classes=2, fields=1, max_length=LENGTH)
    with refused("generated texts of 500 tokens: accepted are 4 to the 128 of the model"):
        text_form(generator.form.tokenizer, generator.decoder.config, classes=2, fields=1, max_length=500)
    with refused("a vocabulary of 262 tokens and its tokenizer 257: expected the same"):
        new_generator(
            generator.decoder,
            generator.params,
            byte_tokenizer,
            classes=2,
            fields=1,
            max_length=LENGTH,
            key=jax.random.key(0),
        )
