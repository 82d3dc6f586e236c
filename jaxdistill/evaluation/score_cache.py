"""Scores of texts kept on disk, by the hash of text and scorer: what was scored once is not scored again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.io import atomic
from jaxdistill.io.plain import dumps, fingerprint

_SECONDS_BETWEEN_WRITES = 30.0
# (which of the items asked for, one list of numbers for each of them), as they come.
Scored = Iterator[tuple[Sequence[int], Sequence[Sequence[float]]]]


def cached_scores(
    items: Sequence[Any],
    score: Callable[[list[int]], Scored],
    *,
    folder: Path | None = None,
    scorer: Callable[[], str] = lambda: "",
) -> list[list[float]]:
    """The scores of items; equal items are scored once.

    Args:
      items: what is scored, in plain JSON types.
      score: `score(missing)` yields the scores of the items with these numbers, some at a time.
      folder: where scores are kept, one file a scorer; `None` keeps nothing. An interrupted scoring loses no more than
        half a minute of its work.
      scorer: hash of everything that scores depend on; asked for only with a folder.

    Returns:
      the numbers of each item.

    Raises:
      UserError: the file of the scorer is there and holds something else.
    """
    keys = [fingerprint(item) for item in items]
    path = None if folder is None else Path(folder) / f"{scorer()[:32]}.json"
    known = {} if path is None or not path.exists() else _read(path)
    first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
    written = time.monotonic()
    missing = sorted(first.values())
    if missing:
        for numbers, values in score(missing):
            known |= {keys[i]: [float(x) for x in row] for i, row in zip(numbers, values, strict=True)}
            if path is not None and time.monotonic() - written > _SECONDS_BETWEEN_WRITES:
                atomic.write_text(path, dumps(known, indent=None))
                written = time.monotonic()
        if path is not None:
            atomic.write_text(path, dumps(known, indent=None))
    return [known[key] for key in keys]


def parameter_hash(params: PyTree) -> str:
    """A hash of the numbers of all parameters, wherever they lie, in one pass over them.

    It tells a model from the same one trained further under the same name. Against somebody who looks for two models
    of one hash it is no help.
    """
    return fingerprint([int(x) for x in jax.device_get(_checksums(jax.tree.leaves(params)))])


@jax.jit
def _checksums(leaves: list[Array]) -> list[Array]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: Array) -> Array:
    """Sum of the bits of each number times an odd weight of its place, modulo 2**32: exact, so the order in which
    devices sum makes no difference."""
    whole = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(leaf, whole).astype(jnp.uint32)
    place = jnp.zeros(bits.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(bits.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * np.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    return jnp.sum(bits * (place * np.uint32(2654435762) + np.uint32(1)), dtype=jnp.uint32)


def _read(path: Path) -> dict[str, list[float]]:
    try:
        return {key: [float(x) for x in values] for key, values in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not hold scores ({error}): remove it to score the texts again") from None
