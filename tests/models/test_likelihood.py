"""Token log-probabilities: hand-made values, padding, packing, chunks, derivatives, memory."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_families import decoder_config
from jaxdistill.models.encoder import unstack_layers
from jaxdistill.models.likelihood import sequence_log_likelihood, token_log_probabilities

CONFIG = decoder_config(
    {"model_type": "llama", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 16, "initializer_range": 0.3}
)
DECODER = Decoder(CONFIG, scan_layers=True)
PARAMS = init_decoder(DECODER, jax.random.key(0))
IDS = jnp.array([[9, 10, 11, 12, 13, 14], [4, 5, 6, 0, 0, 0]])
RIGHT = Batch(token_ids=IDS, mask=IDS > 0)
LEFT_IDS = jnp.array([[9, 10, 11, 12, 13, 14], [0, 0, 0, 4, 5, 6]])
LEFT = Batch(token_ids=LEFT_IDS, mask=LEFT_IDS > 0)
PACKED = Batch(
    token_ids=jnp.array([[4, 5, 6, 9, 10, 11, 12, 13, 14, 0]]), segments=jnp.array([[1, 1, 1, 2, 2, 2, 2, 2, 2, 0]])
)
score = jax.jit(token_log_probabilities, static_argnums=0, static_argnames="chunk")


def test_values_and_masks():
    # Padding on the right is in no token's sight.
    logits = jax.jit(DECODER.apply)({"params": PARAMS}, Batch(token_ids=IDS))
    by_hand = np.asarray(logits) - np.log(np.exp(np.asarray(logits, np.float64)).sum(axis=-1, keepdims=True))
    long, short = (by_hand[i, np.arange(n), np.array(IDS)[i, 1 : n + 1]] for i, n in ((0, 5), (1, 2)))
    right, left, packed = (score(DECODER, PARAMS, batch) for batch in (RIGHT, LEFT, PACKED))
    assert right.log_probabilities.dtype == jnp.float32
    np.testing.assert_allclose(right.log_probabilities, [[0, *long], [0, *short, 0, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(left.log_probabilities, [[0, *long], [0, 0, 0, 0, *short]], atol=1e-5)
    np.testing.assert_allclose(packed.log_probabilities, [[0, *short, 0, *long, 0]], atol=1e-5)
    np.testing.assert_array_equal(right.scored.sum(axis=1), [5, 2])
    np.testing.assert_array_equal(left.scored, [[0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(packed.scored, [[0, 1, 1, 0, 1, 1, 1, 1, 1, 0]])
    total = jax.jit(functools.partial(sequence_log_likelihood, DECODER))(PARAMS, LEFT)
    np.testing.assert_allclose(total, [long.sum(), short.sum()], atol=1e-5)


def test_a_single_position_has_nothing_to_score():
    scores = token_log_probabilities(DECODER, PARAMS, Batch(token_ids=IDS[:, :1]))
    assert not scores.scored.any() and scores.log_probabilities.tolist() == [[0.0], [0.0]]


def weighted(params, batch, chunk, decoder=DECODER):
    values = token_log_probabilities(decoder, params, batch, chunk=chunk).log_probabilities
    return jnp.sum(values * (1.0 + jnp.arange(values.shape[1], dtype=values.dtype))[None])


def test_chunks_change_neither_value_nor_gradient():
    value_and_gradient = jax.jit(jax.value_and_grad(weighted), static_argnums=2)
    whole, gradient = value_and_gradient(PARAMS, LEFT, 128)
    other, other_gradient = value_and_gradient(PARAMS, LEFT, 2)  # which does not divide the five targets
    np.testing.assert_allclose(other, whole, rtol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), other_gradient, gradient)


def test_derivatives_of_every_mode(x64):
    """One program, forward over reverse, gives value, gradient and the tangents of both, here through scanned and
    rematerialised layers and chunks: gradient and tangents agree with finite differences."""
    decoder = Decoder(CONFIG, jnp.dtype("float64"), scan_layers=True, remat_layers=True)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    direction = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape, p.dtype), params)
    value_and_gradient = jax.value_and_grad(functools.partial(weighted, batch=LEFT, chunk=2, decoder=decoder))
    everything = jax.jit(lambda p: jax.jvp(value_and_gradient, (p,), (direction,)))
    (_, gradient), (slope, tangent) = everything(params)
    step = 1e-5
    above, below = (everything(jax.tree.map(lambda p, d, s=s: p + s * d, params, direction))[0] for s in (step, -step))
    numeric_slope, numeric_tangent = jax.tree.map(lambda a, b: (a - b) / (2 * step), above, below)
    assert np.isfinite(slope) and abs(float(slope)) > 1e-2
    assert float(slope) == pytest.approx(float(tree.dot(gradient, direction)), rel=1e-10)
    assert float(slope) == pytest.approx(float(numeric_slope), rel=1e-5)
    scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(tangent))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5 * scale), tangent, numeric_tangent)


def test_forward_mode_alone(x64):
    """The likelihood along a direction of the parameters, without a backward pass: unrolled layers, one piece."""
    decoder = Decoder(CONFIG, jnp.dtype("float64"))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), unstack_layers(PARAMS))
    function = functools.partial(sequence_log_likelihood, decoder, batch=LEFT)
    forward = jax.jit(lambda p: jax.jvp(function, (p,), (params,)))
    slope = forward(params)[1]
    step = 1e-5
    above, below = (forward(jax.tree.map(lambda p, s=s: (1 + s) * p, params))[0] for s in (step, -step))
    assert slope.shape == (2,) and float(jnp.min(jnp.abs(slope))) > 1e-2
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-6)


def test_chunks_bound_the_memory_of_the_gradient():
    """With a vocabulary of 20,000 the logits of all 63 targets are 5 MB; the gradient of chunks of 9 never has them."""
    config = decoder_config(
        {"model_type": "gpt2", "vocab_size": 20000, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 64}
    )
    decoder = Decoder(config)
    params = jax.eval_shape(lambda key: init_decoder(decoder, key), jax.random.key(0))
    batch = Batch(token_ids=jax.ShapeDtypeStruct((1, 64), jnp.int32))
    sizes = {}
    for chunk in (9, 63):
        function = jax.grad(functools.partial(weighted, chunk=chunk, decoder=decoder))
        sizes[chunk] = jax.jit(function).lower(params, batch).compile().memory_analysis().temp_size_in_bytes
    assert sizes[63] > 63 * 20000 * 4
    assert sizes[9] < 0.6 * sizes[63]


@pytest.mark.parametrize(
    ("batch", "chunk", "message"),
    [(Batch(embeddings=jnp.zeros((1, 2, 16))), 1, "no token_ids to score"), (LEFT, 0, "chunk is 0; it must be at")],
)
def test_refuses(batch, chunk, message):
    with pytest.raises(UserError, match=message):
        token_log_probabilities(DECODER, PARAMS, batch, chunk=chunk)
