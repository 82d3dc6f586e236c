"""Scores on disk: each item once, half-done work kept, parameters told apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.evaluation import score_cache
from jaxdistill.evaluation.score_cache import cached_scores, parameter_hash


def test_every_item_once(tmp_path):
    asked = []

    def score(missing):
        asked.append(missing)
        yield missing[1:], [[float(i), np.nan] for i in missing[1:]]
        yield missing[:1], [[0.5, np.inf] for _ in missing[:1]]

    found = cached_scores(["a", "b", "a", "c"], score, folder=tmp_path, scorer=lambda: "judge")
    np.testing.assert_array_equal(found, [[0.5, np.inf], [1, np.nan], [0.5, np.inf], [3, np.nan]])
    more = cached_scores(["c", "d", "a"], score, folder=tmp_path, scorer=lambda: "judge")
    np.testing.assert_array_equal(more, [[3, np.nan], [0.5, np.inf], [0.5, np.inf]])
    assert asked == [[0, 1, 3], [1]]
    cached_scores(["a"], score, folder=tmp_path, scorer=lambda: "another judge")
    cached_scores(["a"], score)
    assert asked[2:] == [[0], [0]]


def test_an_interrupted_scoring_keeps_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(score_cache, "_SECONDS_BETWEEN_WRITES", -1.0)

    def broken(missing):
        yield missing[:1], [[1.0]]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_scores(["a", "b"], broken, folder=tmp_path, scorer=lambda: "judge")

    def rest(missing):
        assert missing == [1]
        yield missing, [[2.0]]

    assert cached_scores(["a", "b"], rest, folder=tmp_path, scorer=lambda: "judge") == [[1.0], [2.0]]


def test_parameters_are_told_apart():
    params = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(4, jnp.bfloat16), "c": jnp.float32(1.0)}
    same = jax.tree.map(jnp.copy, params)
    assert parameter_hash(params) == parameter_hash(same)
    others = [
        params | {"a": params["a"].at[1, 2].add(1e-6)},
        params | {"a": params["a"][:, ::-1]},
        params | {"a": params["a"][::-1]},
        params | {"b": params["b"].at[0].set(1.0078125)},
    ]
    assert len({parameter_hash(p) for p in [params, *others]}) == 5
