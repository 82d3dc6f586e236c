"""Clusters with their centres: against Lloyd's algorithm in numpy, and where data are few, equal or broken."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused

from jaxdistill.coresets.centroids import VARIANTS, cluster, cluster_by_class, cluster_globally
from jaxdistill.coresets.clusters import plus_plus

KEY = jax.random.key(0)


def points(number=60, width=4, seed=0):
    """On the unit sphere, so that all variants take them."""
    x = np.random.default_rng(seed).normal(size=(number, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def square_distances(x, centres):
    return ((x[:, None].astype(np.float64) - centres[None]) ** 2).sum(-1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_said_of_clusters_holds(variant):
    x = points()
    found = cluster(x, 5, KEY, variant=variant, restarts=3)
    distances = square_distances(x, found.centres)
    np.testing.assert_array_equal(found.assigned, distances.argmin(axis=1))
    np.testing.assert_allclose(found.inertia, distances.min(axis=1).sum(), rtol=1e-5)
    np.testing.assert_array_equal(found.sizes, np.bincount(found.assigned, minlength=5))
    assert found.sizes.min() > 0
    np.testing.assert_allclose(found.shares.sum(), 1.0, rtol=1e-6)
    inside = np.where(found.assigned[:, None] == np.arange(5), distances, np.inf)
    np.testing.assert_array_equal(found.medoids, inside.argmin(axis=0))
    # It never rises, falls at first, and ends the run when it hardly falls any more.
    assert np.all(np.diff(found.history) <= 1e-6 * found.history[:-1]) and found.history[-1] < found.history[0]
    assert found.inertia == found.history[-1]
    falls = -np.diff(found.history) / found.history[:-1]
    assert falls[-1] < 1e-4 and np.all(falls[:-1] >= 1e-4)
    if variant == "spherical":
        np.testing.assert_allclose(np.linalg.norm(found.centres, axis=1), 1.0, rtol=1e-6)
    if variant == "medoids":
        np.testing.assert_array_equal(found.centres, x[found.medoids])


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_are_those_of_numpy(variant):
    x = points()
    found = cluster(x, 4, KEY, variant=variant, restarts=1, iterations=3, tolerance=0.0)
    (key,) = jax.random.split(KEY, 1)
    padded = np.concatenate([x, np.zeros((4, x.shape[1]), np.float32)])
    centres = np.asarray(plus_plus(jnp.asarray(padded), 4, key, jnp.arange(64) < 60), np.float64)
    assert all((x == centre.astype(np.float32)).all(axis=1).any() for centre in centres)
    history = []
    for _ in range(len(found.history)):
        distances = square_distances(x, centres)
        assigned, last = distances.argmin(axis=1), centres
        history.append(distances.min(axis=1).sum())
        centres = np.stack([x[assigned == k].astype(np.float64).mean(axis=0) for k in range(4)])
        if variant == "spherical":
            centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        if variant == "medoids":
            inside = np.where(assigned[:, None] == np.arange(4), square_distances(x, centres), np.inf)
            centres = x[inside.argmin(axis=0)].astype(np.float64)
    np.testing.assert_allclose(found.history, history, rtol=1e-5)
    np.testing.assert_allclose(found.centres, last, atol=1e-5)
    np.testing.assert_array_equal(found.assigned, assigned)


def test_medoids_are_the_best_members():
    """The member nearest to the mean has the least sum of squared distances to the others."""
    x = points(30)
    found = cluster(x, 3, KEY, variant="medoids", restarts=2, tolerance=0.0)
    for k in range(3):
        mine = np.flatnonzero(found.assigned == k)
        assert found.medoids[k] == mine[square_distances(x[mine], x[mine]).sum(axis=0).argmin()]


def test_separate_groups_are_found_however_rows_are_cut():
    rng = np.random.default_rng(1)
    truth = rng.permutation(np.repeat(np.arange(4), 15))
    x = (rng.normal(size=(4, 3)) * 5)[truth] + 0.1 * rng.normal(size=(60, 3))
    for rows in (4096, 7):
        found = cluster(x, 4, KEY, restarts=4, rows=rows)
        assert len(set(zip(found.assigned.tolist(), truth.tolist(), strict=True))) == 4
        means = np.stack([x[found.assigned == k].mean(axis=0) for k in range(4)])
        np.testing.assert_allclose(found.centres, means, atol=1e-5)


def test_restarts_at_once_are_restarts_in_turn_and_the_best_is_kept():
    x = points(60, 3)
    at_once, again, in_turn = (cluster(x, 8, KEY, restarts=6, axis=axis) for axis in ("vmap", "vmap", "map"))
    np.testing.assert_array_equal(at_once.centres, again.centres)
    np.testing.assert_array_equal(at_once.assigned, in_turn.assigned)
    np.testing.assert_array_equal(at_once.medoids, in_turn.medoids)
    np.testing.assert_allclose(at_once.centres, in_turn.centres, atol=1e-6)
    np.testing.assert_allclose(at_once.history, in_turn.history, rtol=1e-6)
    other = cluster(x, 8, jax.random.key(1), restarts=6)
    assert not np.array_equal(at_once.assigned, other.assigned)
    from sklearn.cluster import KMeans

    usual = np.median([KMeans(8, n_init=1, random_state=i).fit(x).inertia_ for i in range(9)])
    assert at_once.inertia < 1.01 * usual


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_cluster_and_one_an_example(variant):
    x = points(12)
    one, all_of_them = (cluster(x, count, KEY, variant=variant, restarts=2) for count in (1, 12))
    mean = x.mean(axis=0)
    nearest = square_distances(x, mean[None]).argmin()
    expected = {"euclidean": mean, "spherical": mean / np.linalg.norm(mean), "medoids": x[nearest]}[variant]
    np.testing.assert_allclose(one.centres[0], expected, atol=1e-6)
    assert one.medoids[0] == nearest and one.sizes.tolist() == [12]
    np.testing.assert_allclose(all_of_them.centres[all_of_them.assigned], x, atol=1e-6)
    assert sorted(all_of_them.medoids) == list(range(12)) and all_of_them.inertia < 1e-10


@pytest.mark.parametrize("variant", VARIANTS)
def test_duplicates_alone(variant):
    same = cluster(np.repeat(points(1), 12, axis=0), 12, KEY, variant=variant, restarts=2)
    assert same.inertia == 0.0 and same.sizes.tolist() == [12] + [0] * 11 and same.medoids.tolist() == [0] * 12
    assert np.isfinite(same.centres).all()
    three = cluster(np.repeat(np.eye(3, 4, dtype=np.float32), 4, axis=0), 12, KEY, variant=variant, restarts=2)
    assert sorted(three.sizes) == [0] * 9 + [4] * 3 and set(three.medoids) == {0, 4, 8}


def test_empty_clusters_begin_anew_at_the_farthest():
    """Two far vectors among many near ones, and more clusters than that: all have members in the end."""
    near = np.random.default_rng(0).normal(size=(60, 2)) * 1e-3
    x = np.concatenate([near, [[9.0, 9.0], [-9.0, 9.0]]]).astype(np.float32)
    for i in range(3):
        found = cluster(x, 6, jax.random.key(i), restarts=1)
        assert found.sizes.min() > 0
        far = found.assigned[60:]
        assert found.sizes[far].tolist() == [1, 1]


def test_an_empty_cluster_takes_the_farthest_vector(monkeypatch):
    """From a start of twice the same vector the second cluster has no members."""
    from jaxdistill.coresets import centroids

    # Another width than elsewhere, so that no compiled program is taken from before.
    x = np.array([[0.0] * 7, [1.0] * 7, [5.0] * 7], np.float32)
    monkeypatch.setattr(centroids, "plus_plus", lambda features, count, key, present: features[jnp.zeros(2, int)])
    found = cluster(x, 2, KEY, restarts=1, iterations=1)
    # The mean of all, 2, and the vector farthest from the first centre, 5; (0, 1) are nearer to the former.
    np.testing.assert_allclose(found.centres[:, 0], [2.0, 5.0])
    np.testing.assert_allclose(found.history, [7 * 26, 7 * 5])
    assert found.assigned.tolist() == [0, 0, 1]


def test_clusters_by_class_stay_in_their_class():
    x, labels = points(50), np.random.default_rng(0).integers(0, 2, 50)
    found = cluster_by_class(x, labels, 2, 3, KEY, restarts=2)
    np.testing.assert_array_equal(found.clusters.assigned // 3, labels)
    np.testing.assert_array_equal(found.labels.argmax(axis=1), [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.labels.sum(axis=1), 1.0)
    np.testing.assert_allclose(found.shares.reshape(2, 3).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(found.clusters.assigned[found.clusters.medoids], np.arange(6))
    alone = cluster(x[labels == 1], 3, jax.random.fold_in(KEY, 1), restarts=2)
    np.testing.assert_array_equal(found.clusters.centres[3:], alone.centres)
    np.testing.assert_allclose(found.shares[3:], alone.sizes / (labels == 1).sum())
    distances = square_distances(x, found.clusters.centres)[np.arange(50), found.clusters.assigned]
    np.testing.assert_allclose(found.clusters.inertia, distances.sum(), rtol=1e-5)
    np.testing.assert_allclose(found.clusters.history[-1], found.clusters.inertia, rtol=1e-6)
    assert np.all(np.diff(found.clusters.history) <= 1e-5)


def test_global_clusters_have_the_labels_of_their_members():
    x, labels = points(50), np.random.default_rng(0).integers(0, 3, 50)
    found = cluster_globally(x, labels, 3, 2, KEY, restarts=2)
    assert found.labels.shape == (6, 3)
    for k in range(6):
        counts = np.bincount(labels[found.clusters.assigned == k], minlength=3)
        np.testing.assert_allclose(found.labels[k], counts / counts.sum(), rtol=1e-6)
    np.testing.assert_allclose(found.labels.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(found.shares, found.clusters.sizes.astype(np.float32) / np.float32(50))
    # Two distinct examples in four clusters: the empty ones are labelled by an example all the same.
    few = cluster_globally(np.repeat(points(2), 3, axis=0), np.repeat([0, 1], 3), 2, 2, KEY, restarts=1)
    np.testing.assert_array_equal(few.labels, np.eye(2)[np.repeat([0, 1], 3)[few.clusters.medoids]])


def test_what_cannot_be_clustered():
    x = points(4)
    broken = x.copy()
    broken[2, 1] = np.nan
    with refused("5 clusters of 4 examples: at least 1, and at most one an example"):
        cluster(x, 5, KEY)
    with refused("the features of example 2 are not finite"):
        cluster(broken, 2, KEY)
    with refused("the features of example 0 have length 2; spherical clusters are for vectors of length 1"):
        cluster(2 * x, 2, KEY, variant="spherical")
    for options in ({"variant": "cubic"}, {"axis": "pmap"}):
        (name,) = options
        with refused(f"clusters: {name} '{options[name]}' is unknown; accepted are "):
            cluster(x, 2, KEY, **options)
    for name in ("restarts", "iterations", "rows"):
        with refused(f"clusters: {name} is 0; expected at least 1"):
            cluster(x, 2, KEY, **{name: 0})
    with refused("tolerance is 1.0"):
        cluster(x, 2, KEY, tolerance=1.0)
    with refused("class 1 has 1 examples: too few for 2 clusters"):
        cluster_by_class(x, np.array([0, 0, 0, 1]), 2, 2, KEY)
    with refused("label 2 of example 3; there are 2 classes"):
        cluster_globally(x, np.array([0, 0, 1, 2]), 2, 1, KEY)
