"""How a language model goes on with prompts, and how sure of itself it is while it does."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.generation.batches import left_padded
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.scorers import Scorer, repeat_state
from jaxdistill.generation.texts import generate_texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Continuations(NamedTuple):
    """What a model made of p prompts, k times each.

    Attributes:
      texts: p lists of k strings, prompts not included; to be appended to the prompts as they are.
      prompt_ids: tokens of the prompts as the model read them.
      token_ids: p lists of k lists of new tokens, without special ones that were not drawn and without the stop token.
      stopped: whether each ended in a stop token.
      shortened: prompts that lost their beginning, since the model cannot read so much.
    """

    texts: list[list[str]]
    prompt_ids: list[list[int]]
    token_ids: list[list[list[int]]]
    stopped: list[list[bool]]
    shortened: int


def draw_continuations(
    scorer: Scorer,
    params: PyTree,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    count: int,
    sampling: Sampling,
    key: Key,
    *,
    start: int | None = None,
    micro_batch: int = 32,
    label: str | None = None,
) -> Continuations:
    """Draw `count` continuations of each prompt.

    A text is what the decoded tokens of prompt and continuation have more than those of the prompt alone: tokenizers
    that write a space in front of words would lose the one between them otherwise.

    Args:
      scorer, params, sampling: see `generation.decode.decode`; the stop tokens are those of `sampling`.
      tokenizer: of the model, with the special tokens that it adds by itself.
      prompts: at least one.
      count: of continuations.
      key: of all of them.
      start: token in front of every prompt where it is not there already, if that is the model's way.
      micro_batch: rows at once.
      label: of progress lines; none without.

    Raises:
      UserError: see `generation.texts.generate_texts`; the model has no room for a prompt beside the new tokens.
    """
    room = scorer.positions - sampling.max_new + 1  # the last new token is never read
    opening = [] if start is None else [start]
    if room <= len(opening):
        raise UserError(
            f"continuations: {sampling.max_new} new tokens leave no room for a prompt in the model's "
            f"{scorer.positions} positions"
        )
    ids, shortened = [], 0
    for encoding in tokenizer.encode_batch(list(prompts)):
        own = encoding.ids[1:] if opening and encoding.ids[:1] == opening else encoding.ids
        kept = own[max(0, len(own) - (room - len(opening))) :]
        shortened += len(kept) < len(own)
        ids.append(opening + kept)
    drawn = generate_texts(scorer, params, tokenizer, ids, count, sampling, key, micro_batch=micro_batch, label=label)
    token_ids = _grouped([list(tokens) for tokens in drawn.token_ids], count)
    texts = []
    for prompt, group in zip(ids, token_ids, strict=True):
        before = tokenizer.decode(prompt, skip_special_tokens=True)
        whole = tokenizer.decode_batch([prompt + new for new in group], skip_special_tokens=True)
        texts.append([text[len(before) :] for text in whole])
    return Continuations(texts, ids, token_ids, _grouped(list(drawn.stopped), count), shortened)


def mean_token_entropy(scorer: Scorer, params: PyTree, continuations: Continuations, *, micro_batch: int = 32) -> float:
    """Mean entropy, in nats, of the distributions that the tokens of continuations were drawn from.

    The model reads each prompt with its continuation again; what counts are its distributions of the new tokens, of
    stop tokens too, each the same, before temperature, top-k and top-p. It tells whether a model became less toxic by
    becoming less various. About as dear as drawing the continuations was.

    Args:
      scorer, params: of the model; of a contrast of two models, the entropy is that of the contrast.
      continuations: of that model.
      micro_batch: rows at once.
    """
    samples = len(continuations.token_ids[0])
    times = min(samples, micro_batch)
    at_once = max(1, micro_batch // times)
    # A line is a prompt with up to `times` of its continuations; what fills lines up counts no token.
    lines = [(i, first) for i in range(len(continuations.token_ids)) for first in range(0, samples, times)]
    pairs = [
        list(zip(continuations.token_ids[i], continuations.stopped[i], strict=True))[first : first + times]
        for i, first in lines
    ]
    longest = max(len(ids) + stopped for line in pairs for ids, stopped in line)
    filled = -(-len(lines) // at_once) * at_once
    new, lengths = np.zeros((filled, times, longest), np.int32), np.zeros((filled, times), np.int32)
    for row, line in enumerate(pairs):
        for place, (ids, stopped) in enumerate(line):
            new[row, place, : len(ids)], lengths[row, place] = ids, len(ids) + stopped
    token_ids, mask = left_padded(continuations.prompt_ids)
    numbers = np.asarray([i for i, _ in lines] + [0] * (filled - len(lines)))
    total = 0.0
    for first in range(0, filled, at_once):
        piece = slice(first, first + at_once)
        arguments = (new[piece].reshape(-1, longest), lengths[piece].reshape(-1))
        found = _entropies(scorer, params, token_ids[numbers[piece]], mask[numbers[piece]], *arguments)
        total += float(np.asarray(found, np.float64).sum())
    return total / int(lengths.sum())


@functools.partial(jax.jit, static_argnums=0)
def _entropies(
    scorer: Scorer,
    params: PyTree,
    token_ids: Int[Array, "m l"],
    mask: Bool[Array, "m l"],
    new: Int[Array, "r t"],
    lengths: Int[Array, " r"],
) -> Float[Array, "t r"]:
    """Entropy of the distribution of each of the first `lengths` new tokens, 0 after them."""
    times, last = new.shape[0] // token_ids.shape[0], new.shape[1] - 1
    allowed = jnp.ones((1, scorer.vocabulary), bool)

    def entropy(logits: PyTree) -> Float[Array, " r"]:
        log_p = jax.nn.log_softmax(scorer.scores(logits, allowed), axis=-1)
        # Tokens that cannot be drawn contribute nothing.
        return -jnp.sum(jnp.where(jnp.isneginf(log_p), 0.0, jnp.exp(log_p) * log_p), axis=-1)

    def body(carry: tuple[PyTree, PyTree], column: tuple[Array, Array]) -> tuple[tuple[PyTree, PyTree], Array]:
        logits, state = carry
        tokens, there = column
        return scorer.advance(params, tokens, state, there), entropy(logits)

    there = jnp.arange(new.shape[1])[:, None] < lengths[None]
    carry = scorer.start(params, token_ids, mask, length=token_ids.shape[1] + last)
    carry = (repeat_state(carry[0], times), repeat_state(carry[1], times))
    (logits, _), found = jax.lax.scan(body, carry, (new.T[:last], there[:last]))
    return jnp.where(there, jnp.concatenate([found, entropy(logits)[None]]), 0.0)


def _grouped(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]
