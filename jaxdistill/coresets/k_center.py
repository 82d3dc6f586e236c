"""Greedy k-center: real examples that leave no other far away."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def k_center(features: Float[np.ndarray, "n d"], count: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Farthest-first traversal from the example nearest to the mean: its radius is at most twice the best possible.

    Gonzalez 1985; Sener and Savarese, "Active learning for convolutional neural networks", ICLR 2018, algorithm 1.
    Not what the text distillation literature calls K-centers: that is `k_means`. Ties go to the lowest index; nothing
    is drawn from `rng`. O(n d) a pick.
    """
    first = int(np.argmin(square_distances(features, features.mean(axis=0))))
    return farthest_first(features, np.array([first]), count)


def farthest_first(
    features: Float[np.ndarray, "n d"], chosen: Int[np.ndarray, " m"], count: int
) -> Int[np.ndarray, " k"]:
    """Extend `chosen` (at least one index) to `count` indices, each the example farthest from those before it.

    Where only duplicates of chosen examples are left, these are taken in order: never an index twice.
    """
    picks = [int(index) for index in chosen]
    nearest = np.min([square_distances(features, features[index]) for index in picks], axis=0)
    nearest[picks] = -np.inf
    while len(picks) < count:
        farthest = int(np.argmax(nearest))
        picks.append(farthest)
        nearest = np.minimum(nearest, square_distances(features, features[farthest]))
        nearest[farthest] = -np.inf
    return np.array(picks, dtype=np.int64)


def square_distances(features: Float[np.ndarray, "n d"], point: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
    """Squared Euclidean distance of each row to `point`, by differences so that duplicates are exactly 0 apart."""
    difference = features - point
    return np.einsum("nd,nd->n", difference, difference)
