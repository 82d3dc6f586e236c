"""Conformance of every registered coreset, and what each is defined by."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.coresets.k_center import farthest_first
from jaxdistill.coresets.selection import CORESETS, coreset_named, select

NAMES = ("negative", "positive", "neutral")


def _data(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3).astype(np.int32)
    return (rng.normal(size=(n, 5)) + 2 * labels[:, None]).astype(np.float32), labels


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", CORESETS)
@pytest.mark.parametrize("per_class", [1, 4, 20])
def test_every_coreset_interleaves_distinct_examples(name, per_class):
    features, labels = _data()
    chosen = select(name, features, labels, per_class, class_names=NAMES, seed=3)
    assert chosen.shape == (3 * per_class,) and chosen.dtype == np.int64
    assert len(set(chosen.tolist())) == 3 * per_class
    np.testing.assert_array_equal(labels[chosen], np.arange(3 * per_class) % 3)


@pytest.mark.parametrize("name", CORESETS)
def test_every_coreset_repeats_itself_for_one_seed(name):
    features, labels = _data()
    first, second = (select(name, features, labels, 4, class_names=NAMES, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", CORESETS)
def test_a_class_is_chosen_without_looking_at_the_others(name):
    features, labels = _data()
    other = features + 7.0 * (labels == 2)[:, None].astype(np.float32) * np.arange(5, dtype=np.float32)
    before = select(name, features, labels, 3, class_names=NAMES, seed=1).reshape(3, 3)
    after = select(name, other, labels, 3, class_names=NAMES, seed=1).reshape(3, 3)
    np.testing.assert_array_equal(before[:, :2], after[:, :2])


@pytest.mark.parametrize("name", CORESETS)
def test_duplicates_are_never_chosen_twice(name):
    features = np.zeros((6, 2), np.float32)
    chosen = select(name, features, np.zeros(6, np.int32), 6, class_names=("only",), seed=0)
    assert sorted(chosen.tolist()) == list(range(6))


@pytest.mark.parametrize("name", ["random", "k_means"])
def test_seeds_differ(name):
    features, labels = _data(300)
    choices = {tuple(select(name, features, labels, 4, class_names=NAMES, seed=seed)) for seed in range(4)}
    assert len(choices) > 1


def test_random_needs_no_features_and_is_nested():
    _, labels = _data()
    small, large = (select("random", None, labels, k, class_names=NAMES, seed=5) for k in (2, 6))
    np.testing.assert_array_equal(large[:6], small)


def test_random_is_uniform():
    labels = np.zeros(10, np.int32)
    picks = np.concatenate([select("random", None, labels, 2, class_names=("a",), seed=s) for s in range(2000)])
    np.testing.assert_allclose(np.bincount(picks, minlength=10) / 4000, 0.1, atol=0.02)


@pytest.mark.parametrize("name", ["herding", "k_center", "k_means"])
def test_one_example_is_the_one_nearest_to_the_class_mean(name):
    features, labels = _data()
    chosen = select(name, features, labels, 1, class_names=NAMES, seed=0)
    for number, index in enumerate(chosen):
        members = np.flatnonzero(labels == number)
        distances = np.linalg.norm(features[members] - features[members].mean(axis=0), axis=1)
        assert index == members[np.argmin(distances)]


@pytest.mark.parametrize("seed", range(5))
def test_herding_equals_its_definition(seed):
    features = np.random.default_rng(seed).normal(size=(12, 3)) + 100.0
    mean, chosen = features.mean(axis=0), []
    for m in range(7):
        total = features[chosen].sum(axis=0)
        candidates = [i for i in range(12) if i not in chosen]
        chosen.append(min(candidates, key=lambda i: np.linalg.norm(total + features[i] - (m + 1) * mean)))
    np.testing.assert_array_equal(coreset_named("herding").pick(features, 7, _rng()), chosen)


def test_herding_ties_go_to_the_lowest_index():
    # Mean 0: all equally far; then the opposite of the first brings the sum back to 0.
    features = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    np.testing.assert_array_equal(coreset_named("herding").pick(features, 4, _rng()), [0, 2, 1, 3])


@pytest.mark.parametrize("seed", range(5))
def test_k_center_equals_its_definition_and_keeps_its_bound(seed):
    features = np.random.default_rng(seed).normal(size=(10, 2))
    distance = np.linalg.norm(features[:, None] - features[None], axis=2)
    chosen = [int(np.argmin(np.linalg.norm(features - features.mean(axis=0), axis=1)))]
    while len(chosen) < 3:
        chosen.append(int(np.argmax(distance[:, chosen].min(axis=1))))
    found = coreset_named("k_center").pick(features, 3, _rng())
    np.testing.assert_array_equal(found, chosen)
    best = min(distance[:, list(c)].min(axis=1).max() for c in itertools.combinations(range(10), 3))
    assert distance[:, found].min(axis=1).max() <= 2 * best


def test_k_center_ties_go_to_the_lowest_index():
    features = np.array([[0.0], [2.0], [-2.0], [1.0], [-1.0]])
    np.testing.assert_array_equal(coreset_named("k_center").pick(features, 4, _rng()), [0, 1, 2, 3])


def test_farthest_first_takes_duplicates_last_and_in_order():
    features = np.array([[0.0], [0.0], [5.0], [5.0]])
    np.testing.assert_array_equal(farthest_first(features, np.array([0]), 4), [0, 2, 1, 3])


@pytest.mark.parametrize("seed", range(3))
def test_k_means_takes_the_member_nearest_to_each_separated_cluster(seed):
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    features = np.concatenate([centre + rng.normal(size=(8, 2)) for centre in centres])
    expected = []
    for cluster in range(3):
        members = features[8 * cluster : 8 * cluster + 8]
        expected.append(8 * cluster + int(np.argmin(np.linalg.norm(members - members.mean(axis=0), axis=1))))
    assert sorted(coreset_named("k_means").pick(features, 3, rng).tolist()) == expected


def test_k_means_fills_empty_clusters_without_a_warning(recwarn):
    features = np.array([[0.0], [0.0], [0.0], [9.0], [9.0]])
    chosen = coreset_named("k_means").pick(features, 4, _rng())
    assert len(set(chosen.tolist())) == 4
    assert {0.0, 9.0} == set(features[chosen[:2], 0])
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "greedy"}, "unknown coreset 'greedy': accepted are random, herding, k_center, k_means"),
        ({"per_class": 0}, "per_class is 0: accepted is 1 or more"),
        (
            {"per_class": 21},
            r"class 'negative' \(0\) has 20 training examples, 21 per class asked: accepted is at most 20",
        ),
        ({"class_names": (*NAMES, "mixed")}, r"class 'mixed' \(3\) has 0 training examples, 2 per class asked"),
        ({"features": None}, "coreset 'herding' chooses by features and was given none"),
        ({"features": np.full((60, 2), np.nan, np.float32)}, "60 of 60 examples hold NaN or infinity"),
    ],
)
def test_bad_requests_give_one_line(arguments, message):
    features, labels = _data()
    given = {"name": "herding", "features": features, "per_class": 2, "class_names": NAMES, **arguments}
    with pytest.raises(UserError, match=message) as caught:
        select(labels=labels, seed=0, **given)
    assert "\n" not in str(caught.value)
