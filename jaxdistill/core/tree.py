"""Arithmetic on pytrees, and cutting nested dicts in two."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.types import PyTree


def dot(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Sum over all leaves of the inner products."""
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)), start=jnp.zeros(()))


def all_finite(tree: PyTree) -> jax.Array:
    """True when every floating leaf holds finite numbers only."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]).all() if leaves else jnp.asarray(True)


def select(condition: jax.Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Leaf by leaf `where(condition, on_true, on_false)` with a scalar condition."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), on_true, on_false)


def partition(tree: dict, predicate: Callable[[tuple[str, ...]], bool]) -> tuple[dict, dict]:
    """Cut a nested dict in (leaves whose path satisfies `predicate`, the others); empty branches are dropped."""

    def walk(node: dict, path: tuple[str, ...]) -> tuple[dict, dict]:
        chosen: dict = {}
        rest: dict = {}
        for name, child in node.items():
            here = (*path, name)
            if isinstance(child, dict):
                for target, part in zip((chosen, rest), walk(child, here), strict=True):
                    if part:
                        target[name] = part
            else:
                (chosen if predicate(here) else rest)[name] = child
        return chosen, rest

    return walk(tree, ())


def merge(a: dict, b: dict) -> dict:
    """Undo `partition`: the union of two nested dicts with disjoint leaves."""
    out = dict(a)
    for name, child in b.items():
        if name in out and isinstance(out[name], dict) and isinstance(child, dict):
            out[name] = merge(out[name], child)
        elif name in out:
            raise ValueError(f"both trees hold a leaf at {name!r}")
        else:
            out[name] = child
    return out


def size_in_bytes(tree: PyTree) -> int:
    """Bytes of all array leaves."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
