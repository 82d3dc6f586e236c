"""The parts of an encoder: dense, normalisation, embeddings, one transformer layer. Decoders share the smaller ones.

Hidden states are kept as one [m, d] matrix of all positions, since every projection is then a plain matrix product
(what XLA runs fastest on CPU) and broadcasts keep equal ranks. Parameters are float32 (float64 when computing in
float64); `dtype` is what matrix products run in; normalisation, softmax and logits are at least float32.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxdistill.core.types import Batch, Key
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.first_tokens import FirstTokens


def wide(dtype) -> jnp.dtype:
    """The type for parameters, normalisation, softmax and logits when products run in `dtype`."""
    return jnp.dtype("float64" if dtype == jnp.float64 else "float32")


def dropout(x: Float[Array, "*shape"], rate: float, key: Key | None) -> Float[Array, "*shape"]:
    """Zero a share `rate` of the entries and scale up the rest; the identity without a key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class Dense(nn.Module):
    """y = x W + b on [m, d] matrices, or y = x W."""

    features: int
    init_std: float
    dtype: jnp.dtype
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "m d"]) -> Float[Array, "m f"]:
        normal = nn.initializers.normal(self.init_std)
        kernel = self.param("kernel", normal, (x.shape[-1], self.features), wide(self.dtype))
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide(self.dtype))
        return y + bias.astype(self.dtype)[None]


class Norm(nn.Module):
    """Layer normalisation of [m, d] matrices, in at least float32.

    Attributes:
      epsilon: added to the variance.
      dtype: of the result.
      kind: "layer", or "rms", which subtracts no mean and has no bias.
      affine: whether there are weights.
    """

    epsilon: float
    dtype: jnp.dtype
    kind: str = "layer"
    affine: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "m d"]) -> Float[Array, "m d"]:
        width = x.shape[-1]
        x = x.astype(wide(self.dtype))
        if self.kind == "layer":
            x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        if self.affine:
            # Parameters may be stored in less than the wide type.
            scale = self.param("scale", nn.initializers.ones, (width,), wide(self.dtype))
            x = x * scale.astype(x.dtype)[None]
            if self.kind == "layer":
                bias = self.param("bias", nn.initializers.zeros, (width,), wide(self.dtype))
                x = x + bias.astype(x.dtype)[None]
        return x.astype(self.dtype)


class Table(nn.Module):
    """A table of vectors; calling it returns the whole of it."""

    rows: int
    width: int
    init_std: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self) -> Float[Array, "v d"]:
        return self.param("table", nn.initializers.normal(self.init_std), (self.rows, self.width), wide(self.dtype))


class Embeddings(nn.Module):
    """Word (or given) plus position plus token-type vectors, normalised: [r*l, d]."""

    config: EncoderConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, batch: Batch, key: Key | None = None) -> Float[Array, "m d"]:
        config = self.config

        def table(name: str, rows: int) -> Float[Array, "v d"]:
            return Table(rows, config.width, config.initializer_range, self.dtype, name=name)()

        word, position = table("word", config.vocabulary), table("position", config.positions)
        if batch.embeddings is not None:
            x = batch.embeddings.astype(word.dtype)
        else:
            assert batch.token_ids is not None  # the encoder has checked
            x = _lookup(word, batch.token_ids)
        rows, length = x.shape[:2]
        if batch.positions is None:
            x = x + jax.lax.slice_in_dim(position, config.position_offset, config.position_offset + length)[None]
        else:
            x = x + _lookup(position, batch.positions + config.position_offset)
        if config.token_types:
            types = table("token_type", config.token_types)
            x = x + types[:1][None]
            if batch.token_types is not None:
                # A sum of masked differences: its gradient is a reduction, where that of a lookup is a scatter.
                for kind in range(1, config.token_types):
                    chosen = (batch.token_types == kind)[:, :, None]
                    x = jnp.where(chosen, x - types[:1][None] + types[kind : kind + 1][None], x)
        x = Norm(config.norm_epsilon, self.dtype, name="norm")(x.reshape(rows * length, config.width))
        return dropout(x, config.hidden_dropout, key)


def _lookup(table: Float[Array, "v d"], ids: Int[Array, "r l"]) -> Float[Array, "r l d"]:
    return table.at[ids].get(mode="clip")


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by a residual sum and normalisation."""

    config: EncoderConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "m d"],
        bias: Float[Array, "r 1 #q l"] | None,
        *,
        rows: int,
        first: FirstTokens | None = None,
        attention: str = "none",
        key: Key | None = None,
    ) -> tuple[Float[Array, "k d"], Float[Array, "r h q l"] | None]:
        """Next hidden states, and the log attention probabilities of the requested query rows.

        Args:
          x: hidden states of all r*l positions.
          bias: added to the scores: of all positions, or of the query slots when `first` is given.
          rows: r.
          first: given in a last layer, of which only the states at the first tokens (k = n) are computed.
          attention: "none", "cls" (row 0 of an unpacked batch) or "all".
          key: of dropout; `None` for none.
        """
        config = self.config

        def dense(features: int, name: str) -> Dense:
            return Dense(features, config.initializer_range, self.dtype, name=name)

        def split(y: Float[Array, "*shape"]) -> Float[Array, "r q h e"]:
            return y.reshape(rows, -1, config.heads, config.head_width)

        keys = jax.random.split(key, 3) if key is not None else (None, None, None)
        values = split(dense(config.width, "value")(x))
        attended = split(dense(config.width, "key")(x))
        if first is not None:
            x = first.select(x, rows)
        # The 1/sqrt(e) goes into the queries, which are fewer than the scores.
        queries = dense(config.width, "query")(x) * config.head_width**-0.5
        queries = split(queries if first is None else first.to_slots(queries))

        def scores(queries: Float[Array, "r q h e"], bias: Float[Array, "r 1 #q l"] | None) -> Float[Array, "r h q l"]:
            s = jnp.einsum("rqhe,rkhe->rhqk", queries, attended).astype(wide(self.dtype))
            return s if bias is None else s + bias

        all_scores = scores(queries, bias)
        log_probabilities = None
        if attention == "all" or (attention == "cls" and first is not None):
            log_probabilities = jax.nn.log_softmax(all_scores)
            probabilities = jnp.exp(log_probabilities)
        else:
            probabilities = jax.nn.softmax(all_scores)
            if attention == "cls":
                # Row 0 anew, O(h*l): a slice of all scores would send a padded [r, h, l, l] cotangent back.
                log_probabilities = jax.nn.log_softmax(scores(queries[:, :1], bias))
        probabilities = dropout(probabilities.astype(self.dtype), config.attention_dropout, keys[0])
        context = jnp.einsum("rhqk,rkhe->rqhe", probabilities, values).reshape(rows, -1, config.width)
        context = context.reshape(-1, config.width) if first is None else first.from_slots(context)

        # DistilBERT drops nothing of what attention has gathered.
        rate = 0.0 if config.family == "distilbert" else config.hidden_dropout
        y = dropout(dense(config.width, "output")(context), rate, keys[1])
        x = Norm(config.norm_epsilon, self.dtype, name="attention_norm")(x + y)
        y = ACTIVATIONS[config.activation](dense(config.intermediate, "expand")(x))
        y = dropout(dense(config.width, "contract")(y), config.hidden_dropout, keys[2])
        return Norm(config.norm_epsilon, self.dtype, name="norm")(x + y), log_probabilities
