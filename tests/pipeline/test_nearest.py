"""Nearest words, in chunks, against the plain formula."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from jaxdistill.evaluation import neighbours
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.attention_label import clean, initial_set
from jaxdistill.pipeline import nearest
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig
from jaxdistill.pipeline.prepare import prepare


def test_chunks_give_what_one_table_of_cosines_gives(monkeypatch):
    monkeypatch.setattr(neighbours, "_CHUNK", 4)
    rng = np.random.default_rng(0)
    inputs, table = rng.normal(size=(3, 5, 6)).astype(np.float32), rng.normal(size=(40, 6)).astype(np.float32)
    ids, cosines = nearest.nearest_tokens(inputs, table, 3)
    flat = inputs.reshape(15, 6)
    cosine = flat @ table.T / np.outer(np.linalg.norm(flat, axis=1), np.linalg.norm(table, axis=1))
    np.testing.assert_array_equal(ids.reshape(15, 3), np.argsort(-cosine, axis=1)[:, :3])
    np.testing.assert_allclose(cosines.reshape(15, 3), -np.sort(-cosine, axis=1)[:, :3], rtol=1e-5)


def test_no_more_words_than_there_are():
    ids, cosines = nearest.nearest_tokens(np.ones((1, 1, 2), np.float32), np.eye(2, dtype=np.float32), 5)
    np.testing.assert_array_equal(np.sort(ids), [[[0, 1]]])
    np.testing.assert_allclose(cosines, np.sqrt(0.5), rtol=1e-6)


def test_a_snapped_set_holds_rows_of_the_word_table():
    problem = prepare(TaskConfig(name="toy/reviews", max_length=16), LearnerConfig(name="tiny"))
    table = np.asarray(problem.pretrained.learner.word_table(problem.base()))
    synthetic, _ = initial_set(clean(length=4), problem, jax.random.key(0))
    words = np.array([[5, 9, 90, 31], [7, 7, 100, 12]])
    near = dataclasses.replace(synthetic, inputs=3 * table[words] + 1e-4)
    made = DistilledSet(labels=np.arange(2), label_names=problem.data.task.label_names, manifest={}, synthetic=near)
    text = nearest.snapped(made, problem)
    np.testing.assert_array_equal(text.synthetic.inputs, table[words])
    assert text.synthetic.labels is near.labels and text.synthetic.raw_lr is near.raw_lr
    only_labels = dataclasses.replace(made, synthetic=dataclasses.replace(near, inputs=None))
    assert nearest.snapped(only_labels, problem) is None
