"""One Flax module for GPT-2, OPT, Llama, Phi and Falcon as causal language models.

Parameters are a nested dict, parts that a config has not left out::

    embeddings / word, position / table,  embeddings / project / kernel
    layers / "0", "1", ... / {query, key, value, output, expand, gate, contract} / {kernel, bias}
                           / {attention_norm, norm} / {scale, bias}
    head / norm / {scale, bias},  head / project / kernel,  head / {kernel, bias}

With `scan_layers` the layers are one dict whose leaves stack all k layers along axis 0 (`models.encoder.stack_layers`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, PyTree
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.decoder_layers import DecoderEmbeddings, DecoderHead, DecoderLayer
from jaxdistill.models.kv_cache import Cache, KeyValues
from jaxdistill.models.layers import wide
from jaxdistill.models.sight import Sight, see


class Decoder(nn.Module):
    """A causal language model.

    Everything is plain XLA, so it can be differentiated in any mix of modes. A batch may be padded on either side
    (`mask`), packed (`segments`, of which none sees another), or follow on what a cache holds.

    Attributes:
      config: sizes and switches.
      dtype: what matrix products run in.
      scan_layers: run the layers by `lax.scan` over stacked parameters: the program, and so its compilation, no
        longer grows with the depth.
      remat_layers: recompute each layer in the backward pass; keeps one [r*l, d] array a layer instead of all of its
        activations, for about a third more time.
    """

    config: DecoderConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    scan_layers: bool = False
    remat_layers: bool = False

    def setup(self) -> None:
        self.embeddings = DecoderEmbeddings(self.config, self.dtype)
        self.head = DecoderHead(self.config, self.dtype)
        # Held as one tree so that the layers can be scanned over; there already, unless this is `init`.
        drawn = self.is_initializing()
        self.layers = self.param("layers", self._draw) if drawn else self.get_variable("params", "layers")

    def __call__(self, batch: Batch, *, cache: Cache | None = None, key: Key | None = None) -> Float[Array, "r l v"]:
        """Logits of the token after each position, at least float32; those at padding mean nothing.

        Args:
          batch: token ids or embeddings; `mask`, `positions` and `segments` are heeded, without positions they count
            the tokens of the row or segment.
          cache: what came before; all of it is seen, nothing is added to it.
          key: of dropout; without it there is none.

        Raises:
          UserError: see `states`.
        """
        hidden, _ = self.states(batch, cache=cache, key=key)
        rows, length, width = hidden.shape
        return self.logits(hidden.reshape(-1, width)).reshape(rows, length, -1)

    def states(
        self, batch: Batch, *, cache: Cache | None = None, keep: bool = False, key: Key | None = None
    ) -> tuple[Float[Array, "r l d"], KeyValues | None]:
        """Hidden states after the last layer, not yet normalised, for callers that need few of the logits.

        Args:
          batch, cache, key: see `__call__`.
          keep: whether to return the keys and values of the batch's tokens, for `kv_cache.append`.

        Raises:
          UserError: a batch with both or neither of token ids and embeddings, rows longer than the model can read,
            positions or segments beside a cache, or a cache of other sizes.
        """
        rows, length = _check(batch, cache, self.config)
        positions, sight = see(self.config, batch, cache, wide(self.dtype))
        keys = jax.random.split(key) if key is not None else (None, None)
        x = self.embeddings(batch, positions, keys[0])
        x, own = self._layers(x, sight, cache, rows, keep, keys[1])
        return x.reshape(rows, length, -1), own

    def logits(self, hidden: Float[Array, "m d"]) -> Float[Array, "m v"]:
        """Logits of hidden states of `states`, at least float32."""
        return self.head(hidden, self.embeddings.table())

    def features(self, hidden: Float[Array, "m d"]) -> Float[Array, "m e"]:
        """What the logits, or a classifier in their place, are made of: hidden states of `states`, normalised, and in
        OPT-350m projected."""
        return self.head(hidden, None)

    def _layers(
        self, x: Float[Array, "m d"], sight: Sight, cache: Cache | None, rows: int, keep: bool, key: Key | None
    ) -> tuple[Float[Array, "m d"], KeyValues | None]:
        config, depth = self.config, self.config.layers
        layer = DecoderLayer(config, self.dtype, parent=None)
        scales = config.head_width**-0.5 if config.scale_scores else 1.0
        scales = jnp.full(depth, scales, wide(self.dtype))
        if config.scale_by_layer:
            scales = scales / jnp.arange(1, depth + 1, dtype=scales.dtype)
        cached = None if cache is None else KeyValues(cache.keys, cache.values)
        keys = None if key is None else jax.random.split(key, depth)

        def run(x: Float[Array, "m d"], given: tuple) -> tuple[Float[Array, "m d"], KeyValues | None]:
            p, cached, scale, key = given
            x, own = layer.apply({"params": p}, x, sight, cached, scale, rows=rows, key=key)
            return x, own if keep else None

        run = jax.checkpoint(run) if self.remat_layers else run
        if self.scan_layers:
            return jax.lax.scan(run, x, (self.layers, cached, scales, keys))
        collected = []
        for i in range(depth):
            x, own = run(x, (self.layers[str(i)], *jax.tree.map(lambda a, i=i: a[i], (cached, scales, keys))))
            collected.append(own)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *collected) if keep else None

    def _draw(self, key: Key) -> PyTree:
        """Random parameters of all layers."""
        dtype = wide(self.dtype)
        layer = DecoderLayer(self.config, self.dtype, parent=None)
        _, sight = see(self.config, Batch(token_ids=jnp.zeros((1, 1), jnp.int32)), None, dtype)
        x, scale = jnp.zeros((1, self.config.width), self.dtype), jnp.ones((), dtype)

        def draw(key: Key) -> PyTree:
            return layer.init(key, x, sight, None, scale, rows=1)["params"]

        keys = jax.random.split(key, self.config.layers)
        if self.scan_layers:
            return jax.lax.map(draw, keys)
        return {str(i): draw(keys[i]) for i in range(self.config.layers)}


@functools.partial(jax.jit, static_argnums=0)
def init_decoder(decoder: Decoder, key: Key) -> PyTree:
    """Random parameters: weights from N(0, initializer_range), biases 0, normalisation the identity."""
    return decoder.init(key, Batch(token_ids=jnp.zeros((1, 1), jnp.int32)))["params"]


def _check(batch: Batch, cache: Cache | None, config: DecoderConfig) -> tuple[int, int]:
    """Rows and length of the batch; errors for what the decoder cannot do."""
    if (batch.token_ids is None) == (batch.embeddings is None):
        raise UserError("decoder: a batch needs token_ids or embeddings, and not both")
    inputs: Any = batch.embeddings if batch.token_ids is None else batch.token_ids
    rows, length = inputs.shape[:2]
    if batch.embeddings is not None and inputs.shape[2] != config.embedding_width:
        raise UserError(f"decoder: embeddings of {inputs.shape[2]} features; the model's have {config.embedding_width}")
    if length > config.positions and batch.segments is None and batch.positions is None:
        raise UserError(
            f"decoder: rows of {length} positions are longer than the model's {config.positions}; "
            "truncate the texts or choose a shorter sequence length"
        )
    if cache is not None:
        if batch.segments is not None or batch.positions is not None:
            raise UserError("decoder: a batch that follows on a cache takes neither segments nor positions")
        expected = (config.layers, rows, config.kv_heads, config.head_width)
        found = (*cache.keys.shape[:3], cache.keys.shape[4])
        if found != expected:
            raise UserError(
                f"decoder: a cache of (layers, rows, key-value heads, head width) {found} for a model and batch of "
                f"{expected}; expected the same"
            )
    return rows, length
