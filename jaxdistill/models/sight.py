"""What a token of a decoder sees: positions, rotary angles, and the bias of every key it may attend to."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.types import Batch, pytree
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.first_tokens import MASKED
from jaxdistill.models.kv_cache import Cache


@pytree
class Sight:
    """What all layers need to know of the positions of a batch. Leading axes may be 1 where all rows are alike.

    Attributes:
      own: added to the scores of the batch's own keys: 0 (or the ALiBi bias) in sight, about -1e9 out of sight. The
        heads are two axes, key-value heads and the query heads of each; both are 1 where all heads are alike.
      cached: the same for the t slots of a cache; `None` without one.
      rotation: cosines and sines of the rotary angles of each position; `None` without rotation.
    """

    own: Float[Array, "#r #h #g #l l"]
    cached: Float[Array, "#r #h #g 1 t"] | None
    rotation: tuple[Float[Array, "#r l e"], Float[Array, "#r l e"]] | None


def see(config: DecoderConfig, batch: Batch, cache: Cache | None, dtype: jnp.dtype) -> tuple[Int[Array, "#r l"], Sight]:
    """Positions of the tokens of a batch, and what they see.

    Positions are those of the batch, else they count the tokens before: in the row, without its padding; in the
    segment; after what the cache holds.

    Args:
      config: of the decoder.
      batch: `mask`, `positions` and `segments` are read, and the shape of the inputs.
      cache: keys that all tokens of their row see; not with `positions` or `segments`.
      dtype: of the biases and angles.
    """
    rows, length = (batch.embeddings if batch.token_ids is None else batch.token_ids).shape[:2]
    present = batch.mask
    seen = jnp.tril(jnp.ones((length, length), bool))[None]
    if batch.segments is not None:
        inside = batch.segments > 0
        present = inside if present is None else inside & present
        seen = seen & (batch.segments[:, :, None] == batch.segments[:, None, :])
    if present is not None:
        seen = seen & present[:, None, :]
    positions = batch.positions
    if positions is None:
        positions = jnp.arange(length, dtype=jnp.int32)[None]
        if batch.segments is not None:
            positions = jnp.sum(seen, axis=-1, dtype=jnp.int32) - 1
        elif present is not None:
            positions = jnp.cumsum(present, axis=-1, dtype=jnp.int32) - 1
        positions = jnp.maximum(positions, 0)
        if cache is not None:
            positions = positions + cache.next_position[:, None]
    cached = None
    if cache is not None:
        slots = jnp.maximum(jnp.cumsum(cache.filled, axis=-1, dtype=jnp.int32) - 1, 0)
        cached = _bias(config, cache.filled[:, None, :], slots, dtype)
    rotation = rotary_angles(config, positions, dtype) if config.positions_by == "rotation" else None
    return positions, Sight(_bias(config, seen, positions, dtype), cached, rotation)


def _bias(
    config: DecoderConfig, seen: Bool[Array, "#r q l"], positions: Int[Array, "#r l"], dtype: jnp.dtype
) -> Float[Array, "#r #h #g q l"]:
    """Bias of keys at these positions, for queries that see these keys."""
    bias = jnp.zeros((1, 1, 1, 1, 1), dtype)
    if config.positions_by == "alibi":
        slopes = alibi_slopes(config.heads).reshape(1, config.kv_heads, config.group, 1, 1)
        # Checkpoints were trained with slopes, positions and biases all rounded to bfloat16. `reduce_precision` rounds
        # for certain, where XLA may leave out a pair of conversions.
        factors = (jnp.asarray(slopes, jnp.float32), positions[:, None, None, None, :].astype(jnp.float32))
        rounded = [jax.lax.reduce_precision(x, 8, 7) for x in factors]
        bias = jax.lax.reduce_precision(rounded[0] * rounded[1], 8, 7).astype(dtype) * config.head_width**-0.5
    return jnp.where(seen[:, None, None], bias, jnp.asarray(MASKED, dtype).reshape(1, 1, 1, 1, 1))


def alibi_slopes(heads: int) -> np.ndarray:
    """Slope of each head: powers of 2^(-8/n) for n = 2^k heads; heads beyond the last power of two take the odd powers
    of the next finer sequence (Press, Smith and Lewis, "Train short, test long", 2022)."""
    whole = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / whole) for i in range(whole)]
    slopes += [2.0 ** (-8.0 * (2 * i + 1) / (2 * whole)) for i in range(heads - whole)]
    return np.asarray(slopes, np.float32)


def rotary_frequencies(config: DecoderConfig) -> np.ndarray:
    """Angle per position of each pair of rotated features, in float32 as checkpoints were trained with."""
    width, scaling = config.rotary_width, config.rotary_scaling
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    plain = (1.0 / np.float32(config.rotary_base) ** exponents).astype(np.float32)
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return (plain / scaling.factor).astype(np.float32)
    # How often each wave fits into the original length decides: often, leave it; rarely, stretch it.
    fits = scaling.original_positions * plain / (2 * np.pi)
    share = np.clip((fits - scaling.low) / (scaling.high - scaling.low), 0.0, 1.0)
    return ((1 - share) * plain / scaling.factor + share * plain).astype(np.float32)


def rotary_angles(
    config: DecoderConfig, positions: Int[Array, "#r l"], dtype: jnp.dtype
) -> tuple[Float[Array, "#r l e"], Float[Array, "#r l e"]]:
    """Cosines and sines for half the rotated features (the other half has the same)."""
    frequencies = jnp.asarray(rotary_frequencies(config)).astype(dtype)
    angles = positions[:, :, None].astype(dtype) * frequencies[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "r l h e"], rotation: tuple[Float[Array, "#r l f"], Float[Array, "#r l f"]]
) -> Float[Array, "r l h e"]:
    """Rotate the pairs (i, i + f) of the first 2f features of each head (Su et al., "RoFormer", 2021); the rest of
    the features passes."""
    cosine, sine = (part[:, :, None] for part in rotation)
    half = cosine.shape[-1]
    wide = x.astype(cosine.dtype)
    first, second, rest = wide[..., :half], wide[..., half : 2 * half], x[..., 2 * half :]
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return jnp.concatenate([turned.astype(x.dtype), rest], axis=-1)
