"""Herding: real examples whose running mean stays as near as can be to the class mean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def herding(features: Float[np.ndarray, "n d"], count: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Add, one after another, the x that minimises |S + x - (m + 1) mu|, with S the sum of the m chosen so far.

    Welling, "Herding dynamical weights to learn", ICML 2009, without replacement. The first is the example nearest to
    the mean. Ties go to the lowest index; nothing is drawn from `rng`. O(n d) a pick.
    """
    # Around the mean the criterion is |R + z|^2 with R the sum of the chosen z: no difference of large numbers.
    centred = features - features.mean(axis=0)
    square_norms = np.einsum("nd,nd->n", centred, centred)
    residual = np.zeros(features.shape[1])
    free = np.ones(len(features), dtype=bool)
    chosen = np.empty(count, dtype=np.int64)
    for place in range(count):
        error = np.where(free, square_norms + 2 * centred @ residual, np.inf)
        chosen[place] = best = int(np.argmin(error))
        free[best] = False
        residual += centred[best]
    return chosen
