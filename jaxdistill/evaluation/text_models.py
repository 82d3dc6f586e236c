"""Models that are not neural, trained on texts: a distilled set of texts need not be for the model it was made with.

The models are scikit-learn's with its own settings, but for the iterations they may take. Nothing is tuned to a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError

Features = Literal["tfidf", "tfidf_train", "encoder"]
FEATURES: tuple[Features, ...] = ("tfidf", "tfidf_train", "encoder")
LEAST_WEIGHT = 1e-6
_MOST_ITERATIONS = 10_000


class TextModel(NamedTuple):
    """A kind of model.

    Attributes:
      make: `make(dense, texts, seed)` is an untrained scikit-learn classifier. `dense` says that its features are an
        array and not a sparse matrix of word weights, `texts` how many texts it will see (their rows may be more, see
        `labelled_rows`).
      seeded: whether the seed makes a difference: such a model is trained several times.
      most_texts: how many texts it trains on at most; `None` for all. More are cut to a random choice.
    """

    make: Callable[[bool, int, int], Any]
    seeded: bool = False
    most_texts: int | None = None


def _logistic_regression(dense: bool, texts: int, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=_MOST_ITERATIONS)


def _linear_svm(dense: bool, texts: int, seed: int) -> Any:
    from sklearn.svm import LinearSVC

    # Its solver visits the rows in random order, but the problem has one solution: one seed for all.
    return LinearSVC(max_iter=_MOST_ITERATIONS, random_state=0)


def _naive_bayes(dense: bool, texts: int, seed: int) -> Any:
    from sklearn.naive_bayes import GaussianNB, MultinomialNB

    return GaussianNB() if dense else MultinomialNB()


def _random_forest(dense: bool, texts: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    # A tree draws as many rows as there are texts, however many rows their soft labels make.
    return RandomForestClassifier(max_samples=texts, random_state=seed)


MODELS: Mapping[str, TextModel] = MappingProxyType(
    {
        "logistic_regression": TextModel(_logistic_regression),
        "linear_svm": TextModel(_linear_svm),
        "naive_bayes": TextModel(_naive_bayes),
        # So many texts of SST-2 take it 45 s on one core, and its time grows faster than their number.
        "random_forest": TextModel(_random_forest, seeded=True, most_texts=20_000),
    }
)


class Target(NamedTuple):
    """A model and what it sees of a text.

    Attributes:
      model: key of `MODELS`.
      features: "tfidf" (`evaluation.tfidf.Tfidf`, learned from the very texts that the model trains on),
        "tfidf_train" (the same, learned from all training texts of the task, whose labels stay unread) or "encoder"
        (mean features of the learner as pretrained, scaled to unit length).
    """

    model: str
    features: Features

    @property
    def seeded(self) -> bool:
        """Whether it is trained with several seeds."""
        return MODELS[self.model].seeded


def is_text_model(name: str) -> bool:
    """Whether a target is meant to be one of these models, rightly spelled or not, and no learner."""
    model, _, features = name.partition("/")
    return model in MODELS or features in FEATURES


def target_named(name: str) -> Target:
    """The target called "<model>/<features>".

    Raises:
      UserError: there is no such model, or no such features.
    """
    model, _, features = name.partition("/")
    if model not in MODELS:
        raise UserError(f"target {name!r} names an unknown model {model!r}: accepted are {', '.join(MODELS)}")
    for known in FEATURES:
        if known == features:
            return Target(model, known)
    shown = f"unknown features {features!r}" if features else "no features"
    raise UserError(f"target {name!r} names {shown}: accepted are {', '.join(f'{model}/{f}' for f in FEATURES)}")


class LabelledRows(NamedTuple):
    """What a model trains on, in the order of the texts.

    Attributes:
      texts: which text a row repeats.
      labels: class of the row.
      weights: how much the row counts.
    """

    texts: Int[np.ndarray, " r"]
    labels: Int[np.ndarray, " r"]
    weights: Float[np.ndarray, " r"]


def labelled_rows(labels: Int[np.ndarray, " n"], soft_labels: Float[np.ndarray, "n c"] | None = None) -> LabelledRows:
    """Soft labels for models that know hard ones: each text once per class, weighted by the probability q of the class.

    The weighted loss of the rows of a text is its expected loss under q; of logistic regression, the cross-entropy with
    q. Rows whose q is below `LEAST_WEIGHT` are left out. Without soft labels each text is one row of weight 1, as under
    one-hot ones.
    """
    if soft_labels is None:
        return LabelledRows(np.arange(len(labels)), np.asarray(labels), np.ones(len(labels)))
    texts, classes = np.nonzero(soft_labels >= LEAST_WEIGHT)
    return LabelledRows(texts, classes, np.asarray(soft_labels, np.float64)[texts, classes])


def train(
    model: str,
    features: Any,
    labels: Int[np.ndarray, " n"],
    soft_labels: Float[np.ndarray, "n c"] | None = None,
    *,
    seed: int = 0,
) -> Callable[[Any], Int[np.ndarray, " m"]]:
    """Train a model.

    Args:
      model: key of `MODELS`.
      features: of n texts: an array [n, f], or a sparse matrix of weights that are not negative.
      labels: their classes.
      soft_labels: targets of the texts in place of their classes, see `labelled_rows`.
      seed: of a model that is seeded, also of its choice where there are more than `TextModel.most_texts`; from 0 to
        2**32 - 1.

    Returns:
      `predict(features)`: the class of each of m texts. Where the rows are all of one class, or no feature tells them
      apart, it is always the class of most weight: scikit-learn's models differ in whether they take such rows.
    """
    kind, count = MODELS[model], len(labels)
    if kind.most_texts is not None and count > kind.most_texts:
        chosen = np.sort(np.random.default_rng(seed).permutation(count)[: kind.most_texts])
        features, labels, count = features[chosen], labels[chosen], len(chosen)
        soft_labels = None if soft_labels is None else soft_labels[chosen]
    rows = labelled_rows(labels, soft_labels)
    dense = isinstance(features, np.ndarray)
    if (rows.labels == rows.labels[0]).all() or (dense and (features == features[0]).all()):
        heaviest = int(np.bincount(rows.labels, rows.weights).argmax())
        return lambda others: np.full(others.shape[0], heaviest)
    fitted = kind.make(dense, count, seed)
    fitted.fit(features[rows.texts], rows.labels, sample_weight=rows.weights)
    return fitted.predict


def counts(labels: Int[np.ndarray, " m"], predicted: Int[np.ndarray, " m"], classes: int) -> Int[np.ndarray, "c c"]:
    """Confusion counts: entry (i, j) is how many texts of class i were called j."""
    cells = np.asarray(labels, np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
