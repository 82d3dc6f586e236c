"""From vectors to a text that a language model finds likely: at each position one of the tokens nearest to its vector.

Source: GRADMM (Nguyen et al., ICML 2025), whose projection this is, with a cache of keys and values.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdistill.core.types import Key, PyTree
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.decode import Candidates, decode
from jaxdistill.generation.scorers import Scorer

# Similarities in memory at once.
_AT_ONCE = 64_000_000


def nearest_tokens(
    vectors: Float[Array, "n t e"], table: Float[Array, "v e"], allowed: Int[Array, " a"], count: int
) -> Int[Array, "n t k"]:
    """The `count` allowed tokens whose embeddings have the highest cosine to each vector, best first.

    Args:
      vectors: one a position.
      table: embeddings of all tokens.
      allowed: ids that may be chosen.
      count: k, at most a.
    """
    rows, length, width = vectors.shape
    chosen = table[allowed]
    directions = chosen / jnp.maximum(jnp.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)
    size = max(1, min(rows * length, _AT_ONCE // allowed.shape[0]))  # a vector's own length changes no order

    def best(some: Float[Array, "b e"]) -> Int[Array, "b k"]:
        return allowed[jax.lax.top_k(some @ directions.T, count)[1]]

    flat = vectors.reshape(-1, width)
    if size >= flat.shape[0]:
        return best(flat).reshape(rows, length, count)
    padded = jnp.pad(flat, ((0, -flat.shape[0] % size), (0, 0))).reshape(-1, size, width)
    return jax.lax.map(best, padded).reshape(-1, count)[: flat.shape[0]].reshape(rows, length, count)


def project(
    scorer: Scorer,
    params: PyTree,
    prefix: Int[Array, " l"],
    vectors: Float[Array, "n t e"],
    table: Float[Array, "v e"],
    allowed: Int[Array, " a"],
    count: int,
    key: Key,
    *,
    temperature: float = 0.0,
) -> Int[Array, "n t"]:
    """Read vectors as tokens, left to right: of the nearest ones at each position, what the language model says next.

    With one candidate the nearest tokens come out; with all of them the language model's own greedy text.

    Args:
      scorer: static; the language model.
      params: of the scorer.
      prefix: tokens that each text follows on, at least one; read once, not part of the result.
      vectors, table, allowed, count: see `nearest_tokens`.
      key: of the draws; without effect at temperature 0.
      temperature: 0 takes the most likely candidate, else one is drawn.
    """
    rows, length = vectors.shape[:2]
    nearest = nearest_tokens(vectors, table, allowed, count)
    sampling = Sampling(max_new=length, temperature=temperature)
    keys = jax.random.split(key, rows)[None]
    candidates = Candidates(nearest, jnp.ones(nearest.shape, bool))
    return decode(
        scorer, params, prefix[None], jnp.ones((1, prefix.shape[0]), bool), keys, sampling, candidates
    ).token_ids
