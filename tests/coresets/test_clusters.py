"""K-means on the device: against scikit-learn from the same start, and where clusters run empty."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused

from jaxdistill.coresets.clusters import clusters


def blobs(count, each, spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 3)) * 5
    points = np.repeat(centres, each, axis=0) + spread * rng.normal(size=(count * each, 3))
    order = rng.permutation(len(points))
    return points[order].astype(np.float32), np.repeat(np.arange(count), each)[order]


def same_partition(a, b):
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("rows", [4096, 7])
def test_separate_groups_are_found(rows):
    points, truth = blobs(4, 10)
    found = np.asarray(clusters(jnp.asarray(points), 4, jax.random.key(1), rows=rows))
    assert same_partition(found, truth)


def test_nothing_is_left_to_improve():
    """A fixed point of Lloyd's algorithm, as scikit-learn's is from the means found."""
    from sklearn.cluster import KMeans

    points = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    found = np.asarray(clusters(jnp.asarray(points), 8, jax.random.key(0)))
    means = np.stack([points[found == i].mean(axis=0) for i in range(8)])
    again = KMeans(8, init=means, n_init=1).fit(points)
    assert same_partition(found, again.labels_) and again.n_iter_ <= 2
    square = ((points - means[found]) ** 2).sum()
    usual = np.median([KMeans(8, n_init=1, random_state=i).fit(points).inertia_ for i in range(10)])
    assert square < 1.1 * usual


def test_same_key_same_clusters_and_another_key_others():
    points = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    first, again, other = (np.asarray(clusters(jnp.asarray(points), 8, jax.random.key(k))) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not same_partition(first, other)


def test_every_cluster_has_members_where_vectors_differ():
    """Two far vectors among many near ones: starts fall together easily, empty clusters begin anew."""
    points = np.concatenate([np.random.default_rng(0).normal(size=(60, 2)) * 1e-3, [[9.0, 9.0], [-9.0, 9.0]]])
    for key in range(5):
        found = np.asarray(clusters(jnp.asarray(points, jnp.float32), 6, jax.random.key(key)))
        assert set(found) == set(range(6))


def test_duplicates_share_a_cluster():
    points = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    found = np.asarray(clusters(jnp.asarray(points), 5, jax.random.key(0)))
    assert all(len(set(found[i * 4 : i * 4 + 4])) == 1 for i in range(3)) and len(set(found)) == 3


def test_more_clusters_than_examples():
    with refused("3 clusters of 2 examples: at least 1, and at most one an example"):
        clusters(jnp.zeros((2, 1)), 3, jax.random.key(0))
