"""Which token comes next: bans, temperature, top-k, top-p and the draw. Scores are logarithms in float32."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, checked when made; static.

    The order is: bans, temperature, top-k, top-p, draw. Cut sets are of exact size: among equal scores the lower token
    ids are kept.

    Attributes:
      max_new: most tokens drawn for one text, a stop token included.
      min_new: tokens drawn before a stop token may be.
      temperature: divides the scores; 0 takes the most likely token (the lowest id among equal ones).
      top_k: only the k most likely tokens may be drawn; `None` for no limit.
      top_p: only the smallest set of most likely tokens that has this probability; 1 for no limit.
      banned: tokens that are never drawn.
      stop: tokens after which a text has ended.

    Raises:
      UserError: a value out of range.
    """

    max_new: int
    min_new: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    banned: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new < 1:
            raise _error(f"max_new is {self.max_new}; it must be at least 1")
        if not 0 <= self.min_new <= self.max_new:
            raise _error(f"min_new is {self.min_new}; it must lie between 0 and max_new, {self.max_new}")
        if not 0.0 <= self.temperature < float("inf"):
            raise _error(f"temperature is {self.temperature}; it must be at least 0 (0 takes the most likely token)")
        if self.top_k is not None and self.top_k < 1:
            raise _error(f"top_k is {self.top_k}; it must be at least 1, or None for no limit")
        if not 0.0 < self.top_p <= 1.0:
            raise _error(f"top_p is {self.top_p}; it must lie in (0, 1]")

    def check(self, vocabulary: int) -> None:
        """Raise a `UserError` when token ids are outside a vocabulary of this size, or nothing is left to draw."""
        for name in ("banned", "stop"):
            outside = [token for token in getattr(self, name) if not 0 <= token < vocabulary]
            if outside:
                raise _error(f"{name} token {outside[0]} is outside the vocabulary of {vocabulary} tokens")
        early = self.stop if self.min_new else ()
        if len({*self.banned, *early}) == vocabulary:
            raise _error(f"all {vocabulary} tokens of the vocabulary are banned; at least one must be allowed")


def allowed_tokens(sampling: Sampling, vocabulary: int, position: Int[Array, ""]) -> Bool[Array, "1 v"]:
    """Tokens that may be the one at `position` of the new ones, counted from 0."""
    early = position < sampling.min_new
    banned, stop = (jnp.asarray(token_set(tokens, vocabulary))[None] for tokens in (sampling.banned, sampling.stop))
    return ~banned & ~(stop & early.reshape(1, 1))


def token_set(tokens: tuple[int, ...], vocabulary: int) -> np.ndarray:
    """A set of tokens as one truth value a token, [v]."""
    members = np.zeros(vocabulary, bool)
    members[list(tokens)] = True
    return members


def cut(scores: Float[Array, "r v"], sampling: Sampling) -> Float[Array, "r v"]:
    """Scores at the given temperature, -inf for tokens outside top-k and top-p. The temperature must not be 0."""
    scores = scores / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scores.shape[1]:
        least = jax.lax.top_k(scores, sampling.top_k)[0][:, -1:]
        scores = _keep(scores, least, jnp.full((scores.shape[0], 1), sampling.top_k, jnp.int32))
    if sampling.top_p < 1.0:
        scores = _keep(scores, *_nucleus(scores, sampling.top_p))
    return scores


def draw(scores: Float[Array, "r v"], keys: Key, sampling: Sampling) -> Int[Array, " r"]:
    """One token a row, with a key a row.

    The random numbers of a row belong to token ids and not to ranks, so that a rounding error that swaps two almost
    equal scores changes nothing.
    """
    if sampling.temperature == 0.0:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(keys, cut(scores, sampling)).astype(jnp.int32)


def _nucleus(scores: Float[Array, "r v"], top_p: float) -> tuple[Float[Array, "r 1"], Int[Array, "r 1"]]:
    """The least score of the smallest set of most likely tokens that has probability `top_p`, and the set's size.

    The score is found bit by bit, in 32 sums over the vocabulary: on a CPU a twentieth of the time of sorting it.
    """
    probabilities = jax.nn.softmax(scores, axis=-1)
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    order = jnp.where(bits >= sign, ~bits, bits | sign)  # whole numbers that rise with the score

    def add_bit(i: Int[Array, ""], least: Array) -> Array:
        higher = least | (sign >> i.astype(jnp.uint32))
        mass = jnp.sum(jnp.where(order >= higher, probabilities, 0.0), axis=-1, keepdims=True)
        return jnp.where(mass >= top_p, higher, least)

    found = jax.lax.fori_loop(0, 32, add_bit, jnp.zeros((scores.shape[0], 1), jnp.uint32))
    least = jnp.min(jnp.where(order >= found, scores, jnp.inf), axis=-1, keepdims=True)
    above = scores > least
    mass = jnp.sum(jnp.where(above, probabilities, 0.0), axis=-1, keepdims=True)
    each = jnp.max(jnp.where(scores == least, probabilities, 0.0), axis=-1, keepdims=True)
    # Of equally likely tokens at the edge as many as are needed, one at least.
    equal = jnp.maximum(jnp.ceil((top_p - mass) / jnp.maximum(each, jnp.finfo(each.dtype).tiny)), 1.0)
    equal = jnp.minimum(equal, scores.shape[1]).astype(jnp.int32)
    return least, jnp.sum(above, axis=-1, keepdims=True, dtype=jnp.int32) + equal


def _keep(scores: Float[Array, "r v"], least: Float[Array, "r 1"], count: Int[Array, "r 1"]) -> Float[Array, "r v"]:
    """The `count` greatest scores, the last of which is `least`; -inf elsewhere."""
    above, equal = scores > least, scores == least
    left = count - jnp.sum(above, axis=-1, keepdims=True, dtype=jnp.int32)
    kept = above | (equal & (jnp.cumsum(equal, axis=-1, dtype=jnp.int32) <= left))
    return jnp.where(kept, scores, -jnp.inf)


def _error(text: str) -> UserError:
    return UserError(f"sampling: {text}")
