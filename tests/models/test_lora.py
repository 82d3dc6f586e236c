"""Low-rank adapters: nothing changes at first, products by hand, gradients of A and B only."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused, same_arrays

from jaxdistill.core.types import Batch
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.encoder import stack_layers
from jaxdistill.models.lora import LAYER_MATRICES, add_adapters, merge_adapters
from jaxdistill.models.tiny import tiny_decoder_config

DECODER = Decoder(tiny_decoder_config(20))
MATRICES = ("query", "key", "value", "output", "expand", "contract")


@pytest.fixture(scope="module")
def params():
    return init_decoder(DECODER, jax.random.key(0))


def drawn(adapters, seed=1):
    """Adapters none of which is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), jnp.float32), adapters)


def test_fresh_adapters_change_nothing(params):
    adapters = add_adapters(params, LAYER_MATRICES, rank=3, key=jax.random.key(1))
    assert set(adapters) == {"layers"} and set(adapters["layers"]["1"]) == set(MATRICES)
    pair = adapters["layers"]["0"]["expand"]["kernel"]
    assert pair["a"].shape == (32, 3) and pair["b"].shape == (3, 64) and not pair["b"].any()
    np.testing.assert_allclose(pair["a"].std(), 32**-0.5, rtol=0.2)
    assert not np.array_equal(pair["a"], adapters["layers"]["1"]["expand"]["kernel"]["a"])
    same_arrays(merge_adapters(adapters, params, alpha=8.0), params)


def test_a_merged_matrix_gives_the_product_of_both_matrices(params):
    adapters = drawn(add_adapters(params, ("1/query/kernel$", "word/table"), rank=2, key=jax.random.key(1)))
    merged = merge_adapters(adapters, params, alpha=6.0)
    x = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    pair, own = adapters["layers"]["1"]["query"]["kernel"], params["layers"]["1"]["query"]["kernel"]
    by_hand = x @ own + 3.0 * (x @ pair["a"]) @ pair["b"]
    np.testing.assert_allclose(x @ merged["layers"]["1"]["query"]["kernel"], by_hand, atol=1e-5)
    pair, own = adapters["embeddings"]["word"]["table"], params["embeddings"]["word"]["table"]
    np.testing.assert_allclose(merged["embeddings"]["word"]["table"], own + 3.0 * pair["a"] @ pair["b"], atol=1e-5)
    assert merged["layers"]["0"]["query"]["kernel"] is params["layers"]["0"]["query"]["kernel"]


def test_stacked_layers_have_adapters_of_their_own(params):
    stacked = stack_layers(params)
    adapters = drawn(add_adapters(stacked, (r"query/kernel$",), rank=2, key=jax.random.key(1)))
    pair = adapters["layers"]["query"]["kernel"]
    assert pair["a"].shape == (2, 32, 2) and pair["b"].shape == (2, 2, 32)
    merged = merge_adapters(adapters, stacked, alpha=2.0)["layers"]["query"]["kernel"]
    for i in (0, 1):
        by_hand = params["layers"][str(i)]["query"]["kernel"] + pair["a"][i] @ pair["b"][i]
        np.testing.assert_allclose(merged[i], by_hand, atol=1e-5)


def test_gradients_reach_adapters_and_nothing_else(params):
    """dW of the merged matrix gives dA = dW B' s and dB = A' dW s; the base is a constant."""
    batch = Batch(token_ids=jnp.arange(12).reshape(2, 6))
    adapters = drawn(add_adapters(params, (r"0/value/kernel$",), rank=2, key=jax.random.key(1)))

    def loss(p):
        return jnp.sum(jax.nn.log_softmax(DECODER.apply({"params": p}, batch))[..., 3])

    merge = functools.partial(merge_adapters, alpha=4.0)

    @jax.jit
    def both(adapters):
        return jax.grad(lambda a: loss(merge(a, params)))(adapters), jax.grad(loss)(merge(adapters, params))

    gradient, of_merged = both(adapters)
    pair, own = adapters["layers"]["0"]["value"]["kernel"], gradient["layers"]["0"]["value"]["kernel"]
    whole = of_merged["layers"]["0"]["value"]["kernel"]
    assert jax.tree.structure(gradient) == jax.tree.structure(adapters) and np.abs(whole).max() > 1e-3
    np.testing.assert_allclose(own["a"], 2.0 * whole @ pair["b"].T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own["b"], 2.0 * pair["a"].T @ whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "patterns, rank, message",
    [
        (LAYER_MATRICES, 0, "lora: rank is 0; it must be at least 1"),
        (("query/kernel$",), 33, "lora: rank 33 is above that of layers/0/query/kernel"),
        (("attention$",), 2, "lora: no parameter matches 'attention$'"),
        (("query",), 2, "layers/0/query/bias of shape (32,) is no matrix"),
        ((), 2, "lora: no matrices are chosen"),
    ],
)
def test_mistakes_end_in_one_line(params, patterns, rank, message):
    with refused(message):
        add_adapters(params, patterns, rank=rank, key=jax.random.key(0))
