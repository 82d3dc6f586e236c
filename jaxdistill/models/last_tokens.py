"""The last token of each example, which classifiers on decoders and XLNet read."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.types import Batch


def last_states(hidden: Float[Array, "m d"], batch: Batch) -> Float[Array, "n d"]:
    """Hidden states of the last token of each example, out of those of all r*l positions.

    Unpacked, that is the last position of a row that its mask has; rows without a token (fillers) give their last
    position. Packed, it is the last position of the example's segment.
    """
    if batch.segments is not None and batch.starts is not None:
        length = batch.segments.shape[1]
        own = batch.segments.reshape(-1)[batch.starts]
        size = jnp.sum(batch.segments[batch.starts // length] == own[:, None], axis=1, dtype=batch.starts.dtype)
        return hidden[batch.starts + size - 1]
    tokens = batch.token_ids if batch.embeddings is None else batch.embeddings
    assert tokens is not None  # the network has checked
    rows, length = tokens.shape[:2]
    states = hidden.reshape(rows, length, -1)
    if batch.mask is None:
        return states[:, -1]
    last = length - 1 - jnp.argmax(batch.mask[:, ::-1], axis=1)
    # A masked sum, unlike a lookup, has no scatter in its gradient.
    chosen = jnp.arange(length)[None] == last[:, None]
    return jnp.sum(jnp.where(chosen[:, :, None], states, jnp.zeros((), states.dtype)), axis=1)
