"""Random keys of the stages of a run, by name."""

from __future__ import annotations

import zlib

import jax

from jaxdistill.core.types import Key


def named_key(seed: int, name: str) -> Key:
    """The key of the stage `name` in a run of that seed.

    Keys of different names are independent of each other and, unlike small numbers folded in, of those that
    `jax.random.split` makes of `jax.random.key(seed)`.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
