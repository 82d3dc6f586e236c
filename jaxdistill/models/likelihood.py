"""How likely a decoder finds given texts, token by token."""

from __future__ import annotations

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, PyTree
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.layers import wide


class TokenScores(NamedTuple):
    """Log-probabilities of tokens given those before them.

    Attributes:
      log_probabilities: natural logarithms, at least float32; 0 where nothing is scored.
      scored: True for tokens with a token before them in their row or segment.
    """

    log_probabilities: Float[Array, "r l"]
    scored: Bool[Array, "r l"]


def token_log_probabilities(
    decoder: Decoder, params: PyTree, batch: Batch, *, chunk: int = 128, key: Key | None = None
) -> TokenScores:
    """Log-probability of every token after the first, in the tokens' own places.

    Logits are made for `chunk` positions at a time and made anew in the backward pass, so that memory holds
    r * chunk * v of them and never r * l * v; with l - 1 <= chunk they are made in one piece, and still not kept.
    Differentiable in `params`, in reverse and forward mode.

    Args:
      decoder: static.
      params: of the decoder.
      batch: token ids; padded on either side, or packed.
      chunk: positions whose logits are in memory at once.
      key: of dropout; without it there is none.

    Raises:
      UserError: no token ids, a chunk below 1, or see `Decoder.states`.
    """
    if batch.token_ids is None:
        raise UserError("likelihood: the batch has no token_ids to score")
    if chunk < 1:
        raise UserError(f"likelihood: chunk is {chunk}; it must be at least 1")
    ids = batch.token_ids
    rows, length = ids.shape
    scored = _scored(batch)
    if length == 1:
        return TokenScores(jnp.zeros((rows, 1), wide(decoder.dtype)), scored)
    hidden, _ = decoder.apply({"params": params}, batch, key=key, method="states")

    @jax.checkpoint
    def score(piece: tuple[Float[Array, "r k d"], Int[Array, "r k"]]) -> Float[Array, "r k"]:
        states, targets = piece
        flat = states.reshape(-1, states.shape[-1])
        logits = cast(Array, decoder.apply({"params": params}, flat, method="logits"))
        # A masked sum, unlike a lookup, has no scatter in its gradient, and may be cut along the vocabulary.
        chosen = jnp.arange(logits.shape[1], dtype=targets.dtype)[None] == targets.reshape(-1, 1)
        target = jnp.sum(jnp.where(chosen, logits, 0.0), axis=-1)
        return (target - jax.nn.logsumexp(logits, axis=-1)).reshape(targets.shape)

    states, targets = hidden[:, :-1], ids[:, 1:]
    if length - 1 <= chunk:
        values = score((states, targets))
    else:
        missing = -(length - 1) % chunk

        def cut(x: Array) -> Array:
            x = jnp.pad(x, ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2))
            return jnp.moveaxis(x.reshape(rows, -1, chunk, *x.shape[2:]), 1, 0)

        values = jnp.moveaxis(jax.lax.map(score, (cut(states), cut(targets))), 0, 1)
        values = values.reshape(rows, -1)[:, : length - 1]
    values = jnp.pad(values, ((0, 0), (1, 0)))
    return TokenScores(jnp.where(scored, values, 0.0), scored)


def sequence_log_likelihood(
    decoder: Decoder, params: PyTree, batch: Batch, *, chunk: int = 128, key: Key | None = None
) -> Float[Array, " r"]:
    """Log-probability of each row given its first token: the sum of `token_log_probabilities`."""
    return jnp.sum(token_log_probabilities(decoder, params, batch, chunk=chunk, key=key).log_probabilities, axis=1)


def _scored(batch: Batch) -> Bool[Array, "r l"]:
    """Tokens whose left neighbour is a token of the same row or segment."""
    assert batch.token_ids is not None
    present = jnp.ones(batch.token_ids.shape, bool) if batch.mask is None else batch.mask
    together = present[:, 1:] & present[:, :-1]
    if batch.segments is not None:
        together = together & (batch.segments[:, 1:] == batch.segments[:, :-1]) & (batch.segments[:, 1:] > 0)
    return jnp.pad(together, ((0, 0), (1, 0)))
