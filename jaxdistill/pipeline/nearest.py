"""The words whose embeddings lie nearest to those of an embedding-level set."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Problem

_CHUNK = 256  # vectors compared at once: their cosines to 30,000 words take 31 MB


def nearest_tokens(
    inputs: Float[np.ndarray, "n l d"], table: Float[np.ndarray, "v d"], count: int = 1
) -> tuple[Int[np.ndarray, "n l k"], Float[np.ndarray, "n l k"]]:
    """Token ids and cosines of the `count` nearest rows of a word table, nearest first."""
    unit = table / np.maximum(np.linalg.norm(table, axis=-1, keepdims=True), 1e-12)
    flat = inputs.reshape(-1, inputs.shape[-1])
    flat = flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)
    count = min(count, len(table))
    ids, cosines = np.zeros((len(flat), count), np.int64), np.zeros((len(flat), count), np.float32)
    for first in range(0, len(flat), _CHUNK):
        part = slice(first, first + _CHUNK)
        cosine = flat[part] @ unit.T
        best = np.argpartition(-cosine, count - 1, axis=-1)[:, :count]
        values = np.take_along_axis(cosine, best, axis=-1)
        order = np.lexsort((best, -values), axis=-1)  # by cosine, then by id
        ids[part], cosines[part] = np.take_along_axis(best, order, axis=-1), np.take_along_axis(values, order, axis=-1)
    shape = (*inputs.shape[:2], count)
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
