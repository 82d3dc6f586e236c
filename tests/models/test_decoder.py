"""Identities of the decoder that need no reference: cache, packing, padding, scanning, causality, precision."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_families import decoder_config
from jaxdistill.models.decoding import peek, prefill, step
from jaxdistill.models.encoder import stack_layers, unstack_layers
from jaxdistill.models.kv_cache import Cache, empty_cache, repeat_rows

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 16, "initializer_range": 0.3}
# One for each way to know positions; two share keys among query heads.
CONFIGS = {
    "gpt2": {"model_type": "gpt2", "vocab_size": 30, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    | {"initializer_range": 0.3},
    "llama": SIZES | {"model_type": "llama", "intermediate_size": 24, "num_key_value_heads": 2},
    "falcon": SIZES | {"model_type": "falcon", "alibi": True, "bias": True},
}
CONFIGS = {family: decoder_config(values) for family, values in CONFIGS.items()}
# Scanned, for shorter compilations; one test compares with layers in a loop.
DECODERS = {family: Decoder(config, scan_layers=True) for family, config in CONFIGS.items()}
LLAMA = DECODERS["llama"]

# Three texts of 6, 3 and 1 tokens: padded on either side, and packed with one more.
IDS = jnp.array([[9, 10, 11, 12, 13, 14], [4, 5, 6, 0, 0, 0], [20, 0, 0, 0, 0, 0]])
MASK = IDS > 0
LEFT_IDS = jnp.array([[9, 10, 11, 12, 13, 14], [0, 0, 0, 4, 5, 6], [0, 0, 0, 0, 0, 20]])
PACKED = Batch(
    token_ids=jnp.array([[4, 5, 6, 9, 10, 11, 12, 13, 14], [20, 7, 8, 0, 0, 0, 0, 0, 0]]),
    segments=jnp.array([[1, 1, 1, 2, 2, 2, 2, 2, 2], [1, 2, 2, 0, 0, 0, 0, 0, 0]]),
)


@functools.cache
def params_of(family):
    """Parameters none of which is 0 or 1, without compiling `init`."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + 0.3 * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(DECODERS[family]))


