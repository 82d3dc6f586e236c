"""The likelihood of texts, as an objective of the loop that learns distilled sets too."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.types import Key, Objective, PyTree
from jaxdistill.data.language_batches import LanguageBatch
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.likelihood import token_log_probabilities


def language_modelling(
    decoder: Decoder,
    params_of: Callable[[PyTree, PyTree], PyTree],
    *,
    dropout: bool = False,
    chunk: int = 128,
) -> Objective:
    """Objective: weighted sum of the negative log-likelihoods of the tokens of a `LanguageBatch`.

    The weights sum over all micro-batches of a batch, so the loss of one is its part of the whole. There is no state.
    Metrics: "token_loss", the mean over real tokens (in a micro-batch its part), and "tokens", their number.

    Args:
      decoder: static.
      params_of: `params_of(learned, constants)` is the decoder's parameters; differentiated in the first.
      dropout: whether the decoder's own rates are used.
      chunk: positions whose logits are in memory at once.
    """

    def objective(
        learned: PyTree, state: PyTree, constants: PyTree, real_batch: LanguageBatch, key: Key
    ) -> tuple[Float[Array, ""], tuple[PyTree, dict[str, Array]]]:
        params = params_of(learned, constants)
        options = {"chunk": chunk, "key": key if dropout else None}
        losses = -token_log_probabilities(decoder, params, real_batch.batch, **options).log_probabilities
        metrics = {
            "token_loss": jnp.sum(real_batch.shares.astype(losses.dtype) * losses),
            "tokens": jnp.sum(real_batch.shares > 0).astype(jnp.float32),
        }
        return jnp.sum(real_batch.weights.astype(losses.dtype) * losses), (state, metrics)

    return objective
