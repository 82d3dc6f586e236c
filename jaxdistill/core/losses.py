"""Losses of one forward pass: functions of (outputs, labels), never of a model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def weighted_mean(values: Float[Array, " n"], weights: Float[Array, " n"] | None = None) -> Float[Array, ""]:
    """Mean over examples; with weights, their weighted mean (weights of 0 drop an example)."""
    if weights is None:
        return jnp.mean(values)
    return jnp.sum(values * weights) / jnp.sum(weights)


def example_cross_entropy(
    logits: Float[Array, "n c"], labels: Int[Array, " n"] | Float[Array, "n c"]
) -> Float[Array, " n"]:
    """−Σ_c q_c log softmax(logits)_c of each example.

    Args:
      logits: class scores.
      labels: class ids (q is one-hot), or q itself; q is used as it is, never normalised: it may be negative and need
        not sum to one.
    """
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    return -jnp.sum(labels * log_probs, axis=-1)


def cross_entropy(
    logits: Float[Array, "n c"],
    labels: Int[Array, " n"] | Float[Array, "n c"],
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    """Weighted mean of `example_cross_entropy`."""
    return weighted_mean(example_cross_entropy(logits, labels), weights)


def attention_cross_entropy(
    attentions: Float[Array, "n k h q l"],
    scores: Float[Array, "n k h q l"],
    log_eps: float = 0.0,
) -> Float[Array, ""]:
    """Cross-entropy −Σ_keys p log a of the student's attention against attention labels, p = softmax(scores).

    Summed over keys, averaged over samples, layers, heads and query rows. It differs from KL(p ‖ a) by the entropy of
    p, which does not depend on the student: meta-gradients are identical (Maekawa et al. 2023, eq. 6).

    Args:
      attentions: log attention probabilities (`Outputs.attentions`).
      scores: attention labels before the softmax.
      log_eps: added to a inside the logarithm; the published code uses 1e-12, 0 is exact.
    """
    targets = jax.nn.softmax(scores, axis=-1)
    log_probs = jnp.log(jnp.exp(attentions) + log_eps) if log_eps else attentions
    return jnp.mean(-jnp.sum(targets * log_probs, axis=-1))
