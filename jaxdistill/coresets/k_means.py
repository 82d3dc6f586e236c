"""K-means representatives: what DiLM and the works after it call "K-centers"."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float, Int

from jaxdistill.coresets.k_center import farthest_first, square_distances


def k_means(features: Float[np.ndarray, "n d"], count: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Cluster into `count` groups and take from each the member nearest to its mean.

    Maekawa et al., "DiLM", Findings of NAACL 2024: k-means++ start, one restart, at most 300 iterations, Euclidean.
    Where there are fewer distinct examples than clusters, some clusters stay empty: the places left over are filled
    farthest-first. Ties go to the lowest index.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    start = int(rng.integers(2**31))
    # scikit-learn has no annotations, so n_init is taken for a string after its default "auto".
    clustering = KMeans(count, init="k-means++", n_init=1, max_iter=300, random_state=start)  # pyright: ignore
    with warnings.catch_warnings():
        # Fewer distinct points than clusters: handled below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        assigned = clustering.fit_predict(features)
    representatives = []
    for cluster in range(count):
        members = np.flatnonzero(assigned == cluster)
        if len(members):
            # The mean of the members themselves: scikit-learn's centre may lag one iteration behind at max_iter.
            mean = features[members].mean(axis=0)
            representatives.append(members[np.argmin(square_distances(features[members], mean))])
    return farthest_first(features, np.array(representatives), count)
