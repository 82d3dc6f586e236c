"""Identities of the encoder that need no reference: packing, scanning, inputs, attention rows, derivatives."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, init_params, stack_layers, unstack_layers

CONFIG = EncoderConfig(
    vocabulary=40, width=16, layers=2, heads=2, intermediate=24, positions=12, norm_epsilon=1e-6, initializer_range=0.3
)
ENCODER = Encoder(CONFIG, 3)

# Four examples of lengths 5, 3, 4 and (filler) 3, unpacked and packed in two rows of 8, in another order.
IDS = [[9, 10, 11, 12, 13], [4, 5, 6, 0, 0], [20, 21, 22, 23, 0], [4, 5, 6, 0, 0]]
UNPACKED = Batch(
    token_ids=jnp.array(IDS),
    mask=jnp.array(IDS) > 0,
    token_types=jnp.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0]]),
)
PACKED = Batch(
    token_ids=jnp.array([[4, 5, 6, 9, 10, 11, 12, 13], [20, 21, 22, 23, 0, 0, 0, 0]]),
    segments=jnp.array([[1, 1, 1, 2, 2, 2, 2, 2], [1, 1, 1, 1, 0, 0, 0, 0]]),
    positions=jnp.array([[0, 1, 2, 0, 1, 2, 3, 4], [0, 1, 2, 3, 0, 0, 0, 0]]),
    token_types=jnp.array([[0, 1, 1, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0]]),
    starts=jnp.array([3, 0, 8, 0]),
)


@pytest.fixture(scope="module")
def params():
    drawn = init_params(ENCODER, jax.random.key(0))
    flat, treedef = jax.tree.flatten(drawn)
    keys = jax.random.split(jax.random.key(1), len(flat))
    return treedef.unflatten([x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(flat, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=(0, 3))
def run(encoder, params, batch, attention="none"):
    return encoder.apply({"params": params}, batch, attention=attention)


def mean_loss(params, batch, encoder=ENCODER, attention="none"):
    """Smooth, and uneven over examples and classes."""
    out = encoder.apply({"params": params}, batch, attention=attention)
    weights = jnp.array([1.0, -2.0, 3.0, 0.0])[:, None]
    loss = jnp.sum(weights * out.logits * jnp.array([1.0, 0.5, -1.0])[None])
    if out.attentions is not None:
        seen = batch.mask[:, None, None, None, :]
        loss = loss - jnp.sum(jnp.where(seen, out.attentions, 0.0) * weights[:, :, None, None, None])
    return loss


def largest_difference(a, b) -> float:
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_layout(params):
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes["embeddings"]["word"] == {"table": (40, 16)}
    assert sorted(shapes["layers"]) == ["0", "1"]
    assert shapes["layers"]["1"]["expand"] == {"kernel": (16, 24), "bias": (24,)}
    assert shapes["classifier"] == {"kernel": (16, 3), "bias": (3,)}


def test_packed_equals_unpacked(params):
    packed, unpacked = run(ENCODER, params, PACKED), run(ENCODER, params, UNPACKED)
    np.testing.assert_allclose(packed.logits, unpacked.logits, atol=1e-5)
    np.testing.assert_allclose(packed.features, unpacked.features, atol=1e-5)
    gradients = [jax.jit(jax.grad(mean_loss))(params, batch) for batch in (PACKED, UNPACKED)]
    assert largest_difference(*gradients) < 1e-4


def test_packed_examples_do_not_see_each_other(params):
    other = PACKED.token_ids.at[0, 3:].set(30)
    changed = Batch(**{**vars(PACKED), "token_ids": other})
    before, after = run(ENCODER, params, PACKED).logits, run(ENCODER, params, changed).logits
    np.testing.assert_array_equal(before[1:], after[1:])
    assert float(jnp.max(jnp.abs(before[0] - after[0]))) > 1e-2


def test_embeddings_equal_token_ids(params):
    table = params["embeddings"]["word"]["table"]
    embedded = Batch(embeddings=table[UNPACKED.token_ids], mask=UNPACKED.mask, token_types=UNPACKED.token_types)
    a, b = run(ENCODER, params, UNPACKED, "all"), run(ENCODER, params, embedded, "all")
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-6)
    np.testing.assert_allclose(a.attentions, b.attentions, atol=1e-5)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_embed_averages_the_last_hidden_states_over_tokens(params, scan_layers):
    encoder = Encoder(CONFIG, 3, scan_layers=scan_layers)
    whole = stack_layers(params) if scan_layers else params
    embed = jax.jit(lambda batch: encoder.apply({"params": whole}, batch, method="embed"))
    unpacked = embed(UNPACKED)
    assert unpacked.shape == (4, 16)
    np.testing.assert_allclose(embed(PACKED), unpacked, atol=1e-5)
    # An example of one token: its mean is the state of [CLS], which the head turns into the features.
    single = Batch(token_ids=jnp.array([[9, 0, 0]]), mask=jnp.array([[True, False, False]]))
    pooled = jnp.tanh(embed(single) @ params["pooler"]["kernel"] + params["pooler"]["bias"][None])
    np.testing.assert_allclose(run(ENCODER, params, single).features, pooled, atol=1e-5)
    # Averages, so not the state of [CLS] alone.
    cls = jnp.tanh(unpacked @ params["pooler"]["kernel"] + params["pooler"]["bias"][None])
    assert float(jnp.max(jnp.abs(cls - run(ENCODER, params, UNPACKED).features))) > 1e-2


def test_attention_rows(params):
    everything, cls, none = (run(ENCODER, params, UNPACKED, rows) for rows in ("all", "cls", "none"))
    assert everything.attentions.shape == (4, 2, 2, 5, 5)
    assert cls.attentions.shape == (4, 2, 2, 1, 5)
    assert none.attentions is None
    np.testing.assert_allclose(cls.attentions, everything.attentions[:, :, :, :1], rtol=1e-6, atol=1e-5)
    for out in (cls, none):
        np.testing.assert_allclose(out.logits, everything.logits, atol=1e-5)
    probabilities = np.exp(everything.attentions)
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, atol=1e-5)
    masked = ~np.broadcast_to(UNPACKED.mask[:, None, None, None, :], probabilities.shape)
    assert probabilities[masked].max() == 0.0
    assert np.isfinite(everything.attentions).all()
    from_row = jax.jit(jax.grad(mean_loss), static_argnums=(2, 3))(params, UNPACKED, ENCODER, "cls")
    from_slice = jax.jit(jax.grad(mean_loss_of_slice))(params)
    assert largest_difference(from_row, from_slice) < 1e-4


def mean_loss_of_slice(params):
    """`mean_loss` with attention "cls", from the slice of all rows."""
    out = ENCODER.apply({"params": params}, UNPACKED, attention="all")
    weights = jnp.array([1.0, -2.0, 3.0, 0.0])[:, None]
    rows = jnp.where(UNPACKED.mask[:, None, None, None, :], out.attentions[:, :, :, :1], 0.0)
    logits = jnp.sum(weights * out.logits * jnp.array([1.0, 0.5, -1.0])[None])
    return logits - jnp.sum(rows * weights[:, :, None, None, None])


@pytest.mark.parametrize(("scan_layers", "remat_layers"), [(True, False), (True, True), (False, True)])
def test_scan_and_remat_give_the_same_numbers(params, scan_layers, remat_layers):
    encoder = Encoder(CONFIG, 3, scan_layers=scan_layers, remat_layers=remat_layers)
    other = stack_layers(params) if scan_layers else params
    a, b = run(ENCODER, params, UNPACKED, "cls"), run(encoder, other, UNPACKED, "cls")
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-5)
    np.testing.assert_allclose(a.attentions, b.attentions, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(run(encoder, other, PACKED).logits, a.logits, atol=1e-5)
    gradient = jax.jit(jax.grad(mean_loss), static_argnums=2)
    difference = largest_difference(
        gradient(params, UNPACKED, ENCODER), unstack_layers(gradient(other, UNPACKED, encoder))
    )
    assert difference < 1e-4


def test_stacking_round_trip(params):
    stacked = stack_layers(params)
    assert stacked["layers"]["expand"]["kernel"].shape == (2, 16, 24)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), unstack_layers(stacked), params))
    assert stack_layers(stacked) is stacked and unstack_layers(params) is params


def test_stacked_init_has_the_unrolled_shapes():
    scanned = jax.eval_shape(lambda k: init_params(Encoder(CONFIG, 3, scan_layers=True), k), jax.random.key(0))
    unrolled = jax.eval_shape(lambda k: stack_layers(init_params(ENCODER, k)), jax.random.key(0))
    assert jax.tree.map(jnp.shape, scanned) == jax.tree.map(jnp.shape, unrolled)


def test_bfloat16_is_close(params):
    out = run(Encoder(CONFIG, 3, dtype=jnp.dtype("bfloat16")), params, UNPACKED, "cls")
    expected = run(ENCODER, params, UNPACKED, "cls")
    assert out.logits.dtype == out.features.dtype == out.attentions.dtype == jnp.float32
    assert 0.0 < float(jnp.max(jnp.abs(out.logits - expected.logits))) < 0.15
    gradient = jax.jit(jax.grad(mean_loss), static_argnums=2)
    a = gradient(params, UNPACKED, Encoder(CONFIG, 3, dtype=jnp.dtype("bfloat16")))
    b = gradient(params, UNPACKED, ENCODER)
    a, b = (jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(g)]) for g in (a, b))
    assert float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)) > 0.99


@pytest.mark.parametrize(("batch_kind", "scan_layers"), [("padded", False), ("packed", True)])
def test_second_derivatives(x64, params, batch_kind, scan_layers):
    """jvp of grad agrees with grad of grad (unrolled; the batch holds a row of nothing but padding) and with finite
    differences (packed, scanned and rematerialised)."""
    encoder = Encoder(CONFIG, 3, dtype=jnp.dtype("float64"), scan_layers=scan_layers, remat_layers=scan_layers)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), stack_layers(params) if scan_layers else params)
    if batch_kind == "packed":
        batch, attention = PACKED, "none"
    else:
        batch = Batch(token_ids=UNPACKED.token_ids, mask=UNPACKED.mask.at[3].set(False))
        attention = "cls"
    keys = iter(jax.random.split(jax.random.key(2), 100))
    direction = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape, x.dtype), params)
    gradient = jax.grad(lambda p: mean_loss(p, batch, encoder, attention))
    forward_over_reverse = jax.jit(lambda p: jax.jvp(gradient, (p,), (direction,))[1])(params)
    scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(forward_over_reverse))
    assert np.isfinite(scale) and scale > 1.0
    if scan_layers:
        step = 1e-5
        above, below = (jax.tree.map(lambda p, d, s=s: p + s * d, params, direction) for s in (step, -step))
        jitted = jax.jit(gradient)
        numeric = jax.tree.map(lambda x, y: (x - y) / (2 * step), jitted(above), jitted(below))
        assert largest_difference(forward_over_reverse, numeric) < 1e-5 * scale
    else:
        reverse_over_reverse = jax.jit(jax.grad(lambda p: tree.dot(gradient(p), direction)))(params)
        assert largest_difference(forward_over_reverse, reverse_over_reverse) < 1e-10 * scale


def test_a_row_of_padding_is_finite(params):
    batch = Batch(token_ids=UNPACKED.token_ids, mask=UNPACKED.mask.at[3].set(False))
    out = run(ENCODER, params, batch, "all")
    assert np.isfinite(out.logits).all() and np.isfinite(out.attentions).all()
    np.testing.assert_allclose(np.exp(out.attentions[3]), 0.2, atol=1e-6)


def test_dropout_needs_a_key_and_averages_out(params):
    noisy = Encoder(CONFIG, 3, scan_layers=True)
    stacked = stack_layers(params)
    draw = jax.jit(lambda k: noisy.apply({"params": stacked}, UNPACKED, key=k).logits)
    first = draw(jax.random.key(0))
    np.testing.assert_array_equal(first, draw(jax.random.key(0)))
    assert float(jnp.max(jnp.abs(first - draw(jax.random.key(1))))) > 1e-2
    np.testing.assert_allclose(run(noisy, stacked, UNPACKED).logits, run(ENCODER, params, UNPACKED).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "attention", "message"),
    [
        (PACKED, "cls", "attention 'cls' of a packed batch is not defined"),
        (UNPACKED, "some", "attention 'some' is unknown; expected one of none, cls, all"),
        (Batch(token_ids=jnp.zeros((1, 13), jnp.int32)), "none", "rows of 13 positions are longer than the model's 12"),
        (Batch(), "none", "a batch needs token_ids or embeddings, and not both"),
        (Batch(token_ids=PACKED.token_ids, segments=PACKED.segments), "none", "needs starts and positions"),
    ],
)
def test_refuses(params, batch, attention, message):
    with pytest.raises(UserError) as caught:
        ENCODER.apply({"params": params}, batch, attention=attention)
    assert message in str(caught.value)
