"""Short public images of the gradient of a linear head, which keep inner products: what a private release is made of.

A sketch is linear in the gradient, and that of example i is the outer product of errors_i and inputs_i, so it is taken
of the two factors and the gradient is never built. Drawn from a public key, it tells nothing of the data.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key
from jaxdistill.objectives.head_matching import HeadParts

SketchKind = Literal["label_rows", "kron", "label_rows+gauss"]
# Numbers of a projection of the vocabulary that are kept; a larger one is drawn anew in blocks wherever it is used.
_KEPT = 64_000_000
_BLOCK = 4096


@runtime_checkable
class Sketch(Protocol):
    """`sketch(parts) -> [n, k]`: of each example's gradient; linear in it."""

    def __call__(self, parts: HeadParts) -> Float[Array, "n k"]: ...


def make_sketch(
    kind: SketchKind, size: int, label_tokens: Int[Array, " c"], vocabulary: int, inputs: int, key: Key
) -> tuple[Sketch, int]:
    """A sketch, and the numbers it has.

    Args:
      kind: "label_rows": the rows of the label tokens, as they are; "label_rows+gauss": these by a Gaussian projection;
        "kron": Gaussian projections of both factors, hence of all rows.
      size: numbers of a projection; without effect for "label_rows". "kron" takes the largest product of two near-equal
        whole numbers that is no larger.
      label_tokens: of the classes.
      vocabulary: rows of the head.
      inputs: numbers of an example's inputs, that of the bias included.
      key: public.

    Raises:
      UserError: a kind that there is not, or a size below 1.
    """
    if size < 1:
        raise UserError(f"sketch size is {size}: accepted is 1 or more")
    if kind == "kron":
        left = max(1, math.isqrt(size))
        return kronecker(key, left, size // left, vocabulary, inputs), left * (size // left)
    if kind == "label_rows":
        return label_rows(label_tokens), label_tokens.shape[0] * inputs
    if kind == "label_rows+gauss":
        full = label_tokens.shape[0] * inputs
        projection = jax.random.normal(key, (full, size)) / math.sqrt(size)
        rows = label_rows(label_tokens)
        return lambda parts: rows(parts) @ projection, size
    raise UserError(f"sketch is {kind!r}: give label_rows, kron or label_rows+gauss")


def label_rows(label_tokens: Int[Array, " c"]) -> Sketch:
    """The rows of the head that are those of the label tokens, c * e numbers."""

    def sketch(parts: HeadParts) -> Float[Array, "n k"]:
        errors = parts.errors[:, label_tokens]
        return jnp.einsum("nc,ne->nce", errors, parts.inputs).reshape(errors.shape[0], -1)

    return sketch


def kronecker(key: Key, left: int, right: int, vocabulary: int, inputs: int) -> Sketch:
    """(P errors) (Q inputs)^T with Gaussian P, Q of variances 1/left and 1/right: inner products keep their mean."""
    left_key, right_key = jax.random.split(key)
    second = jax.random.normal(right_key, (inputs, right)) / math.sqrt(right)
    blocks = -(-vocabulary // _BLOCK)

    def block(index: Array) -> Float[Array, "b k"]:
        return jax.random.normal(jax.random.fold_in(left_key, index), (_BLOCK, left)) / math.sqrt(left)

    kept = None
    if left * vocabulary <= _KEPT:
        kept = jnp.concatenate([block(jnp.asarray(i)) for i in range(blocks)])[:vocabulary]

    def project(errors: Float[Array, "n v"]) -> Float[Array, "n k"]:
        if kept is not None:
            return errors @ kept
        cut = jnp.pad(errors, ((0, 0), (0, blocks * _BLOCK - vocabulary))).reshape(-1, blocks, _BLOCK)

        def add(total: Array, index: Array) -> tuple[Array, None]:
            return total + cut[:, index] @ block(index), None

        return jax.lax.scan(add, jnp.zeros((errors.shape[0], left), errors.dtype), jnp.arange(blocks))[0]

    def sketch(parts: HeadParts) -> Float[Array, "n k"]:
        pairs = jnp.einsum("na,nb->nab", project(parts.errors), parts.inputs @ second)
        return pairs.reshape(parts.errors.shape[0], -1)

    return sketch
