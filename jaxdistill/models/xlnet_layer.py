"""One layer of XLNet: attention by content, distance and segment, then a feed-forward layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxdistill.core.types import Key, pytree
from jaxdistill.models.layers import ACTIVATIONS, Dense, Norm, Table, dropout, wide
from jaxdistill.models.xlnet_config import XLNetConfig


@pytree
class XLNetSight:
    """What all layers need to know of the positions of a batch.

    Attributes:
      bias: added to the scores: 0 in sight, about -1e9 out of sight; `None` where everything is in sight.
      distances: vectors of the distances l, l - 1, ..., 1 - l; p = 2l.
      other: whether query and key have different token types; `None` where all are alike.
    """

    bias: Float[Array, "r 1 #l l"] | None
    distances: Float[Array, "p d"]
    other: Bool[Array, "r l l"] | None


class XLNetLayer(nn.Module):
    """Self-attention and feed-forward, each followed by a residual sum and normalisation."""

    config: XLNetConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "m d"], sight: XLNetSight, *, rows: int, key: Key | None = None
    ) -> Float[Array, "m d"]:
        """Next hidden states.

        Args:
          x: hidden states of all r*l positions.
          sight: what they see.
          rows: r.
          key: of dropout; `None` for none.
        """
        config, std = self.config, self.config.initializer_range
        keys = jax.random.split(key, 4) if key is not None else (None,) * 4

        def dense(name: str, x: Float[Array, "m d"], bias: bool = True, features: int = 0) -> Float[Array, "m f"]:
            return Dense(features or config.width, std, self.dtype, bias, name=name)(x)

        y = dense("output", self._attention(x, sight, rows, keys[0]), False)
        x = Norm(config.norm_epsilon, self.dtype, name="attention_norm")(x + dropout(y, config.dropout, keys[1]))
        y = ACTIVATIONS[config.activation](dense("expand", x, features=config.intermediate))
        y = dropout(dense("contract", dropout(y, config.dropout, keys[2])), config.dropout, keys[3])
        return Norm(config.norm_epsilon, self.dtype, name="norm")(x + y)

    def _attention(self, x: Float[Array, "m d"], sight: XLNetSight, rows: int, key: Key | None) -> Float[Array, "m d"]:
        config, score_type = self.config, wide(self.dtype)
        heads, width = config.heads, config.head_width

        def project(name: str, x: Float[Array, "m d"]) -> Float[Array, "m d"]:
            return Dense(config.width, config.initializer_range, self.dtype, False, name=name)(x)

        def split(y: Float[Array, "m d"]) -> Float[Array, "r q h e"]:
            return y.reshape(rows, -1, heads, width)

        queries = project("query", x)

        def biased(name: str) -> Float[Array, "r q h e"]:
            # The 1/sqrt(e) goes into the queries, which are fewer than the scores.
            bias = Shift(config.width, config.initializer_range, self.dtype, name=name)().astype(self.dtype)
            return split((queries + bias[None]) * width**-0.5)

        scores = jnp.einsum("rqhe,rkhe->rhqk", biased("content"), split(project("key", x))).astype(score_type)
        distances = project("relative", sight.distances).reshape(-1, heads, width)
        by_distance = jnp.einsum("rqhe,phe->rhqp", biased("position"), distances)
        scores = scores + keys_of_distances(by_distance).astype(score_type)
        segments = Table(2, config.width, config.initializer_range, self.dtype, name="segments")().astype(self.dtype)
        by_segment = biased("segment")
        if sight.other is not None:
            # What all keys of a query have in common is nothing to the softmax, so the score of the own segment is 0.
            step = (segments[1] - segments[0]).reshape(heads, width)
            step = jnp.einsum("rqhe,he->rhq", by_segment, step).astype(score_type)
            scores = scores + jnp.where(sight.other[:, None], step[..., None], jnp.zeros((), score_type))
        scores = scores if sight.bias is None else scores + sight.bias
        probabilities = dropout(jax.nn.softmax(scores).astype(self.dtype), config.dropout, key)
        context = jnp.einsum("rhqk,rkhe->rqhe", probabilities, split(project("value", x)))
        return context.reshape(-1, config.width)


class Shift(nn.Module):
    """A vector that is drawn like a weight and called a bias."""

    width: int
    init_std: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self) -> Float[Array, " d"]:
        return self.param("bias", nn.initializers.normal(self.init_std), (self.width,), wide(self.dtype))


def keys_of_distances(scores: Float[Array, "r h l p"]) -> Float[Array, "r h l l"]:
    """From scores of the distances l, l - 1, ..., 1 - l of each query to scores of the keys at these distances.

    Entry (i, j) is wanted at distance i - j, which is place l - i + j. Read as rows of p - 1 numbers after the first l,
    row i starts at just that place for j = 0, so two reshapes and two slices do it (Dai et al., "Transformer-XL", 2019,
    appendix B).
    """
    rows, heads, length, distances = scores.shape
    flat = scores.reshape(rows, heads, length * distances)[:, :, length:]
    return flat.reshape(rows, heads, length, distances - 1)[:, :, :, :length]
