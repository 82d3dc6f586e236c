"""Texts of an encoder-decoder by beam search, of which greedy decoding is the case of one beam."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree, pytree
from jaxdistill.models.t5 import T5Cache

Step = Callable[[PyTree, Int[Array, " r"], T5Cache], tuple[Float[Array, "r v"], T5Cache]]


@pytree
class Beams:
    """The most likely texts that were found for each row, best first.

    Attributes:
      token_ids: end token and, behind it, padding included.
      lengths: tokens before the end token.
      scores: log-probability of each text, end token included where there is one.
    """

    token_ids: Int[Array, "r m t"]
    lengths: Int[Array, "r m"]
    scores: Float[Array, "r m"]


@functools.partial(jax.jit, static_argnames=("step", "beams", "length", "start", "end", "padding"))
def beam_search(
    step: Step,
    params: PyTree,
    cache: T5Cache,
    *,
    beams: int,
    length: int,
    start: int,
    end: int,
    padding: int,
) -> Beams:
    """Search texts of at least one token and of at most `length`, the end token included.

    All that a text needs is what a row's cache remembers, so rows do not touch one another. No length penalty. Beams of
    one row never hold the same tokens.

    Args:
      step: static; `step(params, tokens, cache)` gives logits after one more token a row, and the cache with it.
      params: of the model.
      cache: of the r rows, empty, with `length` slots.
      beams: texts kept at each step.
      length: see above.
      start, end, padding: tokens.

    Raises:
      UserError: fewer than one beam or token.
    """
    if beams < 1 or length < 1:
        raise UserError(f"beam search: {beams} beams of {length} tokens; at least 1 of each is needed")
    rows = cache.memory_mask.shape[0]

    def choose(i: Int[Array, ""], logits: Array, state: tuple) -> tuple[Array, Array, tuple]:
        """Token i of the best continuations: who continues which beam, by what, and the texts with it."""
        token_ids, lengths, scores, done = state
        chances = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(rows, beams, -1)
        tokens = jnp.arange(chances.shape[-1])[None, None]
        chances = jnp.where((tokens == end) & (i == 0), -jnp.inf, chances)
        chances = jnp.where(tokens == padding, -jnp.inf, chances) if padding != end else chances
        # A text that has ended goes on by padding alone, at no cost.
        chances = jnp.where(done[..., None], jnp.where(tokens == padding, 0.0, -jnp.inf), chances)
        total = (scores[..., None] + chances).reshape(rows, -1)
        scores, place = jax.lax.top_k(total, beams)
        origin, token = place // chances.shape[-1], (place % chances.shape[-1]).astype(jnp.int32)
        pick = functools.partial(jnp.take_along_axis, indices=origin, axis=1)
        done, lengths = pick(done), pick(lengths)
        token_ids = jnp.take_along_axis(token_ids, origin[..., None], axis=1)
        token_ids = jax.lax.dynamic_update_slice_in_dim(token_ids, token[..., None], i, axis=2)
        ended = done | (token == end)
        return origin, token, (token_ids, lengths + (~ended).astype(jnp.int32), scores, ended)

    def body(i: Int[Array, ""], carry: tuple) -> tuple:
        logits, cache, state = carry
        origin, token, state = choose(i, logits, state)
        cache = _taken(cache, (jnp.arange(rows)[:, None] * beams + origin).reshape(-1))
        logits, cache = step(params, token.reshape(-1), cache)
        return logits, cache, state

    cache = _repeated(cache, beams)
    logits, cache = step(params, jnp.full(rows * beams, start, jnp.int32), cache)
    state = (
        jnp.full((rows, beams, length), padding, jnp.int32),
        jnp.zeros((rows, beams), jnp.int32),
        # At first all beams are the same: only one may go on.
        jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)[None].repeat(rows, axis=0),
        jnp.zeros((rows, beams), bool),
    )
    logits, _, state = jax.lax.fori_loop(0, length - 1, body, (logits, cache, state))
    _, _, (token_ids, lengths, scores, _) = choose(jnp.asarray(length - 1), logits, state)
    return Beams(token_ids, lengths, scores)


def _repeated(cache: T5Cache, times: int) -> T5Cache:
    """Each row `times` times in a row."""
    return _taken(cache, jnp.repeat(jnp.arange(cache.memory_mask.shape[0]), times), everything=True)


def _taken(cache: T5Cache, rows: Int[Array, " n"], *, everything: bool = False) -> T5Cache:
    """These rows of a cache; of what is the same for all beams of a row only where everything is asked for."""
    changes: dict[str, Any] = {name: getattr(cache, name)[:, rows] for name in ("keys", "values")}
    if everything:
        changes |= {name: getattr(cache, name)[:, rows] for name in ("memory_keys", "memory_values")}
        changes["memory_mask"] = cache.memory_mask[rows]
    return dataclasses.replace(cache, **changes)
