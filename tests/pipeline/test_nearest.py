"""Nearest words, in chunks, against the plain formula."""

from __future__ import annotations

import numpy as np

from jaxdistill.pipeline import nearest


def test_chunks_give_what_one_table_of_cosines_gives(monkeypatch):
    monkeypatch.setattr(nearest, "_CHUNK", 4)
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
