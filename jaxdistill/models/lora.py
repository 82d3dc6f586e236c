"""Low-rank adapters (Hu et al., "LoRA", 2021) as a partition of the parameters of any model.

For each chosen matrix W the trainable part holds A and B, the frozen part W itself, and the model computes with
W + (alpha / rank) A B. Adapters are a nested dict like the parameters, whose leaves are dicts of "a" and "b"; so
`Variables(trainable=adapters, frozen=base)` and a function that merges before it applies make a learner of any module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree

# All matrices of the layers: attention and feed-forward, but neither word tables nor heads.
LAYER_MATRICES = (r"^layers/.*\bkernel$",)


def add_adapters(params: PyTree, patterns: Sequence[str], *, rank: int, key: Key) -> PyTree:
    """Fresh adapters of the chosen matrices: A from N(0, 1 / rows of W), B zero, so that nothing changes yet.

    Args:
      params: nested dict of parameters; not changed, they are the frozen part.
      patterns: regular expressions; a matrix is chosen when one of them is found in its path, as in
        "layers/0/query/kernel". Leading axes, of stacked layers for instance, get adapters of their own.
      rank: r, columns of A and rows of B.
      key: of the draws.

    Returns:
      adapters: at the path of each W [..., i, o] the float32 arrays "a" [..., i, r] and "b" [..., r, o].

    Raises:
      UserError: a rank below 1 or above what a matrix has; a pattern that is found nowhere, or in a vector.
    """
    if rank < 1:
        raise UserError(f"lora: rank is {rank}; it must be at least 1")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"lora: {pattern!r} is no regular expression ({error})") from None
    flat: dict[str, Any] = {"/".join(path): leaf for path, leaf in flatten_dict(params).items()}
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in flat):
            raise UserError(f"lora: no parameter matches {pattern!r}; the first is {next(iter(flat))!r}")
    chosen = [name for name in sorted(flat) if any(re.search(pattern, name) for pattern in patterns)]
    if not chosen:
        raise UserError("lora: no matrices are chosen; give at least one pattern")
    found: dict[tuple[str, ...], dict[str, Array]] = {}
    for name, own in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        shape = flat[name].shape
        if len(shape) < 2 or re.search(r"\b(bias|scale)$", name):
            raise UserError(f"lora: {name} of shape {shape} is no matrix; choose kernels and tables only")
        if rank > min(shape[-2:]):
            raise UserError(f"lora: rank {rank} is above that of {name}, whose shape is {shape}")
        *stack, rows, columns = shape
        draw = jax.random.normal(own, (*stack, rows, rank), jnp.float32) * rows**-0.5
        found[tuple(name.split("/"))] = {"a": draw, "b": jnp.zeros((*stack, rank, columns), jnp.float32)}
    return unflatten_dict(found)


def merge_adapters(adapters: PyTree, base: PyTree, *, alpha: float) -> PyTree:
    """Parameters with W + (alpha / rank) A B in place of each adapted W; the others are shared with `base`.

    Pure and differentiable in both; the sum is taken in the type of W.

    Args:
      adapters: see `add_adapters`.
      base: parameters.
      alpha: factor, see above.
    """
    flat: dict[tuple, Any] = dict(flatten_dict(base))
    pairs: dict[tuple, Any] = dict(flatten_dict(adapters, is_leaf=lambda path, node: set(node) == {"a", "b"}))
    for path, pair in pairs.items():
        change = jnp.matmul(pair["a"], pair["b"]) * (alpha / pair["a"].shape[-1])
        flat[path] = flat[path] + change.astype(flat[path].dtype)
    return unflatten_dict(flat)
