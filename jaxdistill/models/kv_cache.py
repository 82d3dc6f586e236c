"""Keys and values that a decoder has computed, kept in arrays of a fixed shape.

All rows write the same slot, so that a write is one `dynamic_update_slice`: after a prompt of l positions (padding
included) the next token of every row goes to slot l, the one after to slot l+1. Slots of padding stay empty for good;
what is in them is never seen. A cache therefore needs as many slots as the longest prompt plus the tokens to come, and
prompts of very different lengths are best padded on the left or sorted by length, as for any batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.types import pytree
from jaxdistill.models.decoder_config import DecoderConfig


@pytree
class KeyValues:
    """Keys (already rotated) and values: of one layer, or of all of them along a first axis k.

    Heads that several query heads share are held once.
    """

    keys: Float[Array, "*k r h l e"]
    values: Float[Array, "*k r h l e"]


@pytree
class Cache:
    """What was computed for the tokens so far; a pytree of static shapes, to be carried by `lax.scan` and donated.

    Attributes:
      keys, values: of all layers, rows, key-value heads and slots.
      filled: slots that hold a token of their row.
      next_position: position that the next token of each row has.
      slot: where the next token of all rows goes. Leave it unbatched under `vmap` (over several models, say): writes
        to slots of their own are scatters.
    """

    keys: Float[Array, "k r h t e"]
    values: Float[Array, "k r h t e"]
    filled: Bool[Array, "r t"]
    next_position: Int[Array, " r"]
    slot: Int[Array, ""]


def empty_cache(config: DecoderConfig, rows: int, length: int, dtype: jnp.dtype | str = "float32") -> Cache:
    """A cache of `length` empty slots: 2 * layers * rows * kv_heads * length * head_width numbers."""
    shape = (config.layers, rows, config.kv_heads, length, config.head_width)
    return Cache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        filled=jnp.zeros((rows, length), bool),
        next_position=jnp.zeros(rows, jnp.int32),
        slot=jnp.zeros((), jnp.int32),
    )


def append(cache: Cache, new: KeyValues, mask: Bool[Array, "r l"] | None = None) -> Cache:
    """Write the keys and values of l tokens a row into the next l slots.

    The slots have to be there: past the end, XLA would write over the last ones instead.

    Args:
      cache: to write to.
      new: of all layers, [k, r, h, l, e].
      mask: False for padding, whose slots stay empty and which takes no position.
    """
    rows, length = new.keys.shape[1], new.keys.shape[3]
    if mask is None:
        mask = jnp.ones((rows, length), bool)

    def write(kept: Float[Array, "k r h t e"], added: Float[Array, "k r h l e"]) -> Float[Array, "k r h t e"]:
        return jax.lax.dynamic_update_slice_in_dim(kept, added.astype(kept.dtype), cache.slot, axis=3)

    return Cache(
        keys=write(cache.keys, new.keys),
        values=write(cache.values, new.values),
        filled=jax.lax.dynamic_update_slice_in_dim(cache.filled, mask, cache.slot, axis=1),
        next_position=cache.next_position + jnp.sum(mask, axis=1, dtype=jnp.int32),
        slot=cache.slot + length,
    )


def repeat_rows(cache: Cache, times: int) -> Cache:
    """Each row `times` times in a row, for several continuations of one prompt."""
    return Cache(
        keys=jnp.repeat(cache.keys, times, axis=1),
        values=jnp.repeat(cache.values, times, axis=1),
        filled=jnp.repeat(cache.filled, times, axis=0),
        next_position=jnp.repeat(cache.next_position, times, axis=0),
        slot=cache.slot,
    )
