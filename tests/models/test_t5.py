"""T5 by itself: its cache, padding, embeddings in place of tokens, what is refused."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.models.t5 import T5, init_t5
from jaxdistill.models.t5_config import T5Config, huggingface_config, t5_config

CONFIG = T5Config(
    vocabulary=30,
    width=16,
    heads=2,
    head_width=6,
    intermediate=24,
    encoder_layers=1,
    decoder_layers=2,
    buckets=8,
    farthest=12,
    initializer_factor=2.0,
)
MODEL = T5(CONFIG)
MASK = jnp.arange(6)[None] < jnp.asarray([6, 3])[:, None]
IDS = jax.random.randint(jax.random.key(1), (2, 6), 2, 30)
TARGETS = jax.random.randint(jax.random.key(2), (2, 5), 2, 30).at[:, 0].set(0)


@pytest.fixture(scope="module")
def params():
    return init_t5(MODEL, jax.random.key(0))


@functools.partial(jax.jit, static_argnames="method")
def apply(params, *given, method):
    return MODEL.apply({"params": params}, *given, method=method)


@functools.partial(jax.jit, static_argnums=3)
def start(params, memory, mask, length):
    return MODEL.apply({"params": params}, memory, mask, length, method="start")


def test_steps_with_a_cache_give_the_logits_of_the_whole_text(params):
    memory = apply(params, Batch(token_ids=IDS, mask=MASK), method="encode")
    whole = apply(params, TARGETS, memory, MASK, method="decode")
    cache = start(params, memory, MASK, 5)
    for i in range(5):
        logits, cache = apply(params, TARGETS[:, i], cache, method="step")
        np.testing.assert_allclose(logits, whole[:, i], atol=1e-5)
    assert int(cache.slot) == 5


def test_padding_has_no_influence(params):
    def logits(ids):
        return apply(
            params, TARGETS, apply(params, Batch(token_ids=ids, mask=MASK), method="encode"), MASK, method="decode"
        )

    np.testing.assert_array_equal(logits(IDS), logits(jnp.where(MASK, IDS, 7)))
    short = apply(params, Batch(token_ids=IDS[1:, :3]), method="encode")
    np.testing.assert_allclose(
        apply(params, TARGETS[1:], short, jnp.ones((1, 3), bool), method="decode"), logits(IDS)[1:], atol=1e-5
    )


def test_a_token_sees_none_after_it(params):
    memory = apply(params, Batch(token_ids=IDS, mask=MASK), method="encode")
    whole = apply(params, TARGETS, memory, MASK, method="decode")
    changed = apply(params, TARGETS.at[:, 3].set(9), memory, MASK, method="decode")
    np.testing.assert_array_equal(whole[:, :3], changed[:, :3])
    assert not np.allclose(whole[:, 3:], changed[:, 3:])


def test_embeddings_stand_for_tokens(params):
    vectors = params["shared"]["table"][IDS]
    np.testing.assert_array_equal(
        apply(params, Batch(embeddings=vectors, mask=MASK), method="encode"),
        apply(params, Batch(token_ids=IDS, mask=MASK), method="encode"),
    )
    with pytest.raises(UserError, match="token_ids or embeddings, and not both"):
        MODEL.apply({"params": params}, Batch(), method="encode")


def test_dropout_needs_a_key(params):
    def encode(key):
        return MODEL.apply({"params": params}, Batch(token_ids=IDS), key=key, method="encode")

    one, other = encode(jax.random.key(0)), encode(jax.random.key(1))
    assert not np.allclose(one, other) and not np.allclose(one, encode(None))
    np.testing.assert_array_equal(one, encode(jax.random.key(0)))


def test_config_files_there_and_back():
    assert t5_config(huggingface_config(CONFIG)) == CONFIG
    encoder = dataclasses.replace(CONFIG, decoder_layers=0)
    assert t5_config(huggingface_config(encoder)) == encoder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mt5"}, "model_type 'mt5' is not supported; supported is t5"),
        ({"d_model": None}, "no entry d_model; a t5 needs it"),
        ({"feed_forward_proj": "swish"}, "feed_forward 'swish' is unknown"),
        ({"relative_attention_num_buckets": 6}, "expected a multiple of 4"),
        ({"eos_token_id": 99}, "end is 99; there are 30 tokens"),
        ({"num_heads": 0}, "heads is 0"),
        ({"dropout_rate": 1.0}, "must lie in"),
    ],
)
def test_config_files_that_cannot_be(change, message):
    with pytest.raises(UserError, match=message):
        t5_config(huggingface_config(CONFIG) | change)
