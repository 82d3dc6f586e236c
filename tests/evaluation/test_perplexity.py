"""Likelihoods and perplexities: hand values, boundaries of tokens, what is dropped, what is kept on disk."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers import refused
from tokenizers import Tokenizer, models, pre_tokenizers

from jaxdistill.core.types import Batch
from jaxdistill.evaluation import likelihoods as module
from jaxdistill.evaluation.likelihoods import LanguageModel, likelihoods
from jaxdistill.evaluation.perplexity import (
    Perplexities,
    continuation_perplexities,
    encode_behind,
    text_perplexities,
)

TEXTS = ["the film", "a dull plot, and long enough for another length", "", "x", "the film"]


@pytest.fixture(scope="module")
def expected(tiny_scorer):
    """Log-probability of each token of a row, from the logits themselves; rows of up to 64 tokens, compiled once."""
    decoder = tiny_scorer.decoder

    @jax.jit
    def read(params, ids):
        return jax.nn.log_softmax(decoder.apply({"params": params}, Batch(token_ids=ids)))

    def of(row):
        ids = np.zeros((1, 64), np.int32)
        ids[0, : len(row)] = row
        table = np.asarray(read(tiny_scorer.params, ids))[0].astype(np.float64)
        return np.concatenate([[0.0], table[np.arange(len(row) - 1), row[1:]]])

    return of


def test_rows_of_many_lengths(tiny_scorer, expected):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 257, length).tolist() for length in (1, 3, 40, 16, 17)]
    first = [0, 1, 5, 20, 3]
    found = likelihoods(tiny_scorer, rows, first)
    want = [-expected(row)[max(1, start) :].sum() for row, start in zip(rows, first, strict=True)]
    np.testing.assert_allclose(found.negative, want, atol=1e-4)
    assert found.tokens.tolist() == [0, 2, 35, 0, 14]
    np.testing.assert_array_equal(likelihoods(tiny_scorer, rows).tokens, [0, 2, 39, 15, 16])


def test_few_shapes():
    lengths = np.asarray([3, 90, 16, 17, 100, 100, 5])
    batches = list(module._batches(lengths, 100))
    assert [shape for _, shape in batches] == [(4, 100), (1, 32), (4, 16)]
    assert np.concatenate([members for members, _ in batches]).tolist() == [1, 4, 5, 3, 0, 2, 6]
    many = [shape for _, shape in module._batches(np.full(1000, 20), 100)]
    assert set(many) == {(128, 32)} and len(many) == 8


def test_uniform_scorer_has_the_perplexity_of_its_vocabulary(uniform_scorer):
    found = text_perplexities(uniform_scorer, ["abc", "iiiiiiii"])
    np.testing.assert_allclose(found.values, 10.0, rtol=1e-5)
    assert found.metric == "perplexity/uniform"
    assert found.tokens.tolist() == [3, 8]  # behind the start token
    given = continuation_perplexities(uniform_scorer, ["abc", "d"], ["de", "efg"])
    np.testing.assert_allclose(given.values, 10.0, rtol=1e-5)
    assert given.tokens.tolist() == [2, 3]


def test_texts_start_with_the_start_token_and_are_cut(tiny_scorer, expected):
    found = text_perplexities(tiny_scorer, TEXTS, max_length=40)
    ids = [[256, *tiny_scorer.tokenizer.encode(text).ids] for text in TEXTS]
    want = [-expected(row[:40]).sum() for row in ids]
    np.testing.assert_allclose(found.negative, want, atol=1e-4)
    assert found.tokens.tolist() == [8, 39, 0, 1, 8] and found.truncated == 1
    assert found.values[0] == found.values[4] and np.isnan(found.values[2])


def test_what_is_dropped():
    negative = np.log([10.0, 9999.0, 10000.0, 1.0, 20.0]) * [2, 1, 1, 0, 3]
    negative[0] = np.log(10.0) * 2
    found = Perplexities("perplexity/x", np.append(negative, [np.nan, 1e6]), np.asarray([2, 1, 1, 0, 3, 4, 1]))
    summary = found.summary()
    assert summary["mean"] == pytest.approx((10 + 9999 + 20) / 3)
    assert (summary["dropped"], summary["texts"], summary["tokens"]) == (4, 7, 12)
    assert summary["corpus"] == pytest.approx(np.exp(np.log(10 * 10 * 9999 * 20**3) / 6))
    nothing = Perplexities("perplexity/x", np.asarray([np.nan]), np.asarray([3])).summary()
    assert nothing["mean"] is None and nothing["corpus"] is None and nothing["dropped"] == 1


def merging_tokenizer():
    """Letters a to e, and "bc" where both stand together."""
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "bc": 5}, merges=[("b", "c")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    return tokenizer


def test_a_token_across_the_boundary_is_new():
    tokenizer = merging_tokenizer()
    rows, firsts = encode_behind(tokenizer, ["abcd", "abcd", "abcd", "ab", ""], [2, 1, 3, 2, 0])
    assert rows == [[0, 5, 3], [0, 5, 3], [0, 5, 3], [0, 1], []]
    assert firsts.tolist() == [1, 1, 2, 2, 0]


def test_joint_and_apart(tiny_scorer, expected):
    model = LanguageModel("merging", tiny_scorer.decoder, tiny_scorer.params, merging_tokenizer())
    prompts, continuations = ["ab", "ad", "", "ab"], ["cde", "e", "", ""]
    # "ab" + "cde" is a bc d e: one token of the prompt stays as it was.
    joint = continuation_perplexities(model, prompts, continuations)
    assert joint.tokens.tolist() == [3, 1, 0, 0]
    np.testing.assert_allclose(joint.negative[0], -expected([0, 5, 3, 4])[1:].sum(), atol=1e-4)
    apart = continuation_perplexities(model, prompts, continuations, tokenize="apart")
    assert apart.tokens.tolist() == [2, 1, 0, 0]
    difference = -expected([0, 5, 3, 4]).sum() + expected([0, 1]).sum()
    np.testing.assert_allclose(apart.negative[:2], [difference, joint.negative[1]], atol=1e-4)
    np.testing.assert_allclose(apart.values[0], np.exp(difference / 2), rtol=1e-4)
    assert np.isnan(joint.values[2:]).all() and np.isnan(apart.values[2:]).all()


def test_length_of_the_last_scored_prompt(uniform_scorer):
    prompts, continuations = ["abc", "d", "abc", "abc"], ["aaa", "bbbb", "cc", "ddd"]
    own = continuation_perplexities(uniform_scorer, prompts, continuations)
    assert own.tokens.tolist() == [3, 4, 2, 3]
    last = continuation_perplexities(uniform_scorer, prompts, continuations, prompt_length="last_scored")
    assert last.tokens.tolist() == [3, 4, 4, 5]  # "d" was the last new prompt
    np.testing.assert_array_equal(last.negative, own.negative)
    grouped = continuation_perplexities(uniform_scorer, ["abc", "abc", "d"], ["a", "b", "c"], prompt_length="row")
    again = continuation_perplexities(uniform_scorer, ["abc", "abc", "d"], ["a", "b", "c"], prompt_length="last_scored")
    np.testing.assert_array_equal(grouped.values, again.values)


def test_scores_are_kept_by_text_and_scorer(tiny_scorer, tmp_path, monkeypatch):
    first = text_perplexities(tiny_scorer, TEXTS, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert len(kept) == 4  # equal texts once
    with monkeypatch.context() as patched:
        patched.setattr(module, "_score", None)  # nothing is left to score
        again = text_perplexities(tiny_scorer, TEXTS[::-1], cache=tmp_path)
    np.testing.assert_array_equal(again.negative, first.negative[::-1])
    other = dataclasses.replace(
        tiny_scorer, params=jax.tree.map(lambda leaf: leaf + 0.125, tiny_scorer.params), name=tiny_scorer.name
    )
    assert not np.allclose(text_perplexities(other, TEXTS, cache=tmp_path).negative, first.negative)
    assert len(list(tmp_path.iterdir())) == 2
    file.write_text("[1]")
    with refused("does not hold scores"):
        text_perplexities(tiny_scorer, TEXTS, cache=tmp_path)


def test_refuses(tiny_scorer, uniform_scorer):
    with refused("text 1 has 129 tokens; accepted are 1 to 128"):
        likelihoods(tiny_scorer, [[1], [1] * 129])
    with refused("text 0 has 0 tokens"):
        likelihoods(tiny_scorer, [[]])
    with refused("2 prompts for 1 continuations"):
        continuation_perplexities(tiny_scorer, ["a", "b"], ["c"])
    with refused("tokenize is 'whole': accepted are joint and apart"):
        continuation_perplexities(tiny_scorer, ["a"], ["c"], tokenize="whole")
    with refused("prompt_length is 'all': accepted are row and last_scored"):
        continuation_perplexities(tiny_scorer, ["a"], ["c"], prompt_length="all")
    with refused("the tokenizer has 257 tokens, the model only 10"):
        dataclasses.replace(uniform_scorer, tokenizer=tiny_scorer.tokenizer)


@pytest.mark.needs_weights("tinystories-656k")
def test_a_real_model_finds_a_story_more_likely_than_its_words_backwards(weights_dir):
    model = module.load_language_model(weights_dir / "tinystories-656k")
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    found = text_perplexities(model, [story, " ".join(story.split()[::-1])])
    assert found.metric == "perplexity/tinystories-656k"
    assert found.values[0] < 100 and found.values[1] > 10 * found.values[0]
