"""Seeds for numpy out of JAX keys."""

from __future__ import annotations

import jax
import numpy as np

from jaxdistill.core.types import Key


def numpy_seed(key: Key) -> int:
    """A seed for `numpy.random.default_rng`: all words of the key as one number."""
    seed = 0
    for word in np.asarray(jax.random.key_data(key)).astype(np.uint32).ravel():
        seed = (seed << 32) | int(word)
    return seed