def shapes_of(decoder):
    return jax.eval_shape(lambda key: init_decoder(decoder, key), jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def run(decoder, params, batch, key=None):
    return decoder.apply({"params": params}, batch, key=key)


fill = jax.jit(prefill, static_argnums=0, static_argnames="length")
step = jax.jit(step, static_argnums=0)
peek = jax.jit(peek, static_argnums=0)


def largest_difference(a, b) -> float:
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_layout():
    shapes = jax.tree.map(jnp.shape, shapes_of(Decoder(CONFIGS["llama"])))
    assert shapes["embeddings"] == {"word": {"table": (30, 16)}}
    assert sorted(shapes["layers"]) == ["0", "1"]
    assert shapes["layers"]["1"]["key"] == {"kernel": (16, 8)}
    assert shapes["layers"]["1"]["norm"] == {"scale": (16,)}
    assert shapes["head"] == {"kernel": (16, 30), "norm": {"scale": (16,)}}
    shapes = jax.tree.map(jnp.shape, shapes_of(Decoder(CONFIGS["gpt2"])))
    assert shapes["embeddings"] == {"word": {"table": (30, 16)}, "position": {"table": (16, 16)}}
    assert shapes["layers"]["0"]["expand"] == {"kernel": (16, 64), "bias": (64,)}
    assert shapes["head"] == {"norm": {"scale": (16,), "bias": (16,)}}


@pytest.mark.parametrize("family", CONFIGS)
def test_padding_and_packing_change_nothing(family):
    decoder, params = DECODERS[family], params_of(family)
    right = run(decoder, params, Batch(token_ids=IDS, mask=MASK))
    left = run(decoder, params, Batch(token_ids=LEFT_IDS, mask=LEFT_IDS > 0))
    packed = run(decoder, params, PACKED)
    np.testing.assert_allclose(left[1, 3:], right[1, :3], atol=1e-5)
    np.testing.assert_allclose(left[2, 5], right[2, 0], atol=1e-5)
    np.testing.assert_allclose(packed[0, :3], right[1, :3], atol=1e-5)
    np.testing.assert_allclose(packed[0, 3:], right[0], atol=1e-5)
    np.testing.assert_allclose(packed[1, 0], right[2, 0], atol=1e-5)
    assert np.isfinite(packed).all() and np.isfinite(left).all()
    # Positions are the ones that would be counted anyhow.
    positions = jnp.array([[0, 1, 2, 0, 1, 2, 3, 4, 5], [0, 0, 1, 0, 0, 0, 0, 0, 0]])
    given = run(decoder, params, Batch(token_ids=PACKED.token_ids, segments=PACKED.segments, positions=positions))
    real = PACKED.segments > 0
    np.testing.assert_allclose(given[real], packed[real], atol=1e-6)


@pytest.mark.parametrize("family", CONFIGS)
def test_no_token_sees_the_future_nor_another_text(family):
    decoder, params = DECODERS[family], params_of(family)
    changed = Batch(token_ids=PACKED.token_ids.at[0, 6].set(29), segments=PACKED.segments)
    before, after = run(decoder, params, PACKED), run(decoder, params, changed)
    difference = np.abs(before - after).max(axis=-1)
    assert difference[0, :6].max() == 0.0 and difference[1].max() == 0.0
    assert difference[0, 6:].min() > 1e-3


@pytest.mark.parametrize("family", CONFIGS)
def test_cached_equals_uncached(family):
    """A ragged prompt of four positions, then two steps, of which the shorter rows take fewer."""
    decoder, params = DECODERS[family], params_of(family)
    whole = run(decoder, params, Batch(token_ids=IDS, mask=MASK))
    logits, cache = fill(decoder, params, IDS[:, :4], MASK[:, :4], length=7)
    assert cache.keys.shape == (2, 3, CONFIGS[family].kv_heads, 7, CONFIGS[family].head_width)
    np.testing.assert_array_equal(cache.next_position, [4, 3, 1])
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, jnp.stack([whole[0, 3], whole[1, 2], whole[2, 0]]), atol=1e-5)
    for i in (4, 5):
        logits, cache = step(decoder, params, IDS[:, i], cache, MASK[:, i])
        np.testing.assert_allclose(logits[0], whole[0, i], atol=1e-5)
    np.testing.assert_array_equal(cache.next_position, [6, 3, 1])
    # The shorter rows go on where their text has ended, beyond slots that stay empty.
    logits, cache = step(decoder, params, jnp.array([15, 16, 17]), cache)
    longer = jnp.array([[9, 10, 11, 12, 13, 14, 15], [4, 5, 6, 16, 0, 0, 0], [20, 17, 0, 0, 0, 0, 0]])
    whole = run(decoder, params, Batch(token_ids=longer, mask=longer > 0))
    np.testing.assert_allclose(logits, jnp.stack([whole[0, 6], whole[1, 3], whole[2, 1]]), atol=1e-5)
    # All seven slots are taken now.
    assert np.isnan(step(decoder, params, jnp.array([1, 1, 1]), cache)[0]).all()


def test_ragged_prompts_equal_prompts_one_by_one():
    params = params_of("llama")
    logits, cache = fill(LLAMA, params, LEFT_IDS, LEFT_IDS > 0, length=7)
    logits, _ = step(LLAMA, params, jnp.array([1, 2, 3]), cache)
    # Row 1 alone is a prompt of three tokens without padding.
    alone, cache = fill(LLAMA, params, IDS[1:2, :3], None, length=8)
    alone, _ = step(LLAMA, params, jnp.array([2]), cache)
    np.testing.assert_allclose(alone[0], logits[1], atol=1e-5)


def test_steps_scan_and_continuations_share_a_prompt():
    params = params_of("llama")
    logits, cache = fill(LLAMA, params, IDS[:1, :4], None, length=8)
    tokens = jnp.array([[1, 2, 3], [4, 5, 6]])

    @jax.jit
    def continue_twice(cache):
        def body(cache, tokens):
            logits, cache = step(LLAMA, params, tokens, cache)
            return cache, logits

        return jax.lax.scan(body, repeat_rows(cache, 2), tokens.T)

    cache, logits = continue_twice(cache)
    assert int(cache.slot) == 7
    texts = jnp.concatenate([jnp.tile(IDS[:1, :4], (2, 1)), tokens], axis=1)
    np.testing.assert_allclose(jnp.swapaxes(logits, 0, 1), run(LLAMA, params, Batch(token_ids=texts))[:, 4:], atol=1e-5)


