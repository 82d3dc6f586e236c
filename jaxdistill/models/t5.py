"""T5: an encoder-decoder with relative positions, in Flax.

Parameters are a nested dict, parts that a config has not left out::

    shared / table,  head / kernel
    encoder / "0", "1", ... / {attention, feed_forward} / ...,  encoder / norm / scale,  encoder / positions / table
    decoder / the same, and in each layer cross / ...
    attention, cross: {query, key, value, output} / kernel,  norm / scale
    feed_forward: {expand, gate, contract} / kernel,  norm / scale
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, PyTree, pytree
from jaxdistill.models.first_tokens import attention_bias
from jaxdistill.models.layers import ACTIVATIONS, Norm, Table, dropout, wide
from jaxdistill.models.t5_config import FEED_FORWARD, T5Config


@pytree
class T5Cache:
    """What a decoder has computed for the tokens so far.

    Attributes:
      keys, values: of its own tokens, in t slots.
      memory_keys, memory_values: of what it reads, the same at every step.
      memory_mask: positions of the memory that hold something.
      slot: where the next token of all rows goes.
    """

    keys: Float[Array, "k r h t e"]
    values: Float[Array, "k r h t e"]
    memory_keys: Float[Array, "k r h l e"]
    memory_values: Float[Array, "k r h l e"]
    memory_mask: Bool[Array, "r l"]
    slot: Int[Array, ""]


class T5(nn.Module):
    """An encoder, and a decoder that reads what it says.

    Attributes:
      config: sizes and switches.
      dtype: what matrix products run in; parameters, normalisation, softmax and logits are at least float32.
    """

    config: T5Config
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self) -> None:
        config = self.config
        self.shared = Table(config.vocabulary, config.width, config.initializer_factor, self.dtype)
        self.encoder = _Stack(config, False, self.dtype)
        if config.decoder_layers:
            self.decoder = _Stack(config, True, self.dtype)
            if not config.tied_head:
                self.head = _Linear(config.vocabulary, config.initializer_factor * config.width**-0.5, self.dtype)

    def __call__(self, batch: Batch, token_ids: Int[Array, "r t"]) -> Array:
        """Logits of the token after each of the decoder's; hidden states of the encoder where there is no decoder."""
        memory = self.encode(batch)
        if not self.config.decoder_layers:
            return memory
        return self.decode(token_ids, memory, batch.mask)

    def encode(self, batch: Batch, *, key: Key | None = None) -> Float[Array, "r l d"]:
        """Hidden states of token ids or embeddings, normalised; `mask` and `segments` are heeded. `key`
        feeds dropout."""
        if (batch.token_ids is None) == (batch.embeddings is None):
            raise UserError("t5: a batch needs token_ids or embeddings, and not both")
        x = batch.embeddings
        if x is None:
            assert batch.token_ids is not None
            x = self._words(batch.token_ids)
        length = x.shape[1]
        bias = self.encoder.bias(jnp.arange(length), jnp.arange(length))
        if (unseen := attention_bias(batch, bias.dtype)) is not None:
            bias = bias + unseen
        return self.encoder(x.astype(self.dtype), bias, None, None, key=key)

    def decode(
        self,
        token_ids: Int[Array, "r t"],
        memory: Float[Array, "r l d"],
        memory_mask: Bool[Array, "r l"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "r t v"]:
        """Logits of the token after each, the first of which follows on the start token.

        Args:
          token_ids: of the text, start token first; what stands behind its end is seen by nothing before.
          memory: of the encoder.
          memory_mask: positions of the memory that hold something.
          key: of dropout.
        """
        length = token_ids.shape[1]
        places = jnp.arange(length)
        bias = self.decoder.bias(places, places)
        ahead = (places[None] > places[:, None])[None, None]
        bias = jnp.where(ahead, jnp.finfo(bias.dtype).min, bias)
        cross = None if memory_mask is None else _unseen(memory_mask, bias.dtype)
        x = self._words(token_ids).astype(self.dtype)
        return self._logits(self.decoder(x, bias, memory.astype(self.dtype), cross, key=key))

    def start(self, memory: Float[Array, "r l d"], memory_mask: Bool[Array, "r l"] | None, length: int) -> T5Cache:
        """An empty cache of `length` slots, with the memory's keys and values."""
        config, rows = self.config, memory.shape[0]
        keys, values = self.decoder.read(memory.astype(self.dtype))
        empty = jnp.zeros((config.decoder_layers, rows, config.heads, length, config.head_width), self.dtype)
        if memory_mask is None:
            memory_mask = jnp.ones(memory.shape[:2], bool)
        return T5Cache(empty, empty, keys, values, memory_mask, jnp.zeros((), jnp.int32))

    def step(self, tokens: Int[Array, " r"], cache: T5Cache) -> tuple[Float[Array, "r v"], T5Cache]:
        """Logits after one more token a row, and the cache with it. The slot has to be there."""
        slots = jnp.arange(cache.keys.shape[3])
        bias = self.decoder.bias(cache.slot[None], slots)
        bias = jnp.where((slots > cache.slot)[None, None, None], jnp.finfo(bias.dtype).min, bias)
        x = self._words(tokens[:, None]).astype(self.dtype)
        x, cache = self.decoder.step(x, bias, _unseen(cache.memory_mask, bias.dtype), cache)
        return self._logits(x)[:, 0], cache

    def _words(self, token_ids: Int[Array, "r l"]) -> Float[Array, "r l d"]:
        return self.shared().at[token_ids].get(mode="clip")

    def _logits(self, x: Float[Array, "r t d"]) -> Float[Array, "r t v"]:
        x = x * self.config.width**-0.5 if self.config.scaled_head else x
        if not self.config.tied_head:
            return self.head(x).astype(wide(self.dtype))
        return (x @ self.shared().astype(self.dtype).T).astype(wide(self.dtype))


class _Stack(nn.Module):
    """The layers of an encoder or of a decoder, and their last normalisation."""

    config: T5Config
    decoder: bool
    dtype: jnp.dtype

    def setup(self) -> None:
        config = self.config
        depth = config.decoder_layers if self.decoder else config.encoder_layers
        self.layers = [_Layer(config, self.decoder, self.dtype, name=str(i)) for i in range(depth)]
        std = config.initializer_factor * config.width**-0.5
        self.positions = Table(config.buckets, config.heads, std, self.dtype)
        self.norm = Norm(config.norm_epsilon, self.dtype, "rms")

    def bias(self, queries: Int[Array, " q"], keys: Int[Array, " l"]) -> Float[Array, "1 h q l"]:
        """Added to the scores of all layers."""
        distances = keys[None] - queries[:, None]
        buckets = _buckets(distances, self.config.buckets, self.config.farthest, both_ways=not self.decoder)
        return jnp.moveaxis(self.positions()[buckets], 2, 0)[None].astype(wide(self.dtype))

    def __call__(
        self, x: Array, bias: Array, memory: Array | None, memory_bias: Array | None, *, key: Key | None
    ) -> Float[Array, "r l d"]:
        keys = _keys(key, len(self.layers) + 2)
        x = dropout(x, self.config.dropout, keys[0])
        for layer, layer_key in zip(self.layers, keys[2:], strict=True):
            x = layer(x, bias, memory, memory_bias, key=layer_key)
        return dropout(_rows(self.norm, x), self.config.dropout, keys[1])

    def read(self, memory: Float[Array, "r l d"]) -> tuple[Array, Array]:
        """Keys and values of the memory, of all layers."""
        read = [layer.cross.read(memory) for layer in self.layers]
        return jnp.stack([keys for keys, _ in read]), jnp.stack([values for _, values in read])

    def step(self, x: Array, bias: Array, memory_bias: Array, cache: T5Cache) -> tuple[Array, T5Cache]:
        kept = []
        for i, layer in enumerate(self.layers):
            own, memory = (cache.keys[i], cache.values[i]), (cache.memory_keys[i], cache.memory_values[i])
            x, own = layer.step(x, bias, memory_bias, own, memory, cache.slot)
            kept.append(own)
        keys, values = (jnp.stack(leaves) for leaves in zip(*kept, strict=True))
        cache = T5Cache(keys, values, cache.memory_keys, cache.memory_values, cache.memory_mask, cache.slot + 1)
        return _rows(self.norm, x), cache


class _Layer(nn.Module):
    """Self-attention, attention over the memory, feed-forward: each on a normalised input, and added to it."""

    config: T5Config
    decoder: bool
    dtype: jnp.dtype

    def setup(self) -> None:
        self.attention = _Attention(self.config, self.dtype)
        if self.decoder:
            self.cross = _Attention(self.config, self.dtype)
        self.feed_forward = _FeedForward(self.config, self.dtype)

    def __call__(
        self, x: Array, bias: Array, memory: Array | None, memory_bias: Array | None, *, key: Key | None
    ) -> Float[Array, "r l d"]:
        keys = _keys(key, 3)
        normal = self.attention.normal(x)
        x = x + dropout(self.attention(normal, self.attention.read(normal), bias), self.config.dropout, keys[0])
        if self.decoder:
            assert memory is not None
            seen = self.cross(self.cross.normal(x), self.cross.read(memory), memory_bias)
            x = x + dropout(seen, self.config.dropout, keys[1])
        return x + dropout(self.feed_forward(x, keys[2]), self.config.dropout, keys[2])

    def step(
        self,
        x: Float[Array, "r 1 d"],
        bias: Array,
        memory_bias: Array,
        own: tuple[Array, Array],
        memory: tuple[Array, Array],
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "r 1 d"], tuple[Array, Array]]:
        normal = self.attention.normal(x)
        added = self.attention.read(normal)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(kept, new, slot, axis=2) for kept, new in zip(own, added, strict=True)
        )
        x = x + self.attention(normal, (keys, values), bias)
        x = x + self.cross(self.cross.normal(x), memory, memory_bias)
        return x + self.feed_forward(x, None), (keys, values)


