"""Scores of hand-made learners, and which examples are kept by them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import cross_entropy
from jaxdistill.coresets.scores import (
    error_norms,
    example_gradient_norms,
    forgetting_counts,
    head_gradient_norms,
    pick_by_score,
    select_by_score,
    softmax,
)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_error_norms_of_hand_made_logits():
    logits = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.5, 0.5]], np.float32)) + np.float32(7)
    expected = np.sqrt(2) * np.array([0.2, 0.8, 0.5])
    np.testing.assert_allclose(error_norms(logits, np.array([0, 1, 1])), expected, rtol=1e-6)
    three = np.log(np.array([[0.7, 0.2, 0.1]]))
    np.testing.assert_allclose(error_norms(three, np.array([1])), [np.sqrt(0.7**2 + 0.8**2 + 0.1**2)])


def test_softmax_of_large_logits():
    np.testing.assert_allclose(softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])), [[1, 0], [0.5, 0.5]])


def test_closed_form_of_the_head_is_autodiff(x64):
    rng = _rng()
    features, labels = rng.normal(size=(5, 4)), rng.integers(3, size=5)
    weights, bias = rng.normal(size=(4, 3)), rng.normal(size=3)

    def loss(head, h, y):
        return cross_entropy((h @ head[0] + head[1])[None], y[None])

    norms = []
    for h, y in zip(jnp.asarray(features), jnp.asarray(labels), strict=True):
        gradients = jax.grad(loss)((jnp.asarray(weights), jnp.asarray(bias)), h, y)
        norms.append(np.sqrt(sum(float(jnp.sum(g**2)) for g in gradients)))
    np.testing.assert_allclose(head_gradient_norms(features @ weights + bias, features, labels), norms, rtol=1e-12)
    errors = softmax(features @ weights) - np.eye(3)[labels]
    without = [np.linalg.norm(np.outer(h, error)) for h, error in zip(features, errors, strict=True)]
    found = head_gradient_norms(features @ weights, features, labels, bias=False)
    np.testing.assert_allclose(found, without, rtol=1e-12)


@pytest.mark.parametrize("at_once", [1, 3])
def test_norms_of_all_gradients_are_those_of_a_loop(x64, at_once):
    rng = _rng()
    params = {"a": jnp.asarray(rng.normal(size=(4, 6))), "b": jnp.asarray(rng.normal(size=(6, 2)))}
    examples = (jnp.asarray(rng.normal(size=(5, 4))), jnp.asarray(rng.integers(2, size=5)))

    def loss(p, example):
        x, y = example
        return cross_entropy((jnp.tanh(x @ p["a"]) @ p["b"])[None], y[None])

    expected = []
    for i in range(5):
        gradient = jax.grad(loss)(params, (examples[0][i], examples[1][i]))
        expected.append(np.sqrt(sum(float(jnp.sum(g**2)) for g in gradient.values())))
    found = jax.jit(lambda p, e: example_gradient_norms(loss, p, e, at_once=at_once))(params, examples)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_forgetting_of_a_hand_written_history():
    histories = {
        (0, 1, 1, 1): 0,
        (1, 0, 1, 0): 2,
        (0, 1, 0, 0): 1,
        (1, -1, 0, 1): 1,  # left out once: what counts are visits in a row
        (-1, 1, -1, 1): 0,
        (0, 0, 0, 0): np.inf,
        (0, -1, 0, 0): np.inf,
        (-1, -1, -1, -1): np.nan,
    }
    np.testing.assert_array_equal(forgetting_counts(np.array(list(histories)).T), list(histories.values()))


def test_what_is_kept():
    scores = np.array([3.0, np.inf, 1.0, 5.0, 4.0])
    for keep, expected in {"easy": [2, 0, 4, 3, 1], "hard": [1, 3, 4, 0, 2], "middle": [4, 0, 3, 2, 1]}.items():
        for count in range(1, 6):
            np.testing.assert_array_equal(pick_by_score(scores, count, keep, _rng()), expected[:count])


def test_what_has_no_score_is_taken_last():
    scores = np.array([np.nan, 2.0, 1.0, np.nan, 3.0])
    for keep, expected in {"easy": [2, 1, 4], "hard": [4, 1, 2], "middle": [1, 2, 4]}.items():
        picked = pick_by_score(scores, 5, keep, _rng())
        np.testing.assert_array_equal(picked[:3], expected)
        assert sorted(picked[3:]) == [0, 3]


def test_ties_are_broken_at_random_and_for_good():
    scores = np.array([0.0] * 50 + [1.0])
    picks = [pick_by_score(scores, 5, "easy", np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(picks[0], picks[1])
    assert set(picks[0]) != set(picks[2]) and 50 not in picks[0]
    assert pick_by_score(scores, 1, "hard", _rng())[0] == 50


def test_each_class_has_its_own_ranking():
    labels = np.array([0, 1, 0, 1, 0, 1])
    scores = np.array([3.0, 30.0, 1.0, 10.0, 2.0, 20.0])
    for keep, expected in {"easy": [2, 3, 4, 5], "hard": [0, 1, 4, 5], "middle": [4, 5, 2, 3]}.items():
        chosen = select_by_score(scores, labels, 2, keep=keep, class_names=("a", "b"), seed=0)
        np.testing.assert_array_equal(chosen, expected)
    with pytest.raises(UserError, match=r"class 'a' \(0\) has 3 training examples, 4 per class asked"):
        select_by_score(scores, labels, 4, keep="easy", class_names=("a", "b"), seed=0)
