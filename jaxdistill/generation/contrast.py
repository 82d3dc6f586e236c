"""Contrastive decoding: what a base model finds likelier than an expert does (Li et al., "Contrastive decoding", ACL
2023; Lu et al., "UniDetox", ICLR 2025, section 3)."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.generation.scorers import Model
from jaxdistill.models import decoding
from jaxdistill.models.kv_cache import Cache, append


class Pair(NamedTuple):
    """The same of both models: parameters, logits or states. The expert's state is `None` with a shared cache."""

    base: PyTree
    expert: PyTree


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Two language models as one scorer; its parameters are a `Pair` of theirs.

    The score of a token is log p_base - log p_expert, as published, or (1 + beta) log p_base - beta log p_expert with a
    finite beta (the former is the limit of the latter divided by beta). Only plausible tokens have one: those allowed
    whose p_base is at least alpha times the greatest p_base of an allowed token. The expert has no say in that.

    Attributes:
      base, expert: with the same vocabulary.
      alpha: in (0, 1]; 1 leaves only the most likely tokens of the base model.
      beta: at least 0; at 0 the base model alone is drawn from.
      shared_cache: after the prompt, which it reads alone, the expert sees the base model's keys and values of all
        earlier tokens and its own of the last one. So its answers after the first new token are not the expert's: a
        mode for comparison with texts that were published so. Both models need caches of the same sizes.

    Raises:
      UserError: a value out of range, different vocabularies, caches that cannot be shared.
    """

    base: Model
    expert: Model
    alpha: float = 0.1
    beta: float = math.inf
    shared_cache: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha <= 1.0:
            raise _error(f"alpha is {self.alpha}; it must lie in (0, 1]")
        if not self.beta >= 0.0:
            raise _error(f"beta is {self.beta}; it must be at least 0, or inf for the plain difference")
        if self.base.vocabulary != self.expert.vocabulary:
            raise _error(
                f"vocabularies of {self.base.vocabulary} (base) and {self.expert.vocabulary} (expert) tokens; "
                "both models must have the same one"
            )
        if self.shared_cache:
            sizes = [_cache_sizes(model) for model in (self.base, self.expert)]
            if sizes[0] != sizes[1] or not (self.base.cached and self.expert.cached):
                raise _error(
                    f"a shared cache of (layers, key-value heads, head width) {sizes[0]} (base) and {sizes[1]} "
                    "(expert); both models must have a cache of the same sizes"
                )

    @property
    def vocabulary(self) -> int:
        return self.base.vocabulary

    @property
    def positions(self) -> int:
        return min(self.base.positions, self.expert.positions)

    def start(
        self, params: Pair, token_ids: Int[Array, "r l"], mask: Bool[Array, "r l"], *, length: int
    ) -> tuple[Pair, Pair]:
        logits, state = self.base.start(params.base, token_ids, mask, length=length)
        theirs, their_state = self.expert.start(params.expert, token_ids, mask, length=length)
        return Pair(logits, theirs), Pair(state, None if self.shared_cache else their_state)

    def advance(
        self, params: Pair, tokens: Int[Array, " r"], state: Pair, mask: Bool[Array, " r"]
    ) -> tuple[Pair, Pair]:
        if self.shared_cache:
            cache = cast(Cache, state.base)
            logits, own = decoding.peek(self.base.decoder, params.base, tokens, cache)
            theirs, _ = decoding.peek(self.expert.decoder, params.expert, tokens, cache)
            return Pair(logits, theirs), Pair(append(cache, own, mask[:, None]), None)
        logits, base = self.base.advance(params.base, tokens, state.base, mask)
        theirs, expert = self.expert.advance(params.expert, tokens, state.expert, mask)
        return Pair(logits, theirs), Pair(base, expert)

    def scores(self, logits: Pair, allowed: Bool[Array, "#r v"]) -> Float[Array, "r v"]:
        return contrastive_scores(
            self.base.log_probabilities(logits.base),
            self.expert.log_probabilities(logits.expert),
            alpha=self.alpha,
            beta=self.beta,
            allowed=allowed,
        )

    def log_probabilities(self, logits: Pair) -> Float[Array, "r v"]:
        """The base model's."""
        return self.base.log_probabilities(logits.base)


def contrastive_scores(
    base: Float[Array, "r v"],
    expert: Float[Array, "r v"],
    *,
    alpha: float,
    beta: float = math.inf,
    allowed: Bool[Array, "#r v"] | None = None,
) -> Float[Array, "r v"]:
    """Scores of plausible tokens, -inf elsewhere; see `Contrast`.

    Args:
      base, expert: log-probabilities, or logits: they differ by a constant of the row, and so do the scores then.
      alpha, beta: see `Contrast`.
      allowed: tokens that are not banned; `None` for all.
    """
    allowed = jnp.ones((1, base.shape[1]), bool) if allowed is None else allowed
    greatest = jnp.max(base, axis=-1, keepdims=True, initial=-jnp.inf, where=allowed)
    plausible = allowed & (base >= greatest + math.log(alpha))
    scores = base - expert if math.isinf(beta) else (1.0 + beta) * base - beta * expert
    return jnp.where(plausible, scores, -jnp.inf)


def _cache_sizes(model: Model) -> tuple[int, int, int]:
    config = model.decoder.config
    return config.layers, config.kv_heads, config.head_width


def _error(text: str) -> UserError:
    return UserError(f"contrast: {text}")
