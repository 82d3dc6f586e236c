"""Distances between two parameter-shaped trees, and between two weighted samples of feature vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdistill.core import tree
from jaxdistill.core.types import PyTree

TreeDistance = Literal["cosine_layer", "cosine", "l2"]
TREE_DISTANCES: tuple[TreeDistance, ...] = ("cosine_layer", "cosine", "l2")
Kernel = Literal["mean", "gaussian", "polynomial", "energy"]
KERNELS: tuple[Kernel, ...] = ("mean", "gaussian", "polynomial", "energy")
# Bandwidths of the Gaussian kernel, as multiples of the mean squared distance between real vectors.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
_TINY = 1e-12


def tree_distance(a: PyTree, b: PyTree, kind: TreeDistance, groups: PyTree) -> Float[Array, ""]:
    """Distance of two trees.

    Args:
      a, b: trees of the same shape.
      kind: "cosine_layer" is the mean over layers of 1 − cos, "cosine" is 1 − cos of the flat vectors, "l2" is the
        squared Euclidean distance. Where one of two vectors is 0, the cosine is 0.
      groups: tree like `a` that names the layer of each leaf, as `Learner.groups` does.
    """
    if kind == "l2":
        difference = jax.tree.map(jnp.subtract, a, b)
        return tree.dot(difference, difference)
    if kind == "cosine":
        return 1.0 - _cosine(tree.dot(a, b), tree.dot(a, a), tree.dot(b, b))
    count = 1 + max(int(np.max(group)) for group in jax.tree.leaves(groups))
    products = [_by_group(x, y, groups, count) for x, y in ((a, b), (a, a), (b, b))]
    present = np.zeros(count, bool)
    for group in jax.tree.leaves(groups):
        present[group] = True
    return jnp.mean((1.0 - _cosine(*products))[np.flatnonzero(present)])


def weighted_mmd(
    real: Float[Array, "n d"],
    synthetic: Float[Array, "m d"],
    real_weights: Float[Array, " n"],
    synthetic_weights: Float[Array, " m"],
    kernel: Kernel,
) -> Float[Array, ""]:
    """Squared maximum mean discrepancy of two weighted samples (biased estimate, Gretton et al. 2012, eq. 5).

    Args:
      real, synthetic: vectors.
      real_weights, synthetic_weights: not negative; each is normalised to sum 1.
      kernel: "mean" is the linear kernel, the squared distance of the means (Zhao & Bilen 2023); "gaussian" sums
        exp(−|x − y|² / 2σ²) over `BANDWIDTHS`; "polynomial" is (1 + ⟨x, y⟩ / s)³ with s the mean squared norm of real
        vectors; "energy" is −|x − y| (Székely & Rizzo).
    """
    p = real_weights / jnp.maximum(jnp.sum(real_weights), _TINY)
    q = synthetic_weights / jnp.maximum(jnp.sum(synthetic_weights), _TINY)
    if kernel == "mean":
        difference = p @ real - q @ synthetic
        return difference @ difference
    k = _kernel(kernel, real, p)
    return p @ k(real, real) @ p - 2.0 * (p @ k(real, synthetic) @ q) + q @ k(synthetic, synthetic) @ q


def _kernel(name: Kernel, real: Float[Array, "n d"], p: Float[Array, " n"]) -> Callable[[Array, Array], Array]:
    """The kernel, with its scale taken from real vectors; the scale is a constant."""
    if name == "polynomial":
        scale = jax.lax.stop_gradient(jnp.maximum(p @ jnp.sum(real * real, axis=-1), _TINY))
        return lambda x, y: (1.0 + x @ y.T / scale) ** 3.0
    if name == "energy":
        return lambda x, y: -jnp.sqrt(_squared_distances(x, y) + _TINY)
    scale = jax.lax.stop_gradient(jnp.maximum(p @ _squared_distances(real, real) @ p, _TINY))

    def gaussian(x: Array, y: Array) -> Array:
        distances = _squared_distances(x, y) / scale
        return sum((jnp.exp(-0.5 * distances / width) for width in BANDWIDTHS), start=jnp.zeros_like(distances))

    return gaussian


def _squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    squares = jnp.sum(x * x, axis=-1)[:, None] + jnp.sum(y * y, axis=-1)[None, :] - 2.0 * x @ y.T
    return jnp.maximum(squares, 0.0)


def _cosine(product: Array, a_squared: Array, b_squared: Array) -> Array:
    # The inner `where` keeps the derivative finite where a norm is 0, or so small that its cube is.
    positive = jnp.minimum(a_squared, b_squared) > _TINY**2
    a_safe, b_safe = (jnp.where(positive, x, jnp.ones_like(x)) for x in (a_squared, b_squared))
    return jnp.where(positive, product * jax.lax.rsqrt(a_safe) * jax.lax.rsqrt(b_safe), 0.0)


def _by_group(a: PyTree, b: PyTree, groups: PyTree, count: int) -> Float[Array, " g"]:
    """Inner products of two trees, summed over the leaves (or stacked layers) of each group."""

    total = jnp.zeros(count, jnp.result_type(*jax.tree.leaves(a)))
    for x, y, group in zip(jax.tree.leaves(a), jax.tree.leaves(b), jax.tree.leaves(groups), strict=True):
        total = total.at[group].add(jnp.sum(x * y, axis=tuple(range(group.ndim, x.ndim))))
    return total