def test_several_tokens_follow_on_a_cache():
    params = params_of("falcon")
    decoder = DECODERS["falcon"]
    _, cache = fill(decoder, params, IDS[:, :3], MASK[:, :3], length=8)
    follow = jax.jit(lambda ids, cache: decoder.apply({"params": params}, Batch(token_ids=ids), cache=cache))
    whole = run(decoder, params, Batch(token_ids=IDS, mask=MASK))
    np.testing.assert_allclose(follow(IDS[:, 3:], cache)[0], whole[0, 3:], atol=1e-5)


def test_a_model_reads_the_cache_of_another():
    params = params_of("llama")
    other = jax.tree.map(lambda p: 1.1 * p, params)
    _, cache = fill(LLAMA, params, IDS[:1, :4], None, length=8)
    token = IDS[:1, 4]
    np.testing.assert_array_equal(peek(LLAMA, params, token, cache)[0], step(LLAMA, params, token, cache)[0])
    _, own_cache = fill(LLAMA, other, IDS[:1, :4], None, length=8)
    true, shared = peek(LLAMA, other, token, own_cache)[0], peek(LLAMA, other, token, cache)[0]
    assert largest_difference(true, shared) > 1e-2
    # At the first position there is nothing to share: own key and value only.
    empty = empty_cache(CONFIGS["llama"], 1, 8)
    alone = run(LLAMA, other, Batch(token_ids=token[:, None]))[:, 0]
    np.testing.assert_allclose(peek(LLAMA, other, token, empty)[0], alone, atol=1e-5)


def test_several_models_step_at_once():
    """A `vmap` over parameters, in which the slot and what is filled stay one for all."""
    params = params_of("llama")
    others = [params, jax.tree.map(lambda p: 1.1 * p, params)]
    caches = [fill(LLAMA, p, IDS[:1, :4], None, length=8)[1] for p in others]
    axes = Cache(keys=0, values=0, filled=None, next_position=None, slot=None)
    both = Cache(
        keys=jnp.stack([cache.keys for cache in caches]),
        values=jnp.stack([cache.values for cache in caches]),
        filled=caches[0].filled,
        next_position=caches[0].next_position,
        slot=caches[0].slot,
    )
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *others)
    token = IDS[:1, 4]
    at_once = jax.jit(jax.vmap(lambda p, cache: step(LLAMA, p, token, cache), (0, axes), (0, axes)))
    logits, after = at_once(stacked, both)
    for i in range(2):
        alone, cache = step(LLAMA, others[i], token, caches[i])
        np.testing.assert_allclose(logits[i], alone, atol=1e-5)
        np.testing.assert_allclose(after.keys[i], cache.keys, atol=1e-5)
    assert after.filled.tolist() == [[True] * 5 + [False] * 3]


def loss(params, decoder, batch):
    """Smooth, and uneven over positions and words."""
    logits = decoder.apply({"params": params}, batch)
    weights = jnp.where(batch.segments > 0, 1.0 + jnp.arange(9.0)[None], 0.0)
    return jnp.sum(weights[:, :, None] * jnp.sin(logits + jnp.arange(30.0)[None, None]))


gradient = jax.jit(jax.grad(loss), static_argnums=1)


