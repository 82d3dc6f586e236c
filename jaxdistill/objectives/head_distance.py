"""How far the gradient of a language model's head on a few texts is from a target, without building either.

With h_i what the head reads and d_i the probabilities minus the label, the gradient of the mean loss of n texts is
(1/n) sum d_i h_i^T for the matrix and (1/n) sum d_i for the bias. Inner products of two such sums are sums of products
of inner products of the factors, so that no array is as large as the head, and the derivative to the texts is of first
order.

Source: GRADMM (Nguyen et al., ICML 2025), whose distances these are.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import pytree
from jaxdistill.objectives.head_matching import HeadParts
from jaxdistill.objectives.head_sketch import Sketch

Distance = Literal["cos", "l2", "tag"]
_TINY = 1e-12


@pytree
class FactoredTarget:
    """The gradient on real texts as its factors: their weighted sum.

    Attributes:
      parts: of the n texts; `inputs` end with the bias's 1.
      weights: of each; 1/n for the mean.
    """

    parts: HeadParts
    weights: Float[Array, " n"]


@pytree
class DenseTarget:
    """The gradient itself; e = d + 1, the bias last."""

    gradient: Float[Array, "v e"]


@pytree
class SketchedTarget:
    """A sketch of the gradient up to its length, which the cosine does not see."""

    sketch: Float[Array, " k"]


Target = FactoredTarget | DenseTarget | SketchedTarget


def head_distance(
    target: Target,
    parts: HeadParts,
    kind: Distance = "cos",
    *,
    bias: bool = True,
    sketch: Sketch | None = None,
    tag_factor: float = 0.01,
) -> Float[Array, ""]:
    """Distance of the mean gradient of n texts to the target; differentiable in the texts' parts.

    Args:
      target: a sketched one needs "cos", since only its direction is known.
      parts: of the n texts, by one head with the target's.
      kind: "cos", the mean over matrix and bias of one minus the cosine (one vector where sketched); "l2", the sum of
        squared differences; "tag", that plus `tag_factor` times their absolute sum, which needs a dense target.
      bias: whether the head has one; without, the matrix counts alone (the bias's inputs are 0 then, see `head_parts`).
      sketch: that of the target.
      tag_factor: see `kind`.

    Raises:
      UserError: a distance that the target does not have.
    """
    count = parts.errors.shape[0]
    weights = jnp.full(count, 1.0 / count, parts.errors.dtype)
    if isinstance(target, SketchedTarget):
        if kind != "cos" or sketch is None:
            raise UserError(f"distance is {kind!r}: a noisy sum has a direction alone, give cos")
        whole = weights @ sketch(parts)
        return 1.0 - _cosine(whole @ target.sketch, _square(whole), _square(target.sketch))
    if kind == "tag":
        if not isinstance(target, DenseTarget):
            raise UserError("distance tag adds up all numbers of the gradient: it needs a dense target")
        difference = parts.gradient(weights) - target.gradient
        return _square(difference) + tag_factor * jnp.sum(jnp.abs(difference))
    own, own_bias = _products(parts, weights, parts, weights)
    between, bias_between = _between(target, parts, weights)
    real, bias_real = _squares(target)
    if kind == "l2":
        return (own - 2.0 * between + real) + float(bias) * (own_bias - 2.0 * bias_between + bias_real)
    return _mean_distance(_cosine(between, own, real), _cosine(bias_between, own_bias, bias_real), bias)


def each_distance(
    target: Target, parts: HeadParts, *, bias: bool = True, sketch: Sketch | None = None
) -> Float[Array, " n"]:
    """`head_distance` "cos" of each text by itself."""
    if isinstance(target, SketchedTarget):
        if sketch is None:
            raise UserError("a sketched target needs its sketch")
        own = sketch(parts)
        return 1.0 - _cosine(own @ target.sketch, jnp.sum(own * own, axis=1), _square(target.sketch))
    features, errors = parts.inputs[:, :-1], parts.errors
    squares = jnp.sum(errors * errors, axis=1)
    real, bias_real = _squares(target)
    if isinstance(target, DenseTarget):
        matrix, last = target.gradient[:, :-1], target.gradient[:, -1]
        between, bias_between = jnp.einsum("nv,ve,ne->n", errors, matrix, features), errors @ last
    else:
        alike = errors @ target.parts.errors.T
        between = (alike * (features @ target.parts.inputs[:, :-1].T)) @ target.weights
        bias_between = alike @ target.weights
    matrix_cosine = _cosine(between, squares * jnp.sum(features * features, axis=1), real)
    return _mean_distance(matrix_cosine, _cosine(bias_between, squares, bias_real), bias)


def _mean_distance(matrix: Array, last: Array, bias: bool) -> Array:
    return 1.0 - 0.5 * (matrix + last) if bias else 1.0 - matrix


def _products(
    left: HeadParts, left_weights: Float[Array, " n"], right: HeadParts, right_weights: Float[Array, " m"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Inner products of two gradients: of the matrices, of the biases."""
    alike = jnp.einsum("n,m,nm->nm", left_weights, right_weights, left.errors @ right.errors.T)
    return jnp.sum(alike * (left.inputs[:, :-1] @ right.inputs[:, :-1].T)), jnp.sum(alike)


def _between(
    target: FactoredTarget | DenseTarget, parts: HeadParts, weights: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    if isinstance(target, FactoredTarget):
        return _products(parts, weights, target.parts, target.weights)
    matrix, last = target.gradient[:, :-1], target.gradient[:, -1]
    along = jnp.einsum("nv,ve,ne->n", parts.errors, matrix, parts.inputs[:, :-1])
    return weights @ along, weights @ (parts.errors @ last)


def _squares(target: FactoredTarget | DenseTarget) -> tuple[Float[Array, ""], Float[Array, ""]]:
    if isinstance(target, FactoredTarget):
        return _products(target.parts, target.weights, target.parts, target.weights)
    return _square(target.gradient[:, :-1]), _square(target.gradient[:, -1])


def _square(x: Array) -> Float[Array, ""]:
    return jnp.sum(x * x)


def _cosine(product: Array, left_square: Array, right_square: Array) -> Array:
    """0 where one of the vectors is 0."""
    usable = (left_square > 0) & (right_square > 0)
    left, right = (jnp.where(usable, jnp.maximum(x, 0.0), 1.0) for x in (left_square, right_square))
    return jnp.where(usable, product / (jnp.sqrt(left) * jnp.sqrt(right) + _TINY), 0.0)
