"""A decoder run token by token: pure functions of parameters and cache, for use inside `lax.scan`.

    logits, cache = prefill(decoder, params, prompts, mask, length=prompts.shape[1] + new)
    logits, cache = step(decoder, params, token, cache)          # as often as there are new tokens

`step` is `peek` followed by `append`. A second model that shall read the first one's keys and values, and keep none of
its own, is run by `peek` alone, on the first one's cache before the step: it then sees the first model's keys and
values at all earlier positions, and its own at the present one.
"""

from __future__ import annotations

from typing import cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, PyTree
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.kv_cache import Cache, KeyValues, append, empty_cache


def prefill(
    decoder: Decoder,
    params: PyTree,
    token_ids: Int[Array, "r l"],
    mask: Bool[Array, "r l"] | None = None,
    *,
    length: int,
) -> tuple[Float[Array, "r v"], Cache]:
    """Read prompts.

    Args:
      decoder: static.
      params: of the decoder.
      token_ids: prompts, padded to one length on either side.
      mask: True where there is a token, at least one in each row; `None` when every position holds one.
      length: slots of the cache: the l of the prompts plus as many as will be stepped.

    Returns:
      Logits of the token after each prompt, at least float32, and the cache.

    Raises:
      UserError: a cache shorter than the prompts or longer than what the model can read.
    """
    rows, prompt = token_ids.shape
    if not prompt <= length <= decoder.config.positions:
        raise UserError(
            f"prefill: a cache of {length} slots; expected at least the {prompt} of the prompts and at most the "
            f"{decoder.config.positions} positions of the model"
        )
    batch = Batch(token_ids=token_ids, mask=mask)
    hidden, own = decoder.apply({"params": params}, batch, keep=True, method="states")
    if mask is None:
        last = hidden[:, -1]
    else:
        index = prompt - 1 - jnp.argmax(mask[:, ::-1], axis=1)
        last = jnp.take_along_axis(hidden, index[:, None, None], axis=1)[:, 0]
    logits = cast(Array, decoder.apply({"params": params}, last, method="logits"))
    cache = append(empty_cache(decoder.config, rows, length, decoder.dtype), own, mask)
    return logits, cache


def peek(
    decoder: Decoder, params: PyTree, tokens: Int[Array, " r"], cache: Cache
) -> tuple[Float[Array, "r v"], KeyValues]:
    """Read one token a row without writing it down.

    Args:
      decoder: static.
      params: of the decoder.
      tokens: the next token of each row.
      cache: what came before: of this decoder, or of another one with equally many layers, key-value heads and
        features a head.

    Returns:
      Logits of the token after, at least float32 (NaN when the cache has no slot left for these tokens), and the keys
      and values of the tokens for `append`.
    """
    batch = Batch(token_ids=tokens[:, None])
    hidden, own = decoder.apply({"params": params}, batch, cache=cache, keep=True, method="states")
    logits = cast(Array, decoder.apply({"params": params}, hidden[:, 0], method="logits"))
    room = cache.slot < cache.filled.shape[1]
    return jnp.where(room, logits, jnp.nan), own


def step(
    decoder: Decoder,
    params: PyTree,
    tokens: Int[Array, " r"],
    cache: Cache,
    mask: Bool[Array, " r"] | None = None,
) -> tuple[Float[Array, "r v"], Cache]:
    """Read one token a row and add it to the cache.

    Args:
      decoder, params, tokens, cache: see `peek`.
      mask: False for rows that have ended: their token is not kept and takes no position.

    Returns:
      Logits of the token after, see `peek`, and the longer cache.
    """
    logits, own = peek(decoder, params, tokens, cache)
    return logits, append(cache, own, None if mask is None else mask[:, None])
