"""The real side of matching where nothing may be told of a real example: noisy sums, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.core.types import Batch, Learner, PyTree, Variables


@runtime_checkable
class NoisySums(Protocol):
    def __call__(
        self, contribution: Callable[[Batch], Float[Array, "m k"]], real_batch: PyTree, /, *, by_class: bool
    ) -> Float[Array, "c k"]:
        """Sums of what the real examples contribute, clipped example by example and with noise.

        Nothing else reads the batch, whose type is the affair of who makes it.

        Args:
          contribution: of the examples of an unpacked batch, a row each; it must not look from one at another.
          real_batch: of one outer step.
          by_class: a sum for each class; otherwise one of all, c = 1.
        """
        ...


def example_gradients(
    learner: Learner, frozen: PyTree, params: PyTree, complete: Callable[[PyTree], PyTree] = lambda params: params
) -> Callable[[Batch], Float[Array, "m k"]]:
    """The contribution that is each example's gradient of the cross-entropy, flat.

    Args:
      learner: whose loss it is.
      frozen: parameters that it only reads.
      params: of which the gradient is taken.
      complete: makes all trainable parameters of them.
    """

    def loss(p: PyTree, example: Batch) -> Float[Array, ""]:
        logits = learner.apply(Variables(complete(p), frozen), example).logits
        return example_cross_entropy(logits, example.labels)[0]

    def one(example: Batch) -> Float[Array, " k"]:
        alone = jax.tree.map(lambda x: x[None], example)
        return ravel_pytree(jax.grad(loss)(params, alone))[0]

    return jax.vmap(one)


def as_params(sums: Float[Array, "c k"], params: PyTree) -> PyTree:
    """Rows of flat gradients as trees like `params`, stacked."""
    return jax.vmap(ravel_pytree(params)[1])(sums)


def bounded_features(features: Float[Array, "n d"], bound: float) -> Float[Array, "n d"]:
    """Vectors of at most the given norm."""
    squares = jnp.sum(features * features, axis=1, keepdims=True)
    # By squares: the derivative of a norm at 0 is not finite.
    return features * jnp.where(squares > bound * bound, bound / jnp.sqrt(jnp.maximum(squares, bound * bound)), 1.0)


def counted_features(features: Float[Array, "n d"], bound: float) -> Float[Array, "n e"]:
    """Contributions of norm 1 at most whose sum tells the mean of the vectors, e = d + 1: a vector and a one."""
    ones = jnp.ones((features.shape[0], 1), features.dtype)
    return jnp.concatenate([bounded_features(features, bound) / bound, ones], axis=1) / 2.0**0.5


def mean_features(sums: Float[Array, "c e"], bound: float) -> Float[Array, "c d"]:
    """Mean vectors of the sums of `counted_features`; a count that the noise drowns is taken for 1."""
    sums = sums * 2.0**0.5
    return bound * sums[:, :-1] / jnp.maximum(sums[:, -1:], 1.0)
