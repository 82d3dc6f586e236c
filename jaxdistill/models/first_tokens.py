"""Where the first ([CLS]) token of each example is, so that the last layer need compute nothing else."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdistill.core.types import Batch

# Added to the score of a key that must not be seen: exp of it is exactly 0 beside any real score, yet it is finite,
# so a row of pure padding yields numbers (a uniform distribution) in value and in every derivative.
MASKED = -1e9


class FirstTokens(NamedTuple):
    """Index arrays between the n examples, the r*l positions and the r*s query slots of the last layer.

    Unpacked batches need none of them (example i is row i, its first token is position 0, s = 1): all are `None`,
    and slices replace the gathers, whose backward pass would be scatters.

    Packed, segment number j of a row has slot j-1 of that row: keys and values stay where they are, and only the
    n queries are moved beside them. s = min(n, l), so this never costs more than attention of the whole rows.

    Attributes:
      tokens: index of each example's first token among the r*l positions.
      slots: index of each example among the r*s slots.
      examples: index of the example in each slot; empty slots repeat example 0, whose result nobody reads.
    """

    tokens: Int[Array, " n"] | None = None
    slots: Int[Array, " n"] | None = None
    examples: Int[Array, "r s"] | None = None

    def select(self, hidden: Float[Array, "m d"], rows: int) -> Float[Array, "n d"]:
        """Hidden states of the first tokens, out of those of all r*l positions."""
        if self.tokens is None:
            return hidden.reshape(rows, -1, hidden.shape[-1])[:, 0]
        return hidden[self.tokens]

    def to_slots(self, queries: Float[Array, "n d"]) -> Float[Array, "r s d"]:
        """Put each example's vector in its slot."""
        return queries[:, None] if self.examples is None else queries[self.examples]

    def from_slots(self, context: Float[Array, "r s d"]) -> Float[Array, "n d"]:
        """Undo `to_slots`."""
        return context[:, 0] if self.slots is None else context.reshape(-1, context.shape[-1])[self.slots]


def first_tokens(batch: Batch) -> FirstTokens:
    """Index arrays of a batch."""
    if batch.segments is None or batch.starts is None:
        return FirstTokens()
    rows, length = batch.segments.shape
    count = batch.starts.shape[0]
    width = min(count, length)
    segment = batch.segments.reshape(-1)[batch.starts]
    slots = batch.starts // length * width + jnp.maximum(segment - 1, 0)
    # Filler examples all start at token 0 and so share one slot with an example that starts there: same query, same
    # result, whichever of them the slot holds.
    examples = jnp.zeros(rows * width, jnp.int32).at[slots].set(jnp.arange(count, dtype=jnp.int32))
    return FirstTokens(batch.starts, slots, examples.reshape(rows, width))


def attention_bias(batch: Batch, dtype) -> Float[Array, "r 1 #q l"] | None:
    """What to add to the attention scores of whole rows: 0 for keys in sight, `MASKED` for the others."""
    if batch.segments is not None:
        seen = batch.segments[:, None, :, None] == batch.segments[:, None, None, :]
    elif batch.mask is not None:
        seen = batch.mask[:, None, None, :]
    else:
        return None
    return jnp.where(seen, 0.0, MASKED).astype(dtype)


def first_token_bias(batch: Batch, first: FirstTokens, dtype) -> Float[Array, "r 1 #s l"] | None:
    """The same for the query slots of the last layer."""
    if batch.segments is None or first.examples is None:
        return attention_bias(batch, dtype)
    numbers = 1 + jnp.arange(first.examples.shape[1], dtype=batch.segments.dtype)
    seen = numbers[None, None, :, None] == batch.segments[:, None, None, :]
    return jnp.where(seen, 0.0, MASKED).astype(dtype)


def mean_over_tokens(hidden: Float[Array, "m d"], batch: Batch) -> Float[Array, "n d"]:
    """Mean of the hidden states of each example's tokens."""
    tokens = batch.token_ids if batch.embeddings is None else batch.embeddings
    rows, length = tokens.shape[:2]
    if batch.segments is None:
        states = hidden.reshape(rows, length, -1)
        seen = jnp.ones((rows, length), hidden.dtype) if batch.mask is None else batch.mask.astype(hidden.dtype)
        total = jnp.sum(states * seen[:, :, None], axis=1)
        return total / jnp.maximum(jnp.sum(seen, axis=1), 1.0)[:, None]
    # Number the examples of the whole batch by (row, segment); padding is segment 0 of its row.
    width = length + 1
    numbers = (jnp.arange(rows)[:, None] * width + batch.segments).reshape(-1)
    total = jax.ops.segment_sum(hidden, numbers, rows * width)
    count = jax.ops.segment_sum(jnp.ones_like(hidden[:, :1]), numbers, rows * width)
    mine = numbers[batch.starts]
    return total[mine] / count[mine]
