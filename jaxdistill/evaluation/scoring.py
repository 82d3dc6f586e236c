"""Scores of a learner on a split."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.core.types import Batch, Learner, Variables, pytree
from jaxdistill.data.batching import EvalBatches, eval_batches
from jaxdistill.data.encoding import Encoded
from jaxdistill.evaluation.fairness import group_confusion
from jaxdistill.evaluation.metrics import confusion

ROWS = 16
# Learners that do not pack are small networks: fewer, larger batches.
UNPACKED_ROWS = 256


@pytree
class Score:
    """What a learner made of some rows; scores add up.

    Attributes:
      confusion: counts (true class, predicted class).
      loss_sum: sum of the rows' cross-entropies.
      by_group: the confusion of each protected group, where rows have one.
    """

    confusion: Int[Array, "c c"] | Int[np.ndarray, "c c"]
    loss_sum: Float[Array, ""] | Float[np.ndarray, ""]
    by_group: Int[Array, "g c c"] | Int[np.ndarray, "g c c"] | None = None

    def __add__(self, other: Score) -> Score:
        return jax.tree.map(lambda a, b: a + b, self, other)

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.loss_sum / np.sum(self.confusion))

    @property
    def diverged(self) -> bool:
        """Whether the learner's loss is not finite: it predicts nothing, though the confusion, where NaN counts as
        the first class, looks as if it did."""
        return not np.isfinite(self.loss_sum)


def score_batch(learner: Learner, variables: Variables, batch: Batch) -> Score:
    """Score of one batch; fillers (weight 0) do not count."""
    logits = learner.apply(variables, batch).logits
    losses = example_cross_entropy(logits, batch.labels)
    logits = learner.decision_scores(logits)
    by_group = None
    if batch.groups is not None:
        groups = jnp.argmax(batch.groups, axis=-1)
        by_group = group_confusion(logits, batch.labels, groups, batch.weights, num_groups=batch.groups.shape[-1])
    return Score(confusion(logits, batch.labels, batch.weights), jnp.sum(losses * batch.weights), by_group)


def split_batches(
    encoded: Encoded,
    learner: Learner,
    *,
    row_length: int,
    groups: Sequence[Int[np.ndarray, " _"]] | None = None,
    rows_multiple_of: int = 1,
) -> EvalBatches:
    """A split in batches of one shape, packed when the learner allows.

    Args:
      encoded: the split.
      learner: who reads it.
      row_length: positions of a row.
      groups: rows that go together, one group a student, when students share the split.
      rows_multiple_of: see `data.batching.eval_batches`.
    """
    return eval_batches(
        encoded,
        row_length=row_length,
        rows=max(ROWS if learner.packs else UNPACKED_ROWS, rows_multiple_of),
        packed=learner.packs,
        min_length=learner.min_length,
        groups=groups,
        rows_multiple_of=rows_multiple_of,
    )


class Scorer:
    """Scores one trained learner on all batches of a split; holds the compiled program."""

    def __init__(self, learner: Learner):
        self._score = jax.jit(functools.partial(score_batch, learner))

    def __call__(self, variables: Variables, split: EvalBatches, *, group: int | None = None) -> Score:
        """The score on all batches, or on those of one group."""
        numbered = zip(split.batches, split.groups, strict=True)
        scores = [self._score(variables, batch) for batch, number in numbered if group in (None, number)]
        return functools.reduce(Score.__add__, jax.device_get(scores))
