"""Two tiny language models with one vocabulary."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.types import Batch
from jaxdistill.generation.scorers import Model
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.tiny import tiny_decoder_config


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A model of one layer with 20 tokens and 16 positions, and parameters none of which is 0 or 1."""

    decoder: Decoder
    params: Any

    @property
    def model(self):
        return Model(self.decoder)

    def read(self, texts):
        """Log-probabilities of the token after each position, without a cache, of up to 16 texts."""
        token_ids, mask = np.zeros((16, 16), np.int32), np.zeros((16, 16), bool)
        for i, text in enumerate(texts):
            token_ids[i, : len(text)], mask[i, : len(text)] = text, True
        # Always of one shape: compiled once.
        found = np.asarray(_read(self.decoder, self.params, token_ids, mask))
        return [row[: len(text)] for row, text in zip(found, texts, strict=False)]


@functools.partial(jax.jit, static_argnums=0)
def _read(decoder, params, token_ids, mask):
    return jax.nn.log_softmax(decoder.apply({"params": params}, Batch(token_ids=token_ids, mask=mask)))


def tiny(seed):
    sizes = {"width": 16, "embedding_width": 16, "head_width": 8, "intermediate": 24, "layers": 1, "positions": 16}
    decoder = Decoder(dataclasses.replace(tiny_decoder_config(20), **sizes))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + 0.3 * rng.normal(size=leaf.shape), jnp.float32)

    shapes = jax.eval_shape(lambda key: init_decoder(decoder, key), jax.random.key(0))
    return Tiny(decoder, jax.tree_util.tree_map_with_path(draw, shapes))


@pytest.fixture(scope="session")
def base():
    return tiny(0)


@pytest.fixture(scope="session")
def expert():
    return tiny(1)