@pytest.mark.parametrize(("scan_layers", "remat_layers"), [(False, False), (True, True)])
def test_scan_and_remat_give_the_same_numbers(scan_layers, remat_layers):
    params = params_of("llama")
    decoder = Decoder(CONFIGS["llama"], scan_layers=scan_layers, remat_layers=remat_layers)
    other = params if scan_layers else unstack_layers(params)
    np.testing.assert_allclose(run(decoder, other, PACKED), run(LLAMA, params, PACKED), atol=1e-5)
    a, b = gradient(params, LLAMA, PACKED), stack_layers(gradient(other, decoder, PACKED))
    assert largest_difference(a, b) < 1e-3 * max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(a))
    if not scan_layers:
        _, cache = fill(decoder, other, IDS[:, :4], MASK[:, :4], length=7)
        _, expected = fill(LLAMA, params, IDS[:, :4], MASK[:, :4], length=7)
        assert largest_difference(cache.keys, expected.keys) < 1e-5
        logits, expected = step(decoder, other, IDS[:, 4], cache)[0], step(LLAMA, params, IDS[:, 4], expected)[0]
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_init():
    decoder = Decoder(CONFIGS["llama"], scan_layers=True)
    params = init_decoder(decoder, jax.random.key(0))
    unrolled = jax.eval_shape(stack_layers, shapes_of(Decoder(CONFIGS["llama"])))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, unrolled)
    kernel = params["layers"]["expand"]["kernel"]
    assert 0.25 < float(jnp.std(kernel)) < 0.35, "the initializer range is 0.3"
    assert largest_difference(kernel[0], kernel[1]) > 0.1
    assert float(params["layers"]["norm"]["scale"].min()) == 1.0


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_bfloat16_is_close(family):
    params = params_of(family)
    half = Decoder(CONFIGS[family], jnp.dtype("bfloat16"), scan_layers=True)
    logits, expected = run(half, params, PACKED), run(DECODERS[family], params, PACKED)
    assert logits.dtype == jnp.float32
    assert 0.0 < largest_difference(logits, expected) < 0.06 * float(jnp.max(jnp.abs(expected)))
    if family == "falcon":
        # Parameters stored in bfloat16 are used as they are.
        stored = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
        assert largest_difference(run(half, stored, PACKED), expected) < 0.06 * float(jnp.max(jnp.abs(expected)))
    else:
        a, b = gradient(params, half, PACKED), gradient(params, LLAMA, PACKED)
        a, b = (jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(g)]) for g in (a, b))
        assert float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)) > 0.98
        _, cache = jax.eval_shape(lambda p: prefill(half, p, IDS, MASK, length=7), params)
        assert cache.keys.dtype == jnp.bfloat16


def test_embeddings_equal_token_ids():
    params = params_of("gpt2")
    table = params["embeddings"]["word"]["table"]
    embedded = Batch(embeddings=table[PACKED.token_ids], segments=PACKED.segments)
    a, b = run(DECODERS["gpt2"], params, PACKED), run(DECODERS["gpt2"], params, embedded)
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_dropout_needs_a_key():
    decoder, params = DECODERS["gpt2"], params_of("gpt2")
    first, again, other = (run(decoder, params, PACKED, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert largest_difference(first, other) > 1e-2
    # Llama's config has no dropout, so the key changes nothing.
    a, b = run(LLAMA, params_of("llama"), PACKED, jax.random.key(0)), run(LLAMA, params_of("llama"), PACKED)
    np.testing.assert_allclose(a, b, atol=1e-6)


CACHE = empty_cache(CONFIGS["llama"], 3, 8)


@pytest.mark.parametrize(
    ("batch", "cache", "message"),
    [
        (Batch(), None, "a batch needs token_ids or embeddings, and not both"),
        (Batch(token_ids=jnp.zeros((1, 17), jnp.int32)), None, "rows of 17 positions are longer than the model's 16"),
        (Batch(embeddings=jnp.zeros((1, 2, 9))), None, "embeddings of 9 features; the model's have 16"),
        (PACKED, CACHE, "a batch that follows on a cache takes neither segments nor positions"),
        (Batch(token_ids=IDS[:2]), CACHE, "(2, 3, 2, 4) for a model and batch of (2, 2, 2, 4); expected the same"),
    ],
)
def test_refuses(batch, cache, message):
    with pytest.raises(UserError) as caught:
        LLAMA.apply({"params": params_of("llama")}, batch, cache=cache)
    assert message in str(caught.value)


@pytest.mark.parametrize("length", [5, 17])
def test_refuses_a_cache_that_cannot_serve(length):
    with pytest.raises(UserError, match=f"a cache of {length} slots; expected at least the 6 of the prompts and at"):
        prefill(LLAMA, params_of("llama"), IDS, MASK, length=length)
