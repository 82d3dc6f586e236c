"""The words whose embeddings lie nearest to those of an embedding-level set."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.evaluation.neighbours import nearest_rows
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Problem


def nearest_tokens(
    inputs: Float[np.ndarray, "n l d"], table: Float[np.ndarray, "v d"], count: int = 1
) -> tuple[Int[np.ndarray, "n l k"], Float[np.ndarray, "n l k"]]:
    """Token ids and cosines of the `count` nearest rows of a word table, nearest first."""
    ids, cosines = nearest_rows(inputs.reshape(-1, inputs.shape[-1]), table, count)
    shape = (*inputs.shape[:2], ids.shape[1])
    return ids.reshape(shape), cosines.reshape(shape)


def snapped(distilled: DistilledSet, problem: Problem) -> DistilledSet | None:
    """The set as text: each learned vector replaced by the embedding of its nearest word; `None` without vectors.

    How much of a set survives this says how far it is from text that could be read, or given to another model (Maekawa
    et al. 2024 report the same of their embedding-level baseline).
    """
    found = _table(distilled, problem)
    if found is None or distilled.synthetic is None:
        return None
    table, _ = found
    ids, _ = nearest_tokens(np.asarray(distilled.synthetic.inputs), table)
    inputs = jnp.asarray(table[ids[:, :, 0]])
    return dataclasses.replace(distilled, synthetic=dataclasses.replace(distilled.synthetic, inputs=inputs))


def nearest_words(distilled: DistilledSet, problem: Problem, count: int = 3) -> list | None:
    """For each sample and position (word, cosine), nearest first; `None` when there is nothing to look up."""
    found = _table(distilled, problem)
    if found is None or distilled.synthetic is None:
        return None
    table, tokens = found
    ids, cosines = nearest_tokens(np.asarray(distilled.synthetic.inputs), table, count)
    name = problem.pretrained.tokenizer.id_to_token
    return [
        [
            [(name(int(tokens[i])), float(c)) for i, c in zip(*position, strict=True)]
            for position in zip(*sample, strict=True)
        ]
        for sample in zip(ids, cosines, strict=True)
    ]


def _table(distilled: DistilledSet, problem: Problem) -> tuple[Float[np.ndarray, "v d"], Int[np.ndarray, " v"]] | None:
    """Rows of the learner's word table and their token ids; `None` when it has none, or the set no vectors to compare
    with it."""
    word_table = problem.pretrained.learner.word_table
    if distilled.synthetic is None or distilled.synthetic.inputs is None or word_table is None:
        return None
    table = np.asarray(word_table(problem.base()))
    if problem.words is None:
        return table, np.arange(len(table))
    # Where texts are words, only those of the training split may be put in a set.
    tokens = np.unique(problem.train.ids)
    return table[tokens], tokens
