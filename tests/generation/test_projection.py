"""Vectors read as likely texts, and the tokens that texts may be made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.generation import projection
from jaxdistill.generation.projection import nearest_tokens, project
from jaxdistill.generation.scorers import Model
from jaxdistill.generation.vocabulary import readable_tokens
from jaxdistill.models.tiny import tiny_tokenizer
from jaxdistill.models.tokenizer import load_tokenizer

ALLOWED = np.asarray([1, 2, 4, 5, 7, 8, 11, 13, 17, 19], np.int32)
PREFIX = [3, 0]


@pytest.fixture(scope="module")
def table(base):
    return base.params["embeddings"]["word"]["table"]


@pytest.fixture(scope="module")
def vectors(base):
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 16)), jnp.float32)


def cosines(vectors, table):
    unit = [np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True) for x in (vectors, table)]
    return unit[0] @ unit[1].T


def read(base, vectors, table, count):
    found = project(
        base.model, base.params, jnp.asarray(PREFIX), vectors, table, jnp.asarray(ALLOWED), count, jax.random.key(0)
    )
    return np.asarray(found)


def test_nearest_tokens_by_cosine_among_the_allowed(vectors, table, monkeypatch):
    found = np.asarray(nearest_tokens(vectors, table, jnp.asarray(ALLOWED), 4))
    order = ALLOWED[np.argsort(-cosines(vectors, table)[..., ALLOWED], axis=-1)[..., :4]]
    np.testing.assert_array_equal(found, order)
    monkeypatch.setattr(projection, "_AT_ONCE", 40)  # four vectors at once of fifteen
    np.testing.assert_array_equal(nearest_tokens(vectors, table, jnp.asarray(ALLOWED), 4), found)


@pytest.mark.parametrize("count", [1, 4, len(ALLOWED)])
def test_each_token_is_the_likeliest_of_the_nearest(base, vectors, table, count):
    found = read(base, vectors, table, count)
    nearest = np.asarray(nearest_tokens(vectors, table, jnp.asarray(ALLOWED), count))
    for row in range(3):
        text = list(PREFIX)
        for i in range(5):
            scores = base.read([text])[0][-1]  # without a cache
            text.append(int(nearest[row, i][np.argmax(scores[nearest[row, i]])]))
        assert found[row].tolist() == text[2:]
    assert set(found.ravel().tolist()) <= set(ALLOWED.tolist())
    if count == 1:
        np.testing.assert_array_equal(found, nearest[..., 0])


def test_texts_do_not_depend_on_one_another(base, vectors, table):
    """Many at once and each alone, with the cache and without."""
    found = read(base, vectors, table, 4)
    for row in range(3):
        np.testing.assert_array_equal(read(base, vectors[row : row + 1], table, 4)[0], found[row])
    uncached = project(
        Model(base.decoder, cached=False),
        base.params,
        jnp.asarray(PREFIX),
        vectors,
        table,
        jnp.asarray(ALLOWED),
        4,
        jax.random.key(0),
    )
    np.testing.assert_array_equal(uncached, found)


@pytest.mark.needs_weights("gpt2-bpe")
def test_published_filter_of_the_gpt2_vocabulary(weights_dir):
    gpt2_bpe = load_tokenizer(weights_dir / "gpt2-bpe")
    assert len(readable_tokens(gpt2_bpe, "alpha")) == 46_875
    kept = {gpt2_bpe.decode([i]) for i in readable_tokens(gpt2_bpe, "alpha").tolist()}
    assert {" movie", "great", " It"} <= kept and not {".", ",", "'s", " 2", "-", "10"} & kept
    marks = {gpt2_bpe.decode([i]) for i in readable_tokens(gpt2_bpe, "punct").tolist()} - kept
    assert {".", ",", "!", " ?", '"', "10"} <= marks and not {"'s", "-", "(", ":"} & marks
    assert len(readable_tokens(gpt2_bpe, "none")) == 50_257
    assert len(readable_tokens(gpt2_bpe, "none", {50_256})) == 50_256


def test_nothing_left_is_an_error():
    tokenizer = tiny_tokenizer()
    everything = set(range(tokenizer.get_vocab_size()))
    with pytest.raises(UserError, match="keeps none of the tokenizer's"):
        readable_tokens(tokenizer, "none", everything)
