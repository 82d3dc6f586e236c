"""The controlled tasks of biased data: vectors, and reviews at a given share."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.sources import load_task
from jaxdistill.data.tasks import task_named
from jaxdistill.data.toy import GROUPS, LABEL_NOISE, toy_reviews_at
from jaxdistill.data.toy_bias import CLASS_DIRECTION, CLASS_SHIFT, GROUP_DIRECTION, GROUP_SHIFT, WIDTH, toy_bias


def counts(split):
    return np.bincount(2 * split.labels + split.attributes["group"], minlength=4).tolist()


def test_vectors_are_the_same_everywhere():
    data = load_task("toy/bias")
    assert data.source_hash == "a8aad1fb2428ffd35db545a94b2aa2074b759d323e42ee6784456e412d163784"
    assert [counts(split) for split in (data.train, data.dev, data.test)] == [[4000, 999, 999, 4000]] + [[1000] * 4] * 2
    assert data.vectors.shape == (9998 + 4000 + 4000, WIDTH) and data.vectors.dtype == np.float32
    np.testing.assert_array_equal(data.vectors[9998:13998], toy_bias()[1]["dev"])
    assert (toy_bias(seed=2)[1]["train"] != data.vectors[:9998]).all(axis=1).mean() > 0.99


def test_directions_are_orthonormal_and_shifts_as_stated():
    frame = np.stack([CLASS_DIRECTION, GROUP_DIRECTION])
    np.testing.assert_array_equal(frame @ frame.T, np.eye(2))
    splits, vectors, _ = toy_bias()
    labels, groups = splits["train"].labels, splits["train"].attributes["group"]
    for label in (0, 1):
        for group in (0, 1):
            cell = vectors["train"][(labels == label) & (groups == group)].astype(np.float64)
            mean = CLASS_SHIFT * (2 * label - 1) * frame[0] + GROUP_SHIFT * (2 * group - 1) * frame[1]
            np.testing.assert_allclose(cell.mean(axis=0), mean, atol=4 / np.sqrt(len(cell)))
            np.testing.assert_allclose(cell.std(axis=0), 1.0, atol=0.1)


def test_best_blind_rule_is_right_and_fair_and_the_biased_one_is_not():
    """Without the group: Phi(0.6) = 72.6 %, alike in both groups. With the posterior of the training mixture: worse."""
    splits, vectors, _ = toy_bias()
    x, labels, groups = vectors["test"], splits["test"].labels, splits["test"].attributes["group"]
    right = (x @ CLASS_DIRECTION > 0) == labels
    assert right.mean() == pytest.approx(NormalDist().cdf(CLASS_SHIFT), abs=0.02)
    recall = [[right[(labels == y) & (groups == g)].mean() for g in (0, 1)] for y in (0, 1)]
    np.testing.assert_allclose(np.diff(recall), 0.0, atol=0.05)

    shares = {(y, g): (4000 if y == g else 999) / 9998 for y in (0, 1) for g in (0, 1)}
    a, b = x @ CLASS_DIRECTION, x @ GROUP_DIRECTION

    def density(y):
        squares = {g: (a - CLASS_SHIFT * (2 * y - 1)) ** 2 + (b - GROUP_SHIFT * (2 * g - 1)) ** 2 for g in (0, 1)}
        return sum(shares[y, g] * np.exp(-squares[g] / 2) for g in (0, 1))

    right = (density(1) > density(0)) == labels
    gaps = [right[(labels == y) & (groups == y)].mean() - right[(labels == y) & (groups != y)].mean() for y in (0, 1)]
    assert right.mean() == pytest.approx(0.66, abs=0.02)
    assert min(gaps) > 0.35


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_reviews_at_a_share(share):
    splits, notes = toy_reviews_at(share, train=400, dev=100, test=100)
    together = round(200 * share)
    # Negative goes with formal (1), positive with casual (0).
    assert counts(splits["train"]) == [200 - together, together, together, 200 - together]
    assert counts(splits["dev"]) == counts(splits["test"]) == [25] * 4
    texts = [text for split in splits.values() for text in split.texts]
    assert len(set(texts)) == 600
    wrong = np.mean([np.mean(s.labels != s.attributes["clean_label"]) for s in splits.values()])
    assert abs(wrong - LABEL_NOISE) < 0.03
    assert f"together in {share:.0%} of the training texts" in notes[1]
    again, _ = toy_reviews_at(share, train=400, dev=100, test=100)
    assert again["train"].texts == splits["train"].texts


def test_groups_of_reviews_are_their_openers():
    """A share changes which texts there are, not how a group writes."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    splits, _ = toy_reviews_at(0.8, train=1000, dev=100, test=400)
    vectorizer = CountVectorizer().fit([text for (text,) in splits["train"].texts])
    x, z = (vectorizer.transform([text for (text,) in splits[name].texts]) for name in ("train", "test"))
    model = LogisticRegression(max_iter=1000).fit(x, splits["train"].attributes["group"])
    assert model.score(z, splits["test"].attributes["group"]) > 0.95


def test_names_of_shares():
    data = load_task("toy/reviews:0.8")
    assert data.source_hash == "58b9f4c09a29a6681d19e6cee07079889163b8e29ecf362428ec7b51d0668a05"
    assert data.task.name == "toy/reviews:0.8" and data.task.group_names == GROUPS
    assert (len(data.train), len(data.dev), len(data.test)) == (4000, 1000, 1000)
    assert load_task("toy/reviews").task.group_names == ()  # none that count as protected
    for name in ("toy/reviews:", "toy/reviews:high", "toy/reviews:1.0", "toy/reviews:nan"):
        with pytest.raises(UserError, match="accepted is a number from 0.05 to 0.95"):
            task_named(name)
    with pytest.raises(UserError, match="^task 'toy/bias' is built in; it takes no data_dir"):
        load_task("toy/bias", group_column="group")
