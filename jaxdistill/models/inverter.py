"""Text from an embedding: an encoder-decoder that reads a vector as a few soft tokens, and one that corrects a guess.

DaLLME-style, clean-room: after the descriptions in Tao et al. (Findings of EMNLP 2024) and Morris et al. (EMNLP 2023).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.types import Batch, Key, PyTree, pytree
from jaxdistill.models.layers import Norm, wide
from jaxdistill.models.t5 import T5, T5Cache
from jaxdistill.models.t5_config import T5Config


@pytree
class Guess:
    """A text that is to be corrected.

    Attributes:
      token_ids, mask: of the text, without start and end tokens.
      embeddings: of the text.
    """

    token_ids: Int[Array, "r l"]
    mask: Bool[Array, "r l"]
    embeddings: Float[Array, "r e"]


class Inverter(nn.Module):
    """Reads embeddings, writes texts.

    Without `corrects` the encoder reads `soft_tokens` vectors made of the embedding. With it, it reads those of the
    embedding, of the guess's embedding and of their difference, and the guess's tokens, each part with a vector of its
    own added, all normalised.

    Attributes:
      config: of the encoder-decoder.
      embedding_width: of what is inverted.
      soft_tokens: vectors that an embedding becomes.
      corrects: whether there is a guess.
      dtype: see `models.t5.T5`.
    """

    config: T5Config
    embedding_width: int
    soft_tokens: int = 16
    corrects: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self) -> None:
        self.t5 = T5(self.config, self.dtype)
        parts = 3 if self.corrects else 1
        self.sequences = [
            _ToSequence(self.soft_tokens, self.config.width, self.dtype, name=f"sequence_{i}") for i in range(parts)
        ]
        if self.corrects:
            normal = nn.initializers.normal(self.config.initializer_factor)
            self.segments = self.param("segments", normal, (4, self.config.width), wide(self.dtype))
            self.norm = Norm(self.config.norm_epsilon, self.dtype, "rms")

    def __call__(
        self, embeddings: Float[Array, "r e"], token_ids: Int[Array, "r t"], guess: Guess | None = None
    ) -> Float[Array, "r t v"]:
        """Logits of the token after each, the first of which follows on the start token; see `T5.decode`."""
        return self.decode(token_ids, *self.read(embeddings, guess))

    def read(
        self, embeddings: Float[Array, "r e"], guess: Guess | None = None, *, key: Key | None = None
    ) -> tuple[Float[Array, "r l d"], Bool[Array, "r l"]]:
        """What the decoder reads, and which of its positions hold something. `key` feeds dropout."""
        rows = embeddings.shape[0]
        x = self.sequences[0](embeddings)
        mask = jnp.ones(x.shape[:2], bool)
        if self.corrects:
            assert guess is not None
            words = self.t5.shared().at[guess.token_ids].get(mode="clip").astype(x.dtype)
            parts = [x, self.sequences[1](guess.embeddings), self.sequences[2](embeddings - guess.embeddings), words]
            own = self.segments.astype(x.dtype)
            x = jnp.concatenate([part + own[i][None, None] for i, part in enumerate(parts)], axis=1)
            x = self.norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)
            mask = jnp.concatenate([jnp.ones((rows, 3 * self.soft_tokens), bool), guess.mask], axis=1)
        return self.t5.encode(Batch(embeddings=x, mask=mask), key=key), mask

    def decode(
        self,
        token_ids: Int[Array, "r t"],
        memory: Float[Array, "r l d"],
        mask: Bool[Array, "r l"],
        *,
        key: Key | None = None,
    ) -> Float[Array, "r t v"]:
        """See `T5.decode`."""
        return self.t5.decode(token_ids, memory, mask, key=key)

    def start(self, memory: Float[Array, "r l d"], mask: Bool[Array, "r l"], length: int) -> T5Cache:
        """See `T5.start`."""
        return self.t5.start(memory, mask, length)

    def step(self, tokens: Int[Array, " r"], cache: T5Cache) -> tuple[Float[Array, "r v"], T5Cache]:
        """See `T5.step`."""
        return self.t5.step(tokens, cache)


class _ToSequence(nn.Module):
    """W2 gelu(W1 e + b1) + b2, cut into vectors."""

    count: int
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, embeddings: Float[Array, "r e"]) -> Float[Array, "r s d"]:
        dense = functools.partial(nn.Dense, dtype=self.dtype, param_dtype=wide(self.dtype))
        hidden = nn.gelu(dense(self.width, name="first")(embeddings))
        return dense(self.count * self.width, name="second")(hidden).reshape(-1, self.count, self.width)


def init_inverter(inverter: Inverter, key: Key) -> PyTree:
    """Random parameters."""
    embedding, one = jnp.zeros((1, inverter.embedding_width)), jnp.zeros((1, 1), jnp.int32)
    guess = Guess(one, one == 0, embedding) if inverter.corrects else None
    return inverter.init(key, embedding, one, guess)["params"]


def init_corrector(corrector: Inverter, params: PyTree, key: Key) -> PyTree:
    """Parameters of a corrector that begins as the inverter: all that both have, and its maps of both embeddings; the
    difference's map and the segments are drawn anew.

    Args:
      corrector: one with `corrects`, of the inverter's sizes.
      params: of the inverter.
      key: of the draws.
    """
    fresh = init_inverter(corrector, key)
    return fresh | {"t5": params["t5"], "sequence_0": params["sequence_0"], "sequence_1": params["sequence_0"]}