class _Attention(nn.Module):
    config: T5Config
    dtype: jnp.dtype

    def setup(self) -> None:
        config = self.config
        inner, factor = config.heads * config.head_width, config.initializer_factor
        self.query = _Linear(inner, factor * (config.width * config.head_width) ** -0.5, self.dtype)
        self.key = _Linear(inner, factor * config.width**-0.5, self.dtype)
        self.value = _Linear(inner, factor * config.width**-0.5, self.dtype)
        self.output = _Linear(config.width, factor * inner**-0.5, self.dtype)
        self.norm = Norm(config.norm_epsilon, self.dtype, "rms")

    def normal(self, x: Float[Array, "r l d"]) -> Float[Array, "r l d"]:
        return _rows(self.norm, x)

    def read(self, x: Float[Array, "r l d"]) -> tuple[Float[Array, "r h l e"], Float[Array, "r h l e"]]:
        """Keys and values."""
        return self._split(self.key(x)), self._split(self.value(x))

    def __call__(
        self, x: Float[Array, "r q d"], seen: tuple[Array, Array], bias: Array | None
    ) -> Float[Array, "r q d"]:
        scores = jnp.einsum("rhqe,rhke->rhqk", self._split(self.query(x)), seen[0]).astype(wide(self.dtype))
        probabilities = jax.nn.softmax(scores if bias is None else scores + bias).astype(self.dtype)
        context = jnp.einsum("rhqk,rhke->rqhe", probabilities, seen[1])
        return self.output(context.reshape(*context.shape[:2], -1))

    def _split(self, x: Float[Array, "r l f"]) -> Float[Array, "r h l e"]:
        return jnp.moveaxis(x.reshape(*x.shape[:2], self.config.heads, self.config.head_width), 2, 1)


