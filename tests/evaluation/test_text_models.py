"""Models that are not neural: what they learn, what soft labels mean to them, what TF-IDF may see."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused
from scipy.sparse import csr_matrix

from jaxdistill.evaluation import text_models
from jaxdistill.evaluation.metrics import accuracy
from jaxdistill.evaluation.text_models import FEATURES, MODELS, Target, counts, labelled_rows, target_named, train
from jaxdistill.evaluation.tfidf import Tfidf

TEXTS = [("a good film",), ("a great film",), ("a bad film",), ("an awful film",)]
LABELS = np.asarray([1, 1, 0, 0], np.int32)


def two_clouds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around (+1, 0, ...) and (-1, 0, ...), three standard deviations from the border."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    points = rng.normal(0.0, 1 / 3, (count, 5))
    points[:, 0] += 2 * labels - 1
    return points, labels


@pytest.mark.parametrize("model", MODELS)
def test_every_model_tells_two_clouds_apart(model):
    points, labels = two_clouds(60, 0)
    others, truth = two_clouds(400, 1)
    # The best possible rule is right 998 times in 1,000.
    assert accuracy(counts(truth, train(model, points, labels, seed=3)(others), 2)) >= 0.97


@pytest.mark.parametrize("model", MODELS)
def test_every_model_reads_words(model):
    vectoriser = Tfidf(TEXTS)
    predict = train(model, vectoriser(TEXTS), LABELS)
    others = [("good book",), ("bad book",), ("a great day",), ("awful",)]
    assert predict(vectoriser(others)).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_one_hot_soft_labels_are_hard_labels(model, sparse):
    points, labels = two_clouds(20, 0)
    others, _ = two_clouds(200, 1)
    points, others = (csr_matrix(np.abs(x)) if sparse else x for x in (points, others))
    soft = np.asarray([[1.0, 0.0], [0.0, 1.0]], np.float32)[labels]
    expected = train(model, points, labels, seed=1)(others)
    np.testing.assert_array_equal(train(model, points, 1 - labels, soft, seed=1)(others), expected)


@pytest.mark.parametrize("model", MODELS)
def test_soft_labels_decide(model):
    """Each point is called as its larger probability says, whatever its hard label."""
    points, labels = two_clouds(40, 0)
    soft = np.where(np.arange(2) == labels[:, None], 0.9, 0.1).astype(np.float32)
    others, truth = two_clouds(200, 1)
    assert accuracy(counts(truth, train(model, points, 0 * labels, soft)(others), 2)) >= 0.97


def test_soft_labels_are_weights():
    soft = np.asarray([[0.75, 0.25 - 1e-7, 1e-7], [0.0, 0.0, 1.0]])
    rows = labelled_rows(np.asarray([0, 2]), soft)
    assert rows.texts.tolist() == [0, 0, 1] and rows.labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(rows.weights, [0.75, 0.25 - 1e-7, 1.0])


def test_soft_labels_minimise_the_cross_entropy_with_them():
    """At an optimum of logistic regression the intercept's gradient is 0: probabilities average to the soft labels."""
    points, labels = two_clouds(10, 0)
    soft = np.random.default_rng(2).dirichlet([1.0, 1.0], 10)
    rows = labelled_rows(labels, soft)
    model = MODELS["logistic_regression"].make(True, 10, 0)
    model.fit(points[rows.texts], rows.labels, sample_weight=rows.weights)
    np.testing.assert_allclose(model.predict_proba(points).mean(axis=0), soft.mean(axis=0), atol=1e-3)


