"""The one loop that all texts come from: prompts are read once, then token follows token under one jit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree, pytree
from jaxdistill.generation.choice import Sampling, allowed_tokens, draw, token_set
from jaxdistill.generation.scorers import Scorer, repeat_state


@pytree
class Candidates:
    """The only tokens that may be drawn at each of the t new positions of each row.

    Attributes:
      token_ids: in any order, filled up with any.
      mask: True for candidates, False for filling.
    """

    token_ids: Int[Array, "r t k"]
    mask: Bool[Array, "r t k"]


@pytree
class Samples:
    """New tokens of some texts, prompts not included.

    Attributes:
      token_ids: the tokens before the stop token, the stop token, and then `sampling.stop[0]` up to the end; rows that
        have not stopped are full.
      lengths: tokens before the stop token.
      stopped: whether there is one.
      sound: False for rows whose scores were not numbers, or had no token left, before they ended.
      log_probabilities: natural logarithms, of each token given those before, the stop token included and 0 after it,
        under the untempered model (see `Scorer.log_probabilities`); `None` unless asked for.
    """

    token_ids: Int[Array, "r t"]
    lengths: Int[Array, " r"]
    stopped: Bool[Array, " r"]
    sound: Bool[Array, " r"]
    log_probabilities: Float[Array, "r t"] | None


@functools.partial(jax.jit, static_argnames=("scorer", "sampling", "early_exit", "log_probabilities"))
def decode(
    scorer: Scorer,
    params: PyTree,
    token_ids: Int[Array, "m l"],
    mask: Bool[Array, "m l"],
    keys: Key,
    sampling: Sampling,
    candidates: Candidates | None = None,
    *,
    early_exit: bool = False,
    log_probabilities: bool = False,
) -> Samples:
    """Continue each prompt `s` times; `batches.sample` does so for any number of rows.

    A row's tokens depend on its prompt and key alone: token i is drawn with `fold_in(key, i)`. (With another number of
    rows the compiler may sum in another order, so scores may differ by rounding errors.)

    Args:
      scorer: static.
      params: of the scorer.
      token_ids, mask: prompts, padded on either side, at least one token each.
      keys: [m, s], one for each text; texts of one prompt are s rows in a row.
      sampling: static.
      candidates: for each of the r = m*s texts, what may be drawn at each of its positions; `None` for no limit.
      early_exit: leave the loop when all rows have ended. The tokens are the same.
      log_probabilities: whether to return them.

    Returns:
      r = m*s texts of t = `sampling.max_new` positions.

    Raises:
      UserError: more positions than the scorer has, tokens outside its vocabulary, candidates of another shape.
    """
    prompts, times = keys.shape
    rows, new, vocabulary = prompts * times, sampling.max_new, scorer.vocabulary
    length = token_ids.shape[1] + new - 1  # nothing follows on the last token: it is never read
    sampling.check(vocabulary)
    if length > scorer.positions:
        raise UserError(
            f"decode: prompts of {token_ids.shape[1]} tokens and {new} new ones need {length} positions; the model has "
            f"{scorer.positions}"
        )
    if candidates is not None and candidates.token_ids.shape[:2] != (rows, new):
        raise UserError(
            f"decode: candidates for (texts, positions) {candidates.token_ids.shape[:2]}; expected {(rows, new)}"
        )
    keys = keys.reshape(rows)
    stop = jnp.asarray(token_set(sampling.stop, vocabulary))
    filler = sampling.stop[0] if sampling.stop else 0

    def choose(i: Int[Array, ""], logits: PyTree, texts: Samples) -> tuple[Int[Array, " r"], Samples]:
        """Token i of all rows, and the texts with it."""
        done = texts.stopped
        allowed = allowed_tokens(sampling, vocabulary, i)
        if candidates is not None:
            allowed = allowed & _as_set(candidates, i, vocabulary)
        scores = scorer.scores(logits, allowed)
        drawn = draw(scores, jax.vmap(jax.random.fold_in, (0, None))(keys, i), sampling)
        tokens = jnp.where(done, filler, drawn)
        stopped = stop[tokens]
        score = texts.log_probabilities
        if score is not None:
            found = scorer.log_probabilities(logits)
            found = jnp.take_along_axis(found, tokens[:, None], axis=1)[:, 0]
            score = _write(score, jnp.where(done, 0.0, found), i)
        texts = Samples(
            token_ids=_write(texts.token_ids, tokens, i),
            lengths=texts.lengths + (~done & ~stopped).astype(jnp.int32),
            stopped=texts.stopped | (~done & stopped),
            sound=texts.sound & (done | jnp.isfinite(jnp.max(scores, axis=-1))),
            log_probabilities=score,
        )
        return tokens, texts

    def body(carry: tuple) -> tuple:
        i, logits, state, texts = carry
        tokens, texts = choose(i, logits, texts)
        logits, state = scorer.advance(params, tokens, state, ~texts.stopped)
        return i + 1, logits, state, texts

    logits, state = scorer.start(params, token_ids, mask, length=length)
    carry = (
        jnp.zeros((), jnp.int32),
        repeat_state(logits, times),
        repeat_state(state, times),
        Samples(
            token_ids=jnp.full((rows, new), filler, jnp.int32),
            lengths=jnp.zeros(rows, jnp.int32),
            stopped=jnp.zeros(rows, bool),
            sound=jnp.ones(rows, bool),
            log_probabilities=jnp.zeros((rows, new), jnp.float32) if log_probabilities else None,
        ),
    )
    if early_exit:
        carry = jax.lax.while_loop(lambda carry: (carry[0] < new - 1) & ~jnp.all(carry[3].stopped), body, carry)
    else:
        carry, _ = jax.lax.scan(lambda carry, _: (body(carry), None), carry, length=new - 1)
    i, logits, _, texts = carry
    # Where all rows have ended early, this writes once more what is there.
    return choose(i, logits, texts)[1]


def _as_set(candidates: Candidates, position: Int[Array, ""], vocabulary: int) -> Bool[Array, "r v"]:
    """The candidates of one position as one truth value a token."""
    ids, mask = (jax.lax.dynamic_index_in_dim(x, position, axis=1, keepdims=False) for x in vars(candidates).values())
    rows = jnp.arange(ids.shape[0])[:, None]
    members = jnp.zeros((ids.shape[0], vocabulary), bool)
    # Filling goes out of bounds, where it is dropped, and not to a token that may be a candidate.
    return members.at[rows, jnp.where(mask, ids, vocabulary)].set(True, mode="drop")


def _write(kept: Array, column: Array, position: Int[Array, ""]) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(kept, column[:, None], position, axis=1)