class _FeedForward(nn.Module):
    config: T5Config
    dtype: jnp.dtype

    def setup(self) -> None:
        config, factor = self.config, self.config.initializer_factor
        self.expand = _Linear(config.intermediate, factor * config.width**-0.5, self.dtype)
        if FEED_FORWARD[config.feed_forward][1]:
            self.gate = _Linear(config.intermediate, factor * config.width**-0.5, self.dtype)
        self.contract = _Linear(config.width, factor * config.intermediate**-0.5, self.dtype)
        self.norm = Norm(config.norm_epsilon, self.dtype, "rms")

    def __call__(self, x: Float[Array, "r l d"], key: Key | None) -> Float[Array, "r l d"]:
        activation, gated = FEED_FORWARD[self.config.feed_forward]
        normal = _rows(self.norm, x)
        inner = ACTIVATIONS[activation](self.expand(normal))
        inner = inner * self.gate(normal) if gated else inner
        return self.contract(dropout(inner, self.config.dropout, None if key is None else jax.random.fold_in(key, 1)))


class _Linear(nn.Module):
    """y = x W on the last axis."""

    features: int
    std: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n f"]:
        normal = nn.initializers.normal(self.std)
        kernel = self.param("kernel", normal, (x.shape[-1], self.features), wide(self.dtype))
        return x.astype(self.dtype) @ kernel.astype(self.dtype)


@functools.partial(jax.jit, static_argnums=0)
def init_t5(model: T5, key: Key) -> PyTree:
    """Random parameters."""
    one = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, Batch(token_ids=one), one)["params"]


def _rows(norm: Norm, x: Float[Array, "r l d"]) -> Float[Array, "r l d"]:
    return norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def _keys(key: Key | None, count: int) -> list[Key | None]:
    return [None] * count if key is None else list(jax.random.split(key, count))


def _unseen(mask: Bool[Array, "r l"], dtype: jnp.dtype) -> Float[Array, "r 1 1 l"]:
    """Added to scores: nothing where there is something, the lowest number elsewhere."""
    return jnp.where(mask, 0.0, jnp.finfo(dtype).min).astype(dtype)[:, None, None]


def _buckets(distances: Int[Array, "q l"], buckets: int, farthest: int, *, both_ways: bool) -> Int[Array, "q l"]:
    """Half of the buckets for short distances, one each, the rest in steps that grow to `farthest`."""
    offset = jnp.zeros_like(distances)
    if both_ways:
        buckets //= 2
        offset = jnp.where(distances > 0, buckets, 0)
        far = jnp.abs(distances)
    else:
        far = jnp.maximum(-distances, 0)
    exact = buckets // 2
    logarithm = jnp.log(jnp.maximum(far, 1).astype(jnp.float32) / exact) / math.log(farthest / exact)
    large = exact + (logarithm * (buckets - exact)).astype(far.dtype)
    return offset + jnp.where(far < exact, far, jnp.minimum(large, buckets - 1))
