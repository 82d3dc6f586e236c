from __future__ import annotations

import numpy as np

from jaxdistill.data.sources import load_task
from jaxdistill.data.toy import GROUPS, LABEL_NOISE, TOPICS, toy_reviews


def test_corpus_is_the_same_everywhere():
    data = load_task("toy/reviews")
    assert (len(data.train), len(data.dev), len(data.test)) == (3601, 399, 1000)
    assert data.source == "built in"
    assert data.source_hash == "3ec6c41d7a09ce615fe9fe2fb202e2804d56881187e0ab4879a13b8bc10da8e9"
    assert data.notes[0] == "generated corpus, version 1; 4% of the labels are wrong by design"
    other_seed = toy_reviews(seed=1)[0]
    assert other_seed.texts[:5] != toy_reviews()[0].texts[:5]


def test_texts_are_short_and_distinct_and_classes_balanced():
    train, test, _ = toy_reviews()
    words = [len(text.split()) for (text,) in train.texts + test.texts]
    assert min(words) >= 8 and max(words) <= 25
    assert len(set(train.texts + test.texts)) == 5000
    assert abs(train.labels.mean() - 0.5) < 0.03
    assert np.bincount(train.attributes["topic"]).min() > 0.9 * 4000 / len(TOPICS)


def test_noise_rate_and_group_shift_are_as_stated():
    train, _, _ = toy_reviews(train=20000, test=1)
    clean = train.attributes["clean_label"]
    assert abs((train.labels != clean).mean() - LABEL_NOISE) < 0.005
    formal = [(train.attributes["group"][clean == label] == GROUPS.index("formal")).mean() for label in (0, 1)]
    np.testing.assert_allclose(formal, [0.45, 0.25], atol=0.02)


def test_counting_words_is_not_enough():
    """A linear model of word counts stays between 75 and 82 %, where knowing the rule gives 96 %."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, test, _ = toy_reviews()
    vectorizer = TfidfVectorizer()
    features = vectorizer.fit_transform([text for (text,) in train.texts])
    model = LogisticRegression(max_iter=1000).fit(features, train.labels)
    accuracy = model.score(vectorizer.transform([text for (text,) in test.texts]), test.labels)
    assert 0.75 < accuracy < 0.82
    assert (test.labels == test.attributes["clean_label"]).mean() > 0.94
