"""The vectors that an inverter turns into texts, one a cluster, and how far from real texts they lie.

DaLLME-style, after Tao et al., Findings of EMNLP 2024; which vector to invert that work does not say, so the choices
here are ours. Means of sentence vectors are shorter than any of their members and lie where no text does: hence the
rescaling, and `off_manifold_ratio`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from jaxdistill.core.errors import UserError
from jaxdistill.coresets.centroids import Clustering

TARGETS = ("centroid", "shrunk", "medoid")
_ROWS = 8192  # real vectors compared at once: with 1,000 others 65 MB of distances
_SMALLEST = 1e-6


def inversion_targets(
    features: Float[np.ndarray, "n d"],
    clusters: Clustering,
    *,
    kind: str = "shrunk",
    tau: float = 0.5,
    rescale: bool = True,
) -> Float32[np.ndarray, "k d"]:
    """One vector to invert a cluster.

    Args:
      features: of the n clustered examples.
      clusters: of them.
      kind: "centroid" is the centre; "shrunk" is (1 - tau) of it and tau of the medoid's vector; "medoid" is the
        latter alone, as it is: the vector of a real text.
      tau: from 0 to 1, of "shrunk".
      rescale: give "centroid" and "shrunk" the mean length of the cluster's members (of the medoid, where a cluster is
        empty).

    Raises:
      UserError: an unknown kind, a `tau` out of range, or a centre that is to be rescaled and is 0.
    """
    if kind not in TARGETS:
        raise UserError(f"inversion targets: kind {kind!r} is unknown; accepted are {', '.join(TARGETS)}")
    if not 0.0 <= tau <= 1.0:
        raise UserError(f"inversion targets: tau is {tau}; expected a share from 0 to 1")
    medoids = features[clusters.medoids].astype(np.float64)
    if kind == "medoid":
        return medoids.astype(np.float32)
    share = tau if kind == "shrunk" else 0.0
    targets = (1.0 - share) * clusters.centres + share * medoids
    if not rescale:
        return targets.astype(np.float32)
    lengths = np.linalg.norm(features.astype(np.float64), axis=1)
    total = np.bincount(clusters.assigned, lengths, minlength=len(targets))
    mean = np.where(clusters.sizes > 0, total / np.maximum(clusters.sizes, 1), lengths[clusters.medoids])
    own = np.linalg.norm(targets, axis=1)
    if len(short := np.flatnonzero(own < _SMALLEST * mean)):
        raise UserError(
            f"inversion targets: the members of cluster {short[0]} cancel, so their mean has no direction; "
            "make more clusters, or invert kind medoid"
        )
    return (targets * (mean / np.maximum(own, np.finfo(float).tiny))[:, None]).astype(np.float32)


def off_manifold_ratio(
    targets: Float[np.ndarray, "k d"],
    real: Float[np.ndarray, "n d"],
    *,
    sample: int = 1000,
    rows: int = _ROWS,
) -> Float64[np.ndarray, " k"]:
    """Distance of each target to the nearest real vector, over the median distance of real ones to theirs.

    0 for the vector of a real text, about 1 for that of another text of the kind. Costs 2 (k + sample) n d operations
    in float64.

    Args:
      targets: any vectors.
      real: those of the real texts; one that is there more than once counts once.
      sample: real vectors, always the same for as many, whose distances to their nearest other one the median is of.
      rows: real vectors compared at once.

    Raises:
      UserError: fewer than two different real vectors.
    """
    real = np.unique(real, axis=0)
    number = len(real)
    if number < 2 or sample < 1 or rows < 1:
        raise UserError(
            f"off-manifold ratio: {number} different real vectors, sample {sample}, rows {rows}; expected at least 2, "
            "1 and 1"
        )
    drawn = np.sort(np.random.default_rng(0).choice(number, min(sample, number), replace=False))
    return _nearest(targets, real, rows) / np.median(_nearest(real[drawn], real, rows, own=drawn))


def _nearest(
    queries: Float[np.ndarray, "q d"],
    real: Float[np.ndarray, "n d"],
    rows: int,
    own: Int[np.ndarray, " q"] | None = None,
) -> Float64[np.ndarray, " q"]:
    """Distance of each query to the nearest real vector other than its own."""
    queries = queries.astype(np.float64)
    least, place = np.full(len(queries), np.inf), np.zeros(len(queries), np.int64)
    for start in range(0, len(real), rows):
        block = real[start : start + rows].astype(np.float64)
        # Squared distances less the squared length of the query.
        found = np.sum(block * block, axis=1)[None] - 2.0 * queries @ block.T
        if own is not None:
            mine = np.flatnonzero((own >= start) & (own < start + len(block)))
            found[mine, own[mine] - start] = np.inf
        best = found.argmin(axis=1)
        value = found[np.arange(len(queries)), best]
        closer = value < least
        least[closer], place[closer] = value[closer], best[closer] + start
    # From the vectors themselves: exactly 0 where they are the same.
    return np.linalg.norm(queries - real[place], axis=1)
