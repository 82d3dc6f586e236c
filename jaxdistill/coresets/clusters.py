"""K-means clusters on the device, from a key: for the many clusterings that a training loop makes.

`k_means` chooses a coreset once and takes scikit-learn's; this one runs where the vectors are. `centroids` has the
clusterings of which the centres themselves are wanted.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key


def plus_plus(
    features: Float[Array, "n d"], count: int, key: Key, present: Bool[Array, " n"] | None = None
) -> Float[Array, "k d"]:
    """Starts of k-means, each drawn in proportion to the squared distance from those there are, the first one uniformly
    (k-means++, Arthur and Vassilvitskii 2007).

    Args:
      features: of n examples.
      count: starts k, at most as many as examples are present.
      key: of the draws.
      present: False for rows of padding, which stand behind all others and are never drawn.
    """
    number = features.shape[0]

    def seed(i: Int[Array, ""], state: tuple[Float[Array, "k d"], Float[Array, " n"]]):
        centres, nearest = state
        weights = jnp.where(jnp.isinf(nearest), 1.0, nearest)  # the first is drawn uniformly
        drawn = jax.random.categorical(jax.random.fold_in(key, i), jnp.log(weights))
        # Where all vectors are starts already, every weight is 0 and any will do.
        centre = features[jnp.where(jnp.any(nearest > 0), drawn, i % number)]
        gaps = features - centre[None]
        return centres.at[i].set(centre), jnp.minimum(nearest, jnp.sum(gaps * gaps, axis=1))

    start = jnp.zeros((count, features.shape[1]), features.dtype)
    nearest = jnp.full(number, jnp.inf, features.dtype)
    nearest = nearest if present is None else jnp.where(present, nearest, 0.0)
    return jax.lax.fori_loop(0, count, seed, (start, nearest))[0]


def check_count(count: int, number: int) -> None:
    """Whether that many clusters can be made of that many examples.

    Raises:
      UserError: they cannot.
    """
    if not 1 <= count <= number:
        raise UserError(f"{count} clusters of {number} examples: at least 1, and at most one an example")


@functools.partial(jax.jit, static_argnames=("count", "iterations", "rows"))
def _clusters(features: Float[Array, "n d"], key: Key, *, count: int, iterations: int, rows: int) -> Int[Array, " n"]:
    number = features.shape[0]

    def distances_to(centres: Float[Array, "k d"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
        """Nearest centre and squared distance to it; ties go to the first."""
        lengths = jnp.sum(centres * centres, axis=1)

        def nearest(x: Float[Array, " d"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
            to_all = lengths - 2 * centres @ x
            return jnp.argmin(to_all), jnp.maximum(jnp.min(to_all) + x @ x, 0.0)

        return jax.lax.map(nearest, features, batch_size=rows)

    def means(assigned: Int[Array, " n"], nearest: Float[Array, " n"]) -> Float[Array, "k d"]:
        """Means of the clusters; those without members take the vectors farthest from their own centres."""
        sizes = jax.ops.segment_sum(jnp.ones(number, features.dtype), assigned, num_segments=count)
        sums = jax.ops.segment_sum(features, assigned, num_segments=count)
        empty = sizes == 0
        farthest = jnp.argsort(-nearest, stable=True)
        spare = features[farthest[jnp.clip(jnp.cumsum(empty) - 1, 0, number - 1)]]
        return jnp.where(empty[:, None], spare, sums / jnp.maximum(sizes, 1.0)[:, None])

    def step(state: tuple[Int[Array, ""], Int[Array, " n"], Float[Array, " n"], Array]):
        done, assigned, nearest, _ = state
        found, distances = distances_to(means(assigned, nearest))
        return done + 1, found.astype(jnp.int32), distances, jnp.any(found != assigned)

    assigned, nearest = distances_to(plus_plus(features, count, key))
    first = (jnp.zeros((), jnp.int32), assigned.astype(jnp.int32), nearest, jnp.asarray(True))
    return jax.lax.while_loop(lambda state: state[3] & (state[0] < iterations), step, first)[1]


def clusters(
    features: Float[Array, "n d"], count: int, key: Key, *, iterations: int = 300, rows: int = 4096
) -> Int[Array, " n"]:
    """Lloyd's k-means from a k-means++ start (Arthur and Vassilvitskii 2007), Euclidean, one restart.

    A cluster that loses its members starts again at the vector farthest from its centre. Where there are fewer distinct
    vectors than clusters, some stay empty.

    Args:
      features: of n examples.
      count: clusters.
      key: of the start.
      iterations: at most; it ends when no example changes its cluster.
      rows: examples whose distances to all centres are in memory at once.

    Returns:
      cluster of each example, from 0.

    Raises:
      UserError: fewer examples than clusters.
    """
    check_count(count, features.shape[0])
    return _clusters(features, key, count=count, iterations=iterations, rows=min(rows, features.shape[0]))
