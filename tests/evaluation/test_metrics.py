from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation import metrics


def _predictions(classes: int, seed: int = 0, n: int = 57) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, classes)).astype(np.float32), rng.integers(classes, size=n).astype(np.int32)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_scores_equal_scikit_learn(classes):
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    logits, labels = _predictions(classes)
    predicted = logits.argmax(axis=1)
    counts = jax.jit(metrics.confusion)(logits, labels)
    f1 = f1_score(labels, predicted, average="binary" if classes == 2 else "macro")

    np.testing.assert_array_equal(counts, confusion_matrix(labels, predicted, labels=range(classes)))
    assert counts.dtype == jnp.int32
    assert metrics.accuracy(counts) == pytest.approx(accuracy_score(labels, predicted), abs=1e-12)
    assert metrics.f1(counts) == pytest.approx(f1, abs=1e-12)
    assert metrics.accuracy_f1_mean(counts) == pytest.approx((metrics.accuracy(counts) + f1) / 2, abs=1e-12)


def test_hand_case_of_the_glue_score():
    # 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
    counts = np.array([[4, 1], [2, 3]])
    assert metrics.accuracy(counts) == pytest.approx(0.7)
    assert metrics.f1(counts) == pytest.approx(6 / 9)
    assert metrics.metric_named("accuracy_f1_mean")(counts) == pytest.approx((0.7 + 6 / 9) / 2)


def test_f1_is_zero_where_scikit_learn_says_zero():
    assert metrics.f1(np.array([[5, 0], [0, 0]])) == 0.0
    assert metrics.f1(np.array([[2, 0, 0], [0, 2, 0], [0, 0, 0]])) == pytest.approx(2 / 3)


def test_counts_of_parts_add_up_to_the_whole():
    logits, labels = _predictions(4)
    parts = [metrics.confusion(jnp.asarray(logits[s]), jnp.asarray(labels[s])) for s in (slice(0, 10), slice(10, None))]
    np.testing.assert_array_equal(parts[0] + parts[1], metrics.confusion(jnp.asarray(logits), jnp.asarray(labels)))


def test_filler_examples_are_not_counted():
    logits, labels = (jnp.asarray(x) for x in _predictions(3))
    weights = (jnp.arange(len(labels)) < 20).astype(jnp.float32)
    np.testing.assert_array_equal(
        metrics.confusion(logits, labels, weights), metrics.confusion(logits[:20], labels[:20])
    )


def test_vmap_over_students_gives_one_matrix_each():
    logits = jnp.stack([jnp.asarray(_predictions(3, seed)[0]) for seed in range(3)])
    labels = jnp.asarray(_predictions(3)[1])
    counts = jax.vmap(metrics.confusion, in_axes=(0, None))(logits, labels)
    assert counts.shape == (3, 3, 3)
    np.testing.assert_array_equal(counts[2], metrics.confusion(logits[2], labels))


def test_a_large_split_does_not_overflow():
    half = np.full((2, 2), 2**30, dtype=np.int32)
    assert metrics.accuracy(half) == 0.5
    assert metrics.f1(half) == 0.5


def test_nothing_counted_is_an_error():
    with pytest.raises(ValueError, match="no example was counted"):
        metrics.accuracy(np.zeros((2, 2), np.int32))


def test_unknown_metric_names_the_known_ones():
    with pytest.raises(UserError, match="unknown metric 'bleu': accepted are accuracy, f1, accuracy_f1_mean"):
        metrics.metric_named("bleu")


def test_percent():
    assert metrics.percent(0.25) == 25.0
