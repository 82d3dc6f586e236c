"""One Flax module for BERT, MiniLM, RoBERTa and DistilBERT with a sequence-classification head.

Parameters are a nested dict::

    embeddings / {word, position, token_type} / table,  embeddings / norm / {scale, bias}
    layers / "0", "1", ... / {query, key, value, output, expand, contract} / {kernel, bias}
                           / {attention_norm, norm} / {scale, bias}
    pooler / {kernel, bias},  classifier / {kernel, bias}

With `scan_layers` the layers are one dict whose leaves stack all k layers along axis 0 (`stack_layers`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, Outputs, PyTree
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.first_tokens import FirstTokens, attention_bias, first_token_bias, first_tokens, mean_over_tokens
from jaxdistill.models.layers import Dense, Embeddings, EncoderLayer, dropout, wide


class Encoder(nn.Module):
    """Encoder and classification head.

    Everything is plain XLA, so it can be differentiated twice, in any mix of modes. When no attention, or only the
    [CLS] row, is asked for, the last layer computes the first token of each example alone: the result is the same,
    and for MiniLM a sixth of the feed-forward work is saved.

    Attributes:
      config: sizes and switches.
      num_classes: c.
      dtype: what matrix products run in.
      scan_layers: run the layers by `lax.scan` over stacked parameters: the program, and so its compilation, no
        longer grows with the depth.
      remat_layers: recompute each layer in the backward pass; keeps one [r*l, d] array a layer instead of all of its
        activations, for about a third more time.
    """

    config: EncoderConfig
    num_classes: int
    dtype: jnp.dtype = jnp.dtype("float32")
    scan_layers: bool = False
    remat_layers: bool = False

    @nn.compact
    def __call__(self, batch: Batch, *, attention: str = "none", key: Key | None = None) -> Outputs:
        """Logits, features and the requested attention rows.

        Args:
          batch: token ids or embeddings; see `Batch`.
          attention: query rows ("none", "cls" or "all") of which to return log attention probabilities; keys out of
            sight get about -1e9.
          key: of dropout; without it there is none.

        Raises:
          UserError: attention asked of a packed batch, a row longer than the position table, or an unknown
            `attention`.
        """
        rows = _check(batch, attention, self.config)
        keys = jax.random.split(key, 3) if key is not None else (None, None, None)
        x = Embeddings(self.config, self.dtype, name="embeddings")(batch, keys[0])
        x, attentions = self._layers(x, batch, rows, attention, keys[1])
        features, logits = self._head(x, keys[2])
        return Outputs(logits=logits, features=features, attentions=attentions)

    @nn.compact
    def embed(self, batch: Batch) -> Float[Array, "n d"]:
        """Sentence vectors: the mean of the last hidden states over the tokens of each example."""
        rows = _check(batch, "none", self.config)
        x = Embeddings(self.config, self.dtype, name="embeddings")(batch)
        x, _ = self._layers(x, batch, rows, "none", None, pool=False)
        return mean_over_tokens(x.astype(wide(self.dtype)), batch)

    def _layers(
        self,
        x: Float[Array, "m d"],
        batch: Batch,
        rows: int,
        attention: str,
        key: Key | None,
        pool: bool = True,
    ) -> tuple[Float[Array, "n d"], Float[Array, "n k h q l"] | None]:
        """Hidden states after the last layer of the first tokens (of all positions without `pool`), and the stacked
        attention rows."""
        layer = EncoderLayer(self.config, self.dtype, parent=None)
        bias = attention_bias(batch, wide(self.dtype))
        first = first_tokens(batch)
        depth = self.config.layers
        params = self._layer_params(layer, x, rows)

        def run(p: PyTree, x: Float[Array, "m d"], bias, first: FirstTokens | None, key: Key | None) -> Any:
            return layer.apply({"params": p}, x, bias, rows=rows, first=first, attention=attention, key=key)

        run = jax.checkpoint(run) if self.remat_layers else run
        keys = None if key is None else jax.random.split(key, depth)

        def pick(i: int) -> tuple[PyTree, Key | None]:
            p = jax.tree.map(lambda a: a[i], params) if self.scan_layers else params[str(i)]
            return p, None if keys is None else keys[i]

        whole = depth if attention == "all" or not pool else depth - 1
        collected = []
        if self.scan_layers:
            stacked = jax.tree.map(lambda a: a[:whole], (params, keys))
            x, seen = jax.lax.scan(lambda x, pk: run(pk[0], x, bias, None, pk[1]), x, stacked)
            collected += [] if seen is None else [seen]
        else:
            for i in range(whole):
                p, k = pick(i)
                x, seen = run(p, x, bias, None, k)
                collected += [] if seen is None else [seen[None]]
        if attention == "all":
            x = first.select(x, rows)
        elif pool:
            p, k = pick(depth - 1)
            x, seen = run(p, x, first_token_bias(batch, first, wide(self.dtype)), first, k)
            collected += [] if seen is None else [seen[None]]
        return x, jnp.moveaxis(jnp.concatenate(collected), 0, 1) if collected else None

    def _layer_params(self, layer: EncoderLayer, x: Float[Array, "m d"], rows: int) -> PyTree:
        """The parameters of all layers, held as one tree so that they can be scanned over."""
        if not self.is_initializing():
            return self.get_variable("params", "layers")

        def draw(key: Key) -> PyTree:
            return layer.init(key, x, None, rows=rows)["params"]

        def draw_all(key: Key) -> PyTree:
            keys = jax.random.split(key, self.config.layers)
            if self.scan_layers:
                return jax.lax.map(draw, keys)
            return {str(i): draw(keys[i]) for i in range(self.config.layers)}

        return self.param("layers", draw_all)

    def _head(self, x: Float[Array, "n d"], key: Key | None) -> tuple[Float[Array, "n d"], Float[Array, "n c"]]:
        """Features (what the classifier reads) and logits; small, so always computed in at least float32."""
        config, dtype = self.config, wide(self.dtype)
        keys = jax.random.split(key, 2) if key is not None else (None, None)
        x = x.astype(dtype)
        if config.family == "roberta":
            x = dropout(x, config.head_dropout, keys[0])
        x = Dense(config.width, config.initializer_range, dtype, name="pooler")(x)
        features = jax.nn.relu(x) if config.family == "distilbert" else jnp.tanh(x)
        x = dropout(features, config.head_dropout, keys[1])
        return features, Dense(self.num_classes, config.initializer_range, dtype, name="classifier")(x)


@functools.partial(jax.jit, static_argnums=0)
def init_params(encoder: Encoder, key: Key) -> PyTree:
    """Random parameters: weights from N(0, initializer_range), biases 0, normalisation the identity."""
    return encoder.init(key, Batch(token_ids=jnp.zeros((1, 2), jnp.int32)))["params"]


def stack_layers(params: dict) -> dict:
    """From one dict a layer to one dict whose leaves have the layers along axis 0; the identity if already so."""
    layers = params["layers"]
    if "0" not in layers:
        return params
    ordered = [layers[str(i)] for i in range(len(layers))]
    return params | {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *ordered)}


def unstack_layers(params: dict) -> dict:
    """Undo `stack_layers`; the identity if there is one dict a layer already."""
    layers = params["layers"]
    if "0" in layers:
        return params
    depth = jax.tree.leaves(layers)[0].shape[0]
    return params | {"layers": {str(i): jax.tree.map(lambda a, i=i: a[i], layers) for i in range(depth)}}


def _check(batch: Batch, attention: str, config: EncoderConfig) -> int:
    """Number of rows of the batch; errors for what the encoder cannot do."""
    if (batch.token_ids is None) == (batch.embeddings is None):
        raise UserError("encoder: a batch needs token_ids or embeddings, and not both")
    if attention not in ("none", "cls", "all"):
        raise UserError(f"encoder: attention {attention!r} is unknown; expected one of none, cls, all")
    shape = jnp.shape(batch.token_ids if batch.embeddings is None else batch.embeddings)
    if batch.segments is not None:
        if attention != "none":
            raise UserError(f"encoder: attention {attention!r} of a packed batch is not defined; use an unpacked one")
        if batch.starts is None or batch.positions is None:
            raise UserError("encoder: a packed batch (with segments) needs starts and positions")
    elif batch.positions is None and shape[1] > config.max_length:
        raise UserError(
            f"encoder: rows of {shape[1]} positions are longer than the model's {config.max_length}; "
            "truncate the texts or choose a shorter sequence length"
        )
    return shape[0]
