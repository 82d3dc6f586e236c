"""The parts of a decoder: embeddings, one layer of attention and feed-forward, the output head.

As in an encoder, hidden states are one [m, d] matrix of all positions, parameters are float32 (float64 when computing
in float64), and scores, softmax, normalisation and logits are at least float32. Parameters stored in less are used as
they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxdistill.core.types import Batch, Key
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.kv_cache import KeyValues
from jaxdistill.models.layers import ACTIVATIONS, Dense, Norm, Table, dropout, wide
from jaxdistill.models.sight import Sight, rotate


class DecoderEmbeddings(nn.Module):
    """Word (or given) vectors, projected where the table is narrower, plus those of a position table."""

    config: DecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        config = self.config
        std = config.initializer_range
        self.word = Table(config.vocabulary, config.embedding_width, std, self.dtype)
        if config.embedding_width != config.width:
            self.project = Dense(config.width, std, self.dtype, use_bias=False)
        if config.positions_by == "table":
            self.position = Table(config.positions + config.position_offset, config.width, std, self.dtype)

    def __call__(self, batch: Batch, positions: Int[Array, "#r l"], key: Key | None) -> Float[Array, "m d"]:
        config = self.config
        word = self.word()
        if batch.embeddings is not None:
            x = batch.embeddings.astype(word.dtype)
        else:
            assert batch.token_ids is not None  # the decoder has checked
            x = word.at[batch.token_ids].get(mode="clip")
        rows, length = x.shape[:2]
        x = x.reshape(rows * length, -1)
        if config.embedding_width != config.width:
            x = self.project(x)
        if config.positions_by == "table":
            table = self.position()
            vectors = table.at[positions + config.position_offset].get(mode="clip")
            vectors = jnp.broadcast_to(vectors, (rows, length, config.width)).reshape(rows * length, -1)
            x = x.astype(wide(self.dtype)) + vectors.astype(wide(self.dtype))
        return dropout(x.astype(self.dtype), config.embedding_dropout, key)

    def table(self) -> Float[Array, "v d"]:
        """The word table."""
        return self.word()


class DecoderHead(nn.Module):
    """Logits of hidden states: last normalisation, then the word table or a matrix of its own. Without a table, what
    that matrix would read."""

    config: DecoderConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "m d"], table: Float[Array, "v e"] | None) -> Float[Array, "m f"]:
        config, logits_type = self.config, wide(self.dtype)
        if config.final_norm:
            x = Norm(config.norm_epsilon, self.dtype, config.norm, config.norm_affine, name="norm")(x)
        if config.embedding_width != config.width:
            x = Dense(config.embedding_width, config.initializer_range, self.dtype, False, name="project")(x)
        if table is None:
            return x
        if config.tied_head:
            kernel = table.T
        else:
            normal = nn.initializers.normal(config.initializer_range)
            kernel = self.param("kernel", normal, (config.embedding_width, config.vocabulary), logits_type)
        product = jnp.matmul(x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=logits_type)
        if not config.head_bias:
            return product
        bias = self.param("bias", nn.initializers.zeros, (config.vocabulary,), logits_type)
        return product + bias.astype(logits_type)[None]


class DecoderLayer(nn.Module):
    """Causal self-attention and feed-forward, with residual sums, in the order that the config says."""

    config: DecoderConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "m d"],
        sight: Sight,
        cached: KeyValues | None,
        scale: Float[Array, ""],
        *,
        rows: int,
        key: Key | None = None,
    ) -> tuple[Float[Array, "m d"], KeyValues]:
        """Next hidden states, and the keys and values of the batch's own tokens.

        Args:
          x: hidden states of all r*l positions.
          sight: what they see.
          cached: keys and values of this layer for the slots of `sight.cached`.
          scale: factor of the attention scores.
          rows: r.
          key: of dropout; `None` for none.
        """
        config = self.config
        keys = jax.random.split(key, 3) if key is not None else (None, None, None)

        def norm(name: str, x: Float[Array, "m d"]) -> Float[Array, "m d"]:
            return Norm(config.norm_epsilon, self.dtype, config.norm, config.norm_affine, name=name)(x)

        def attend(x: Float[Array, "m d"]) -> tuple[Float[Array, "m d"], KeyValues]:
            y, own = self._attention(x, sight, cached, scale, rows, keys[0])
            return dropout(y, config.residual_dropout, keys[1]), own

        def feed(x: Float[Array, "m d"]) -> Float[Array, "m d"]:
            return dropout(self._feed_forward(x), config.residual_dropout, keys[2])

        if config.parallel_norms:
            read = norm("attention_norm", x)
            y, own = attend(read)
            other = norm("norm", x) if config.parallel_norms == 2 else read
            return x + y + feed(other), own
        if config.norm_place == "after":
            y, own = attend(x)
            x = norm("attention_norm", x + y)
            return norm("norm", x + feed(x)), own
        y, own = attend(norm("attention_norm", x))
        x = x + y
        return x + feed(norm("norm", x)), own

    def _dense(self, name: str, features: int, bias: bool, x: Float[Array, "m d"]) -> Float[Array, "m f"]:
        return Dense(features, self.config.initializer_range, self.dtype, bias, name=name)(x)

    def _attention(
        self,
        x: Float[Array, "m d"],
        sight: Sight,
        cached: KeyValues | None,
        scale: Float[Array, ""],
        rows: int,
        key: Key | None,
    ) -> tuple[Float[Array, "m d"], KeyValues]:
        """What each token gathers from the tokens it sees, in the cache and in its own batch.

        The cache is only read: scores over cached and own keys are joined for the softmax, never the keys
        themselves, so that no layer copies the cache.
        """
        config, score_type = self.config, wide(self.dtype)
        heads, kv_heads, group, width = config.heads, config.kv_heads, config.group, config.head_width
        bias = config.attention_bias

        def split(name: str, count: int) -> Float[Array, "r l n e"]:
            return self._dense(name, count * width, bias, x).reshape(rows, -1, count, width)

        queries, own_keys, own_values = split("query", heads), split("key", kv_heads), split("value", kv_heads)
        if sight.rotation is not None:
            queries, own_keys = rotate(queries, sight.rotation), rotate(own_keys, sight.rotation)
        own = KeyValues(own_keys.swapaxes(1, 2), own_values.swapaxes(1, 2))
        queries = queries.reshape(rows, -1, kv_heads, group, width)

        def scores(keys: Float[Array, "r h k e"], bias: Float[Array, "#r #h #g #q k"]) -> Float[Array, "r h g q k"]:
            keys = keys.astype(self.dtype)
            products = jnp.einsum("rqhge,rhke->rhgqk", queries, keys, preferred_element_type=score_type)
            return products * scale.astype(score_type).reshape(1, 1, 1, 1, 1) + bias

        all_scores = [scores(own.keys, sight.own)]
        if cached is not None:
            assert sight.cached is not None  # made of the same cache
            all_scores = [scores(cached.keys, sight.cached), *all_scores]
        probabilities = jax.nn.softmax(jnp.concatenate(all_scores, axis=-1))
        probabilities = dropout(probabilities.astype(self.dtype), config.attention_dropout, key)
        slots = 0 if cached is None else cached.keys.shape[2]

        def gather(shares: Float[Array, "r h g q k"], values: Float[Array, "r h k e"]) -> Float[Array, "r q h g e"]:
            return jnp.einsum("rhgqk,rhke->rqhge", shares, values.astype(self.dtype))

        context = gather(probabilities[..., slots:], own.values)
        if cached is not None:
            context = context + gather(probabilities[..., :slots], cached.values)
        context = context.reshape(-1, heads * width)
        return self._dense("output", config.width, bias, context), own

    def _feed_forward(self, x: Float[Array, "m d"]) -> Float[Array, "m d"]:
        config = self.config
        activation, bias = ACTIVATIONS[config.activation], config.feed_forward_bias
        y = self._dense("expand", config.intermediate, bias, x)
        y = activation(self._dense("gate", config.intermediate, bias, x)) * y if config.gated else activation(y)
        return self._dense("contract", config.width, bias, y)
