"""Vectors to invert: between centre and medoid, as long as their members; and their distance from real ones."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused

from jaxdistill.coresets.centroids import Clustering
from jaxdistill.evaluation.inversion_targets import inversion_targets, off_manifold_ratio

# Two clusters and an empty one, whose centre is a member of another.
FEATURES = np.array([[3.0, 0.0], [0.0, 4.0], [2.0, 2.0], [-6.0, 0.0], [-8.0, 0.0]], np.float32)
CENTRES = np.array([[5 / 3, 2.0], [-7.0, 0.0], [-8.0, 0.0]], np.float32)
CLUSTERS = Clustering(
    centres=CENTRES,
    assigned=np.array([0, 0, 0, 1, 1], np.int32),
    medoids=np.array([2, 3, 4], np.int32),
    sizes=np.array([3, 2, 0], np.int32),
    inertia=1.0,
    history=np.ones(1, np.float32),
)
LENGTHS = np.array([(3 + 4 + 8**0.5) / 3, 7.0, 8.0])
KINDS = ("centroid", "medoid")


def test_targets_by_hand():
    raw = inversion_targets(FEATURES, CLUSTERS, kind="shrunk", tau=0.25, rescale=False)
    np.testing.assert_allclose(raw, 0.75 * CENTRES + 0.25 * FEATURES[[2, 3, 4]], rtol=1e-6)
    scaled = inversion_targets(FEATURES, CLUSTERS, kind="shrunk", tau=0.25)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), LENGTHS, rtol=1e-6)
    np.testing.assert_allclose(scaled / LENGTHS[:, None], raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-5)
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("rescale", [True, False])
def test_shrunk_goes_from_centroid_to_medoid(rescale):
    none, half, whole = (inversion_targets(FEATURES, CLUSTERS, tau=tau, rescale=rescale) for tau in (0.0, 0.5, 1.0))
    centroid, medoid = (inversion_targets(FEATURES, CLUSTERS, kind=kind, rescale=rescale) for kind in KINDS)
    np.testing.assert_array_equal(none, centroid)
    np.testing.assert_array_equal(medoid, FEATURES[[2, 3, 4]])
    longer = LENGTHS / np.linalg.norm(medoid, axis=1) if rescale else np.ones(3)
    np.testing.assert_allclose(whole, medoid * longer[:, None], rtol=1e-6)
    np.testing.assert_array_equal(half, inversion_targets(FEATURES, CLUSTERS, rescale=rescale))
    if not rescale:
        np.testing.assert_allclose(centroid, CENTRES)


def test_ratio_by_hand():
    real = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]])
    # Distances to the nearest other: 1, 1, 2, 4, 8.
    found = off_manifold_ratio(np.array([[5.0], [3.0], [-3.0]]), real)
    np.testing.assert_array_equal(found, [1.0, 0.0, 1.5])
    np.testing.assert_array_equal(
        off_manifold_ratio(np.array([[5.0], [3.0], [-3.0]]), np.repeat(real, 3, axis=0)), found
    )


def test_ratio_of_many_is_that_of_all_distances():
    rng = np.random.default_rng(0)
    # Far from the origin, where squared distances of float32 numbers lose their digits.
    real, targets = ((rng.normal(size=(n, 5)) + 100).astype(np.float32) for n in (90, 7))
    distances = np.linalg.norm(real[:, None].astype(np.float64) - real[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    to_real = np.linalg.norm(targets[:, None].astype(np.float64) - real[None], axis=-1).min(axis=1)
    for rows in (8192, 16):
        found = off_manifold_ratio(targets, real, rows=rows)
        np.testing.assert_allclose(found, to_real / np.median(distances.min(axis=1)), rtol=1e-6)
        np.testing.assert_array_equal(off_manifold_ratio(real, real, rows=rows), 0.0)
    distances = distances[np.lexsort(real.T[::-1])]
    drawn = np.sort(np.random.default_rng(0).choice(90, 10, replace=False))
    few = off_manifold_ratio(targets, real, sample=10)
    np.testing.assert_allclose(few, to_real / np.median(distances.min(axis=1)[drawn]), rtol=1e-6)


def test_what_has_no_target():
    with refused("kind 'mean' is unknown; accepted are centroid, shrunk, medoid"):
        inversion_targets(FEATURES, CLUSTERS, kind="mean")
    with refused("tau is 1.5; expected a share from 0 to 1"):
        inversion_targets(FEATURES, CLUSTERS, tau=1.5)
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    numbers = np.zeros(2, np.int32)
    both = Clustering(np.zeros((1, 2), np.float32), numbers, numbers[:1], numbers[:1] + 2, 2.0, np.ones(1, np.float32))
    with refused("the members of cluster 0 cancel, so their mean has no direction"):
        inversion_targets(opposite, both, kind="centroid")
    with refused("1 different real vectors, sample 1000, rows 8192; expected at least 2, 1 and 1"):
        off_manifold_ratio(opposite, np.repeat(opposite[:1], 3, axis=0))
