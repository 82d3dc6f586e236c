"""Sentence vectors of texts from a pretrained encoder: any task of single texts becomes a task of vectors."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Float

from jaxdistill.core.errors import UserError
from jaxdistill.data.encoding import encode
from jaxdistill.data.sources import TaskData
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.features import mean_features
from jaxdistill.models.pretrained import load_model


def sentence_vectors(encoder: str, texts: list[tuple[str, ...]], *, max_length: int = 128) -> Float[np.ndarray, "n d"]:
    """Mean of an encoder's last hidden states over the tokens of each text, as float32.

    MiniLM reads about a hundred short texts a second on one CPU core.

    Args:
      encoder: see `models.pretrained.load_model`.
      texts: one or two strings each.
      max_length: tokens of a text at most; the encoder's own bound holds too.

    Raises:
      UserError: there is no such encoder.
    """
    loaded = load_model(encoder, num_classes=2)
    length = min(max_length, loaded.learner.max_length)
    encoded = encode(Split(texts, np.zeros(len(texts), np.int32)), loaded.tokenizer, length)
    variables = loaded.learner.init(jax.random.key(0))
    label = f"sentence vectors of {encoder}: batches"
    return mean_features(loaded.learner, variables, encoded, np.arange(len(encoded)), row_length=length, label=label)


def with_sentence_vectors(data: TaskData, encoder: str, *, max_length: int = 128) -> TaskData:
    """The task with one vector a text; texts, labels and splits stay as they are.

    Args:
      data: a task of single texts.
      encoder, max_length: see `sentence_vectors`.

    Raises:
      UserError: a task of pairs, or one that has vectors already.
    """
    if data.vectors is not None:
        raise UserError(f"task {data.task.name!r} is of vectors already: it takes no sentence vectors")
    if len(data.task.text_columns) != 1:
        raise UserError(f"task {data.task.name!r} is of text pairs: sentence vectors are made of single texts")
    texts = data.train.texts + data.dev.texts + data.test.texts
    vectors = sentence_vectors(encoder, texts, max_length=max_length)
    notes = (*data.notes, f"learners read one sentence vector of {encoder} a text")
    return dataclasses.replace(data, vectors=vectors, notes=notes)
