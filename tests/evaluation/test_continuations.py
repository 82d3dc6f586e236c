"""Continuations of prompts: what the model reads, what is new, and the entropy of its choices."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from helpers import refused
from tokenizers import Tokenizer, models, pre_tokenizers

from jaxdistill.core.types import Batch
from jaxdistill.evaluation.continuations import Continuations, draw_continuations, mean_token_entropy
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.contrast import Contrast, Pair
from jaxdistill.generation.scorers import Model

START = 256
SAMPLING = Sampling(max_new=6, top_p=0.9, stop=(START, 1))
LONG = "x" * 60 + "y" * 100


@pytest.fixture(scope="module")
def drawn(tiny_scorer):
    model = Model(tiny_scorer.decoder)
    draw = functools.partial(draw_continuations, model, tiny_scorer.params, tiny_scorer.tokenizer)
    return draw(["a film", LONG, ""], 5, SAMPLING, jax.random.key(3), start=START, micro_batch=4)


def test_what_is_read_and_what_is_new(drawn, tiny_scorer):
    decode, encode = tiny_scorer.tokenizer.decode, tiny_scorer.tokenizer.encode
    # 128 positions, and the last of six new tokens is never read.
    assert drawn.prompt_ids == [[START, *encode("a film").ids], [START, *encode("x" * 22 + "y" * 100).ids], [START]]
    assert drawn.shortened == 1
    for texts, ids, ended in zip(drawn.texts, drawn.token_ids, drawn.stopped, strict=True):
        assert len(texts) == len(ids) == len(ended) == 5
        assert all(len(row) == 6 or stopped for row, stopped in zip(ids, ended, strict=True))
        assert [text for text in texts if text.isascii()] == [decode(row) for row in ids if decode(row).isascii()]
    assert any(map(any, drawn.stopped)) and not all(map(all, drawn.stopped))


def test_the_space_before_a_word_is_not_lost(uniform_scorer):
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate("abcdefghij")}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # words are written with spaces between them
    arguments = (Model(uniform_scorer.decoder), uniform_scorer.params, tokenizer, ["b c"], 2, Sampling(2))
    found = draw_continuations(*arguments, jax.random.key(0))
    words = [[tokenizer.id_to_token(token) for token in ids] for ids in found.token_ids[0]]
    assert found.texts == [[f" {one} {two}" for one, two in words]] and found.prompt_ids == [[1, 2]]


def test_the_entropy_is_that_of_the_whole_texts(drawn, tiny_scorer):
    decoder, params = tiny_scorer.decoder, tiny_scorer.params
    token_ids, mask = np.zeros((15, 128), np.int32), np.zeros((15, 128), bool)
    ends = []
    for row in range(15):
        prompt, new = drawn.prompt_ids[row // 5], drawn.token_ids[row // 5][row % 5]
        text = (prompt + new)[:128]  # a last token is never read
        token_ids[row, : len(text)], mask[row, : len(text)] = text, True
        ends.append((len(prompt) - 1, len(prompt) - 1 + len(new) + drawn.stopped[row // 5][row % 5]))
    apply = jax.jit(lambda params, batch: jax.nn.log_softmax(decoder.apply({"params": params}, batch)))
    log_p = np.asarray(apply(params, Batch(token_ids=token_ids, mask=mask)), np.float64)
    entropies = -(np.exp(log_p) * log_p).sum(axis=-1)
    expected = np.concatenate([entropies[row, first:last] for row, (first, last) in enumerate(ends)]).mean()
    assert mean_token_entropy(Model(decoder), params, drawn, micro_batch=4) == pytest.approx(expected, rel=1e-5)
    assert 0.5 < expected < np.log(257) - 0.5


def test_the_entropy_of_choices_between_ten_is_that_of_ten(uniform_scorer):
    drawn = Continuations([["ab", ""]], [[3, 4]], [[[0, 1], []]], [[False, True]], 0)
    model, params = Model(uniform_scorer.decoder), uniform_scorer.params
    assert mean_token_entropy(model, params, drawn) == pytest.approx(np.log(10), rel=1e-6)
    # A contrast with itself leaves what is plausible, here everything.
    contrast = Contrast(model, model)
    assert mean_token_entropy(contrast, Pair(params, params), drawn) == pytest.approx(np.log(10), rel=1e-6)


def test_refuses(tiny_scorer):
    with refused("128 new tokens leave no room for a prompt in the model's 128 positions"):
        draw_continuations(
            Model(tiny_scorer.decoder),
            tiny_scorer.params,
            tiny_scorer.tokenizer,
            ["a"],
            1,
            Sampling(128),
            jax.random.key(0),
            start=START,
        )
