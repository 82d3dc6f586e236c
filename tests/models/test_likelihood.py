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
from jaxdistill.models.encoder import stack_layers
from jaxdistill.models.likelihood import sequence_log_likelihood, token_log_probabilities

CONFIG = decoder_config(
    {"model_type": "llama", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 16, "initializer_range": 0.3}
)
DECODER = Decoder(CONFIG)
PARAMS = init_decoder(DECODER, jax.random.key(0))
IDS = jnp.array([[9, 10, 11, 12, 13, 14], [4, 5, 6, 0, 0, 0]])
RIGHT = Batch(token_ids=IDS, mask=IDS > 0)
LEFT_IDS = jnp.array([[9, 10, 11, 12, 13, 14], [0, 0, 0, 4, 5, 6]])
LEFT = Batch(token_ids=LEFT_IDS, mask=LEFT_IDS > 0)
PACKED = Batch(
    token_ids=jnp.array([[4, 5, 6, 9, 10, 11, 12, 13, 14, 0]]), segments=jnp.array([[1, 1, 1, 2, 2, 2, 2, 2, 2, 0]])
)
score = jax.jit(token_log_probabilities, static_argnums=0, static_argnames="chunk")


def by_hand(ids) -> np.ndarray:
    """log p of each token of one text but the first."""
    logits = DECODER.apply({"params": PARAMS}, Batch(token_ids=jnp.array([ids])))[0]
    return np.asarray(jax.nn.log_softmax(logits)[np.arange(len(ids) - 1), np.array(ids[1:])])


def test_values_and_masks():
    long, short = by_hand([9, 10, 11, 12, 13, 14]), by_hand([4, 5, 6])
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
    for chunk in (2, 3):  # five targets: neither divides them
        other, other_gradient = value_and_gradient(PARAMS, LEFT, chunk)
        np.testing.assert_allclose(other, whole, rtol=1e-6)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), other_gradient, gradient)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_derivatives_of_every_mode_agree(x64, scan_layers):
    """Gradient and forward mode against finite differences; then, scanned and rematerialised with chunks, forward over
    reverse against finite differences of the gradient."""
    decoder = Decoder(CONFIG, jnp.dtype("float64"), scan_layers, scan_layers)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), stack_layers(PARAMS) if scan_layers else PARAMS)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    direction = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape, p.dtype), params)
    function = functools.partial(weighted, batch=LEFT, chunk=2 if scan_layers else 128, decoder=decoder)
    gradient = jax.jit(jax.grad(function))
    step = 1e-5
    above, below = (jax.tree.map(lambda p, d, s=s: p + s * d, params, direction) for s in (step, -step))
    if scan_layers:
        tangent = jax.jit(lambda p: jax.jvp(gradient, (p,), (direction,))[1])(params)
        numeric = jax.tree.map(lambda a, b: (a - b) / (2 * step), gradient(above), gradient(below))
        scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(tangent))
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5 * scale), tangent, numeric)
    else:
        value = jax.jit(function)
        forward = float(jax.jit(lambda p: jax.jvp(function, (p,), (direction,))[1])(params))
        assert np.isfinite(forward) and abs(forward) > 1e-2
        assert forward == pytest.approx(float(tree.dot(gradient(params), direction)), rel=1e-10)
        assert forward == pytest.approx(float(value(above) - value(below)) / (2 * step), rel=1e-5)


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
