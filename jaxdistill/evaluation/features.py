"""Sentence vectors of real texts, for coresets."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Learner, Variables
from jaxdistill.data.batching import eval_batches
from jaxdistill.data.encoding import Encoded

ROWS = 16


def mean_features(
    learner: Learner,
    variables: Variables,
    encoded: Encoded,
    members: Int[np.ndarray, " m"],
    *,
    row_length: int,
) -> Float[np.ndarray, "m d"]:
    """Mean of the last hidden states over the tokens of each text, in the order of `members`.

    Args:
      learner: one with `embed`.
      variables: of the learner, as pretrained.
      encoded: a split.
      members: which of its texts.
      row_length: positions of a packed row.

    Raises:
      UserError: the learner has no sentence vectors.
    """
    if learner.embed is None:
        raise UserError("this learner has no sentence vectors to choose texts by: accepted without is random")
    batches = eval_batches(
        encoded,
        row_length=row_length,
        rows=ROWS,
        packed=learner.packs,
        min_length=learner.min_length,
        groups=[members],
    )
    embed = jax.jit(learner.embed)
    result = np.zeros((len(encoded), learner.shape["width"]), np.float32)
    for batch, indices in zip(batches.batches, batches.indices, strict=True):
        result[indices] = np.asarray(embed(variables, batch))[: len(indices)]
    return result[members]
