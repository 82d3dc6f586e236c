"""Classification scores, computed from confusion counts.

Counts of disjoint sets of examples add up, so a score over ragged batches, packed rows or several hosts is the score of
the summed counts: exact, whatever the cut. Scores are fractions from 0 to 1 everywhere in the package; `percent` is the
one place where they become what result files and tables show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError


def confusion(
    logits: Float[Array, "n c"], labels: Int[Array, " n"], weights: Float[Array, " n"] | None = None
) -> Int[Array, "c c"]:
    """Counts of (true class, predicted class); jit- and vmap-friendly, and mergeable by addition.

    Args:
      logits: class scores; the prediction is the first class of the highest score.
      labels: true classes.
      weights: an example of weight 0 (filler) is not counted, any other counts once. `None` counts all.

    Returns:
      int32 counts: entry (i, j) is how many examples of class i were called j.
    """
    classes = logits.shape[-1]
    counted = jnp.ones(labels.shape, jnp.int32) if weights is None else (weights > 0).astype(jnp.int32)
    predicted = jnp.argmax(logits, axis=-1)
    return jnp.zeros((classes, classes), jnp.int32).at[labels, predicted].add(counted)


def accuracy(counts: Int[Array | np.ndarray, "c c"]) -> float:
    """Fraction of the examples called by their true class.

    Raises:
      ValueError: no example was counted.
    """
    counts = _as_counts(counts)
    return float(np.trace(counts) / counts.sum())


def f1(counts: Int[Array | np.ndarray, "c c"]) -> float:
    """F1 of class 1 where there are two classes (the GLUE convention), the unweighted mean over classes otherwise.

    A class that is neither present nor predicted has F1 0, as in scikit-learn.

    Raises:
      ValueError: no example was counted.
    """
    counts = _as_counts(counts)
    mentions = counts.sum(axis=0) + counts.sum(axis=1)
    per_class = 2 * np.diagonal(counts) / np.maximum(mentions, 1)
    return float(per_class[1] if len(per_class) == 2 else per_class.mean())


def accuracy_f1_mean(counts: Int[Array | np.ndarray, "c c"]) -> float:
    """Mean of accuracy and F1, the score GLUE gives to MRPC and QQP.

    Raises:
      ValueError: no example was counted.
    """
    return (accuracy(counts) + f1(counts)) / 2


METRICS: Mapping[str, Callable[[Any], float]] = MappingProxyType(
    {"accuracy": accuracy, "f1": f1, "accuracy_f1_mean": accuracy_f1_mean}
)

# Of a score that is a mean, the scores it is a mean of: they are reported beside it.
PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType({"accuracy_f1_mean": ("accuracy", "f1")})


def metric_named(name: str) -> Callable[[Any], float]:
    """The function from confusion counts to a score that a task calls `name`.

    Raises:
      UserError: there is no such metric.
    """
    if name not in METRICS:
        raise UserError(f"unknown metric {name!r}: accepted are {', '.join(METRICS)}")
    return METRICS[name]


def percent(fraction: float) -> float:
    """A score, or a difference of scores, as result files and tables show it."""
    return 100.0 * fraction


def _as_counts(counts: Any) -> np.ndarray:
    """Host copy in 64 bits, so that summing the counts of a large split cannot overflow."""
    host = np.asarray(counts).astype(np.int64)
    if not host.sum():
        raise ValueError("no example was counted: a score of nothing is undefined")
    return host
