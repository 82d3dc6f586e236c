"""What a decoding loop asks for the next token's scores: one language model here, a contrast of two in `contrast`."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.types import Batch, PyTree, pytree
from jaxdistill.models import decoding
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.kv_cache import Cache, repeat_rows


@runtime_checkable
class Scorer(Protocol):
    """Scores of the next token, given those so far. Static and hashable; parameters and state are arguments.

    `logits` are a pytree of [r, v] arrays, whatever `scores` needs to know of the models' answers.
    """

    @property
    def vocabulary(self) -> int:
        """Tokens there are."""
        ...

    @property
    def positions(self) -> int:
        """Most tokens a text may have."""
        ...

    def start(
        self, params: PyTree, token_ids: Int[Array, "r l"], mask: Bool[Array, "r l"], *, length: int
    ) -> tuple[PyTree, PyTree]:
        """Logits after the prompts, and a state with room for `length` tokens a row, padding included."""
        ...

    def advance(
        self, params: PyTree, tokens: Int[Array, " r"], state: PyTree, mask: Bool[Array, " r"]
    ) -> tuple[PyTree, PyTree]:
        """Logits after one more token a row, and the state with it; rows out of `mask` have ended."""
        ...

    def scores(self, logits: PyTree, allowed: Bool[Array, "#r v"]) -> Float[Array, "r v"]:
        """Logarithms, in float32, of what tokens are drawn in proportion to; -inf for those not allowed."""
        ...

    def log_probabilities(self, logits: PyTree) -> Float[Array, "r v"]:
        """Log-probabilities of all tokens, in float32, under the language model that the texts shall be likely under;
        nothing is banned, and there is no temperature."""
        ...


@pytree
class Text:
    """The state of a model that is run without a cache: all tokens so far.

    Attributes:
      token_ids: of prompts and new tokens.
      filled: where there is one.
      slot: where the next token of all rows goes.
    """

    token_ids: Int[Array, "r t"]
    filled: Bool[Array, "r t"]
    slot: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Model:
    """One language model as a scorer; its parameters are those of the decoder.

    Attributes:
      decoder: static.
      cached: whether keys and values are kept. Without, the whole text is read again for each token: the measure of
        the cache, in tests and timings.
    """

    decoder: Decoder
    cached: bool = True

    @property
    def vocabulary(self) -> int:
        return self.decoder.config.vocabulary

    @property
    def positions(self) -> int:
        return self.decoder.config.positions

    def start(
        self, params: PyTree, token_ids: Int[Array, "r l"], mask: Bool[Array, "r l"], *, length: int
    ) -> tuple[Float[Array, "r v"], Cache | Text]:
        if self.cached:
            return decoding.prefill(self.decoder, params, token_ids, mask, length=length)
        prompt = token_ids.shape[1]
        room = ((0, 0), (0, length - prompt))
        slot = jnp.full((), prompt, jnp.int32)
        return self._read(params, Text(jnp.pad(token_ids, room), jnp.pad(mask, room), slot))

    def advance(
        self, params: PyTree, tokens: Int[Array, " r"], state: Cache | Text, mask: Bool[Array, " r"]
    ) -> tuple[Float[Array, "r v"], Cache | Text]:
        if isinstance(state, Cache):
            return decoding.step(self.decoder, params, tokens, state, mask)

        def write(row: Array, value: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(row, value[:, None], state.slot, axis=1)

        text = Text(write(state.token_ids, tokens), write(state.filled, mask), state.slot + 1)
        return self._read(params, text)

    def scores(self, logits: Float[Array, "r v"], allowed: Bool[Array, "#r v"]) -> Float[Array, "r v"]:
        return jnp.where(allowed, self.log_probabilities(logits), -jnp.inf)

    def log_probabilities(self, logits: Float[Array, "r v"]) -> Float[Array, "r v"]:
        return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)

    def _read(self, params: PyTree, text: Text) -> tuple[Float[Array, "r v"], Text]:
        """Logits after the last token of each row."""
        batch = Batch(token_ids=text.token_ids, mask=text.filled)
        hidden, _ = cast(Any, self.decoder.apply({"params": params}, batch, method="states"))
        last = text.filled.shape[1] - 1 - jnp.argmax(text.filled[:, ::-1], axis=1)
        hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
        return cast(Array, self.decoder.apply({"params": params}, hidden, method="logits")), text


def repeat_state(state: PyTree, times: int) -> PyTree:
    """Each row of a scorer's logits or state `times` times in a row, for several continuations of one prompt."""

    def repeat(part: Any) -> Any:
        if isinstance(part, Cache):
            return repeat_rows(part, times)
        return jnp.repeat(part, times, axis=0) if part.ndim else part

    return jax.tree.map(repeat, state, is_leaf=lambda part: isinstance(part, Cache))
