"""Sentence vectors of real texts, for coresets and for tasks of sentence vectors."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Learner, Variables
from jaxdistill.data.batching import eval_batches
from jaxdistill.data.encoding import Encoded
from jaxdistill.io.progress import Progress

ROWS = 16


def mean_features(
    learner: Learner,
    variables: Variables,
    encoded: Encoded,
    members: Int[np.ndarray, " m"],
    *,
    row_length: int,
    label: str = "",
) -> Float[np.ndarray, "m d"]:
    """Mean of the last hidden states over the tokens of each text, in the order of `members`.

    Args:
      learner: one with `embed`.
      variables: of the learner, as pretrained.
      encoded: a split.
      members: which of its texts.
      row_length: positions of a packed row.
      label: of a progress line; empty shows none.

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
    progress = Progress(label, len(batches.batches)) if label else None
    try:
        for done, (batch, indices) in enumerate(zip(batches.batches, batches.indices, strict=True), start=1):
            result[indices] = np.asarray(embed(variables, batch))[: len(indices)]
            if progress is not None:
                progress.update(done)
    finally:
        if progress is not None:
            progress.close()
    return result[members]
