"""XLNet as a Flax module with a sequence-classification head (Yang et al., "XLNet", 2019).

Only the content stream, in which every token sees every other: permutations and the query stream serve pretraining.
Parameters are a nested dict::

    embeddings / word / table
    layers / "0", "1", ... / {query, key, value, relative, output} / kernel, {expand, contract} / {kernel, bias}
                           / {content, position, segment} / bias,  segments / table
                           / {attention_norm, norm} / {scale, bias}
    pooler / {kernel, bias},  classifier / {kernel, bias}

With `scan_layers` the layers are one dict whose leaves stack all k layers along axis 0 (`models.encoder.stack_layers`).
"""

from __future__ import annotations

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, Outputs, PyTree
from jaxdistill.models.first_tokens import attention_bias, mean_over_tokens
from jaxdistill.models.last_tokens import last_states
from jaxdistill.models.layers import Dense, Table, dropout, wide
from jaxdistill.models.xlnet_config import XLNetConfig
from jaxdistill.models.xlnet_layer import XLNetLayer, XLNetSight


class XLNet(nn.Module):
    """XLNet and its classification head.

    The summary is the last token of a text (the tokenizer ends texts with <cls>), a layer with tanh, then the
    classifier. Positions are distances, so that padding may be on either side and texts may share a row. Everything is
    plain XLA, so it can be differentiated in any mix of modes.

    Attributes:
      config: sizes and switches.
      num_classes: c.
      dtype: what matrix products run in.
      scan_layers: run the layers by `lax.scan` over stacked parameters.
      remat_layers: recompute each layer in the backward pass; keeps one [r*l, d] array a layer instead of all of its
        activations, for about a third more time.
    """

    config: XLNetConfig
    num_classes: int
    dtype: jnp.dtype = jnp.dtype("float32")
    scan_layers: bool = False
    remat_layers: bool = False

    @nn.compact
    def __call__(self, batch: Batch, *, key: Key | None = None) -> Outputs:
        """Logits and features.

        Args:
          batch: token ids or embeddings; `mask`, `token_types` and `segments` are heeded.
          key: of dropout; without it there is none.

        Raises:
          UserError: a batch with both or neither of token ids and embeddings, or an unpacked row longer than
            `XLNetConfig.positions`.
        """
        config, dtype = self.config, wide(self.dtype)
        keys = jax.random.split(key) if key is not None else (None, None)
        x = last_states(self._states(batch, keys[0]), batch).astype(dtype)
        features = jnp.tanh(Dense(config.width, config.initializer_range, dtype, name="pooler")(x))
        x = dropout(features, config.head_dropout, keys[1])
        logits = Dense(self.num_classes, config.initializer_range, dtype, name="classifier")(x)
        return Outputs(logits=logits, features=features)

    @nn.compact
    def embed(self, batch: Batch) -> Float[Array, "n d"]:
        """Sentence vectors: the mean of the last hidden states over the tokens of each example."""
        return mean_over_tokens(self._states(batch, None).astype(wide(self.dtype)), batch)

    def _states(self, batch: Batch, key: Key | None) -> Float[Array, "m d"]:
        """Hidden states after the last layer."""
        rows, length = _check(batch, self.config)
        config, depth = self.config, self.config.layers
        keys = jax.random.split(key, 4) if key is not None else (None,) * 4
        word = Words(config, self.dtype, name="embeddings")()
        if batch.embeddings is not None:
            x = batch.embeddings.reshape(rows * length, -1)
        else:
            assert batch.token_ids is not None  # checked
            x = word.at[batch.token_ids.reshape(-1)].get(mode="clip")
        x = dropout(x.astype(self.dtype), config.dropout, keys[0])
        sight = self._sight(batch, length, keys[1])
        params = self._layer_params(rows, x, sight)
        layer = XLNetLayer(config, self.dtype, parent=None)

        def run(x: Float[Array, "m d"], given: tuple) -> tuple[Float[Array, "m d"], None]:
            p, key = given
            return cast(Array, layer.apply({"params": p}, x, sight, rows=rows, key=key)), None

        run = jax.checkpoint(run) if self.remat_layers else run
        layers_key = keys[2]
        layer_keys = None if layers_key is None else jax.random.split(layers_key, depth)
        if self.scan_layers:
            x, _ = jax.lax.scan(run, x, (params, layer_keys))
        else:
            for i in range(depth):
                x, _ = run(x, (params[str(i)], None if layer_keys is None else layer_keys[i]))
        return dropout(x, config.dropout, keys[3])

    def _sight(self, batch: Batch, length: int, key: Key | None) -> XLNetSight:
        distances = dropout(distance_vectors(self.config, length).astype(self.dtype), self.config.dropout, key)
        other = None
        if batch.token_types is not None:
            other = batch.token_types[:, :, None] != batch.token_types[:, None, :]
        return XLNetSight(attention_bias(batch, wide(self.dtype)), distances, other)

    def _layer_params(self, rows: int, x: Float[Array, "m d"], sight: XLNetSight) -> PyTree:
        """The parameters of all layers, held as one tree so that they can be scanned over."""
        if not self.is_initializing():
            return self.get_variable("params", "layers")
        layer = XLNetLayer(self.config, self.dtype, parent=None)

        def draw(key: Key) -> PyTree:
            return layer.init(key, x, sight, rows=rows)["params"]

        def draw_all(key: Key) -> PyTree:
            keys = jax.random.split(key, self.config.layers)
            if self.scan_layers:
                return jax.lax.map(draw, keys)
            return {str(i): draw(keys[i]) for i in range(self.config.layers)}

        return self.param("layers", draw_all)


class Words(nn.Module):
    """The word table, where other families have theirs."""

    config: XLNetConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self) -> Float[Array, "v d"]:
        config = self.config
        return Table(config.vocabulary, config.width, config.initializer_range, self.dtype, name="word")()


def distance_vectors(config: XLNetConfig, length: int) -> Float[Array, "p d"]:
    """Sines, then cosines, of the distances from l down to 1 - l of a query to a key before it, p = 2l."""
    distances = np.arange(length, -length, -1, dtype=np.float32)
    if config.farthest:
        distances = np.clip(distances, -config.farthest, config.farthest)
    exponents = np.arange(0, config.width, 2, dtype=np.float32) / config.width
    angles = distances[:, None] * (1.0 / np.float32(10000) ** exponents)[None]
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def init_xlnet(xlnet: XLNet, key: Key) -> PyTree:
    """Random parameters: weights and the biases of attention from N(0, initializer_range), other biases 0,
    normalisation the identity."""
    return xlnet.init(key, Batch(token_ids=jnp.zeros((1, 2), jnp.int32)))["params"]


def _check(batch: Batch, config: XLNetConfig) -> tuple[int, int]:
    """Rows and length of the batch; errors for what cannot be read."""
    inputs = batch.token_ids if batch.embeddings is None else batch.embeddings
    if inputs is None or (batch.token_ids is not None and batch.embeddings is not None):
        raise UserError("xlnet: a batch needs token_ids or embeddings, and not both")
    rows, length = inputs.shape[:2]
    if length > config.positions and batch.segments is None:
        raise UserError(
            f"xlnet: rows of {length} positions are longer than the model's {config.positions}; "
            "truncate the texts or choose a shorter sequence length"
        )
    return rows, length
