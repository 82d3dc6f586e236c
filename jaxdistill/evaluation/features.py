"""What a learner makes of real texts, for coresets, teachers and tasks of sentence vectors."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Learner, PyTree, Variables
from jaxdistill.data.batching import EvalBatches, eval_batches
from jaxdistill.data.encoding import Encoded
from jaxdistill.io.progress import Progress

ROWS = 16


def read_texts(
    read: Callable[[Variables, Batch], PyTree],
    learner: Learner,
    variables: Variables,
    encoded: Encoded,
    members: Int[np.ndarray, " m"],
    *,
    row_length: int,
    label: str = "",
) -> PyTree:
    """What `read` gives for each text, numpy leaves [m, ...] in the order of `members`.

    Args:
      read: jitted, so that it is compiled once however often it is used; its leaves have an axis of examples first.
      learner: who reads.
      variables: of the learner.
      encoded: a split.
      members: which of its texts, each once.
      row_length: positions of a packed row.
      label: of a progress line; empty shows none.
    """
    batches = eval_batches(
        encoded,
        row_length=row_length,
        rows=ROWS,
        packed=learner.packs,
        min_length=learner.min_length,
        groups=[members],
    )
    found = read_batches(functools.partial(read, variables), batches, label=label)
    place = np.empty(len(encoded), np.int64)
    place[np.concatenate(batches.indices)] = np.arange(len(members))
    return jax.tree.map(lambda leaf: leaf[place[members]], found)


def read_batches(read: Callable[[Batch], PyTree], batches: EvalBatches, *, label: str = "") -> PyTree:
    """What `read` gives for each example of the batches, numpy leaves in the order of the batches.

    Args:
      read: jitted; its leaves have an axis of examples first.
      batches: of one shape.
      label: of a progress line; empty shows none.
    """
    parts = []
    progress = Progress(label, len(batches.batches)) if label else None
    try:
        for done, (batch, indices) in enumerate(zip(batches.batches, batches.indices, strict=True), start=1):
            filled = slice(len(indices))
            parts.append(jax.tree.map(lambda x, filled=filled: np.asarray(x)[filled], read(batch)))
            if progress is not None:
                progress.update(done)
    finally:
        if progress is not None:
            progress.close()
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


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
    read = jax.jit(learner.embed)
    return read_texts(read, learner, variables, encoded, members, row_length=row_length, label=label)