def test_seeds_matter_to_seeded_models_only():
    rng = np.random.default_rng(0)
    points, labels, others = rng.normal(size=(12, 5)), np.arange(12) % 2, rng.normal(size=(100, 5))
    for model, kind in MODELS.items():
        first, again, other = (train(model, points, labels, seed=seed)(others) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert np.array_equal(first, other) != kind.seeded, model


def test_texts_beyond_the_most_are_a_random_choice(monkeypatch):
    seen = []

    class Recorder:
        def fit(self, features, labels, sample_weight):
            seen.append((features[:, 0].tolist(), labels.tolist(), sample_weight.tolist()))
            return self

        def predict(self, features):
            return np.zeros(len(features), int)

    kind = text_models.TextModel(lambda dense, texts, seed: Recorder(), seeded=True, most_texts=6)
    monkeypatch.setattr(text_models, "MODELS", {"recorder": kind})
    features, labels = np.arange(10.0)[:, None], np.arange(10) % 2
    for seed in (0, 0, 1):
        train("recorder", features, labels, seed=seed)
    chosen = np.asarray(seen[0][0], int)
    assert len(set(chosen)) == 6 and (chosen[1:] > chosen[:-1]).all() and seen[0][1] == (chosen % 2).tolist()
    assert seen[0] == seen[1] and seen[0][0] != seen[2][0]
    train("recorder", features, labels, np.full((10, 2), 0.5), seed=0)
    assert seen[3][0] == np.repeat(chosen, 2).tolist() and seen[3][2] == [0.5] * 12


@pytest.mark.parametrize("model", MODELS)
def test_texts_of_one_class_give_that_class(model):
    predict = train(model, np.eye(2), np.asarray([1, 1]))
    assert predict(np.zeros((3, 2))).tolist() == [1, 1, 1]


@pytest.mark.parametrize("model", MODELS)
def test_texts_that_are_all_alike_give_the_class_of_most_weight(model):
    soft = np.asarray([[0.9, 0.1], [0.3, 0.7]])
    predict = train(model, np.ones((2, 3)), np.asarray([1, 1]), soft)
    assert predict(np.eye(3)).tolist() == [0, 0, 0]


def test_tfidf_knows_its_own_texts_only():
    vectoriser = Tfidf(TEXTS)
    assert vectoriser.words == (frozenset(["a", "an", "good", "great", "bad", "awful", "film"]),)
    seen = vectoriser([("good film",), ("good unseen film",), ("unseen",)]).toarray()
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not seen[2].any()
    np.testing.assert_allclose(np.linalg.norm(vectoriser(TEXTS).toarray(), axis=1), 1.0)


def test_pairs_have_a_vocabulary_each():
    vectoriser = Tfidf([("red", "blue"), ("green", "red")])
    assert vectoriser.words == (frozenset({"red", "green"}), frozenset({"blue", "red"}))
    np.testing.assert_array_equal(vectoriser([("red", "red")]).toarray(), [[0, 1, 0, 1]])
    np.testing.assert_array_equal(vectoriser([("blue", "green")]).toarray(), [[0, 0, 0, 0]])


@pytest.mark.parametrize("model", MODELS)
def test_texts_without_words_leave_the_class_frequencies(model):
    texts = [("...",), ("!",), ("",)]
    vectoriser = Tfidf(texts)
    assert vectoriser.words == (frozenset(),) and vectoriser(texts).shape == (3, 1)
    predict = train(model, vectoriser(texts), np.asarray([0, 1, 1]))
    assert predict(vectoriser([("a film",), ("?",)])).tolist() == [1, 1]


def test_counts():
    found = counts(np.asarray([0, 0, 1, 2]), np.asarray([0, 1, 1, 0]), 3)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_names():
    assert target_named("random_forest/encoder") == Target("random_forest", "encoder")
    assert [target_named(f"linear_svm/{features}").features for features in FEATURES] == list(FEATURES)
    for name, message in (
        (
            "perceptron/tfidf",
            "target 'perceptron/tfidf' names an unknown model 'perceptron': accepted are logistic_reg",
        ),
        ("naive_bayes", "target 'naive_bayes' names no features: accepted are naive_bayes/tfidf, naive_bayes/tfidf_t"),
        ("naive_bayes/words", "names unknown features 'words': accepted are naive_bayes/tfidf"),
        ("", "target '' names an unknown model ''"),
    ):
        with refused(message):
            target_named(name)
