"""How GRADMM's language model reads labelled texts: text, prompt, and the label's first token as the answer.

Source: GRADMM (Nguyen et al., ICML 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, PyTree
from jaxdistill.models.decoder import Decoder
from jaxdistill.objectives.head_matching import HeadParts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Prompt and label words by task; others give their own.
PROMPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sst2": (" It was ", ("bad", "great")),
    "rotten_tomatoes": (" It was ", ("bad", "great")),
    "imdb": (" It was ", ("bad", "great")),
    "tweet_emotion": (" Which emotion does the tweet express?\n", ("anger", "joy", "optimism", "sadness")),
}
# That of a task of two emotions that is not in the task table.
TWO_EMOTIONS = (" Does the tweet express joy or sadness?\n", ("sadness", "joy"))


class Form(NamedTuple):
    """A labelled text in the tokens of a language model.

    Attributes:
      lead: tokens that open every sequence: a start token, where the tokenizer puts one there.
      prompt: tokens after the text.
      labels: the first token of each class's label word.
      fresh: read by a head of zeros that knows the label words alone, in place of the model's own.
    """

    lead: tuple[int, ...]
    prompt: tuple[int, ...]
    labels: tuple[int, ...]
    fresh: bool = False


class Rows(NamedTuple):
    """Labelled texts in a language model's tokens, padded on the right with any token.

    Attributes:
      token_ids: lead, text and prompt.
      last: position of the last token.
      labels: class ids.
      truncated: texts that were cut.
    """

    token_ids: Int32[np.ndarray, "n l"]
    last: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    truncated: int


def make_form(tokenizer: Tokenizer, prompt: str, label_words: Sequence[str], *, fresh: bool = False) -> Form:
    """The form of a task.

    Args:
      tokenizer: of the language model.
      prompt: text between an example and its label.
      label_words: one a class, as they follow the prompt.
      fresh: see `Form`.

    Raises:
      UserError: no prompt, an empty label word, or two classes whose words begin with the same token.
    """

    def tokens(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    with_lead, plain = tokenizer.encode("a", add_special_tokens=True).ids, tokens("a")
    lead = with_lead[: len(with_lead) - len(plain)] if with_lead[-len(plain) :] == plain else []
    if not (prompt_ids := tokens(prompt)):
        raise UserError("prompt is empty: give the text between an example and its label")
    firsts = []
    for word in label_words:
        if not (ids := tokens(word)):
            raise UserError(f"label word {word!r} has no token: give a word")
        firsts.append(ids[0])
    for i, first in enumerate(firsts):
        if first in firsts[:i]:
            other = label_words[firsts.index(first)]
            raise UserError(
                f"label words {other!r} and {label_words[i]!r} begin with the same token "
                f"({tokenizer.decode([first])!r}): give words that differ in their first one"
            )
    return Form(tuple(lead), tuple(prompt_ids), tuple(firsts), fresh)


def read_rows(
    tokenizer: Tokenizer,
    form: Form,
    texts: Sequence[str],
    labels: Int[np.ndarray, " n"],
    longest: int,
    *,
    empty: bool = False,
) -> Rows:
    """Texts in the form, cut to `longest` tokens of their own.

    Args:
      tokenizer: of the language model.
      form: see there.
      texts: examples.
      labels: class ids.
      longest: see above.
      empty: accept texts without a token.

    Raises:
      UserError: a text without a token.
    """
    encoded = [item.ids for item in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    for text, ids in zip(texts, encoded, strict=True):
        if not ids and not empty:
            raise UserError(f"text {text!r} has no token")
    rows = [[*form.lead, *ids[:longest], *form.prompt] for ids in encoded]
    width = max((len(row) for row in rows), default=1)
    padded = np.zeros((len(rows), width), np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return Rows(
        padded,
        np.asarray([len(row) - 1 for row in rows], np.int32),
        np.asarray(labels, np.int32),
        sum(len(ids) > longest for ids in encoded),
    )


def label_parts(
    decoder: Decoder, params: PyTree, batch: Batch, last: Int[Array, " n"], classes: Int[Array, " n"], form: Form
) -> HeadParts:
    """What the head's gradient of each example's loss is made of, read at the last token.

    Args:
      decoder: static.
      params: of the decoder.
      batch: token ids or embeddings, padded on the right.
      last: position of each row's last token.
      classes: of each row, whose label it shall be followed by.
      form: the labels, and which head reads.
    """
    hidden, _ = decoder.apply({"params": params}, batch, method="states")
    at = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    labels = jnp.asarray(form.labels, jnp.int32)
    logits = cast(Array, decoder.apply({"params": params}, at, method="logits"))
    features = cast(Array, decoder.apply({"params": params}, at, method="features")).astype(logits.dtype)
    if form.fresh:
        known = jnp.zeros(logits.shape[1], logits.dtype).at[labels].set(1.0 / len(form.labels))[None]
    else:
        known = jax.nn.softmax(logits)
    errors = known - jax.nn.one_hot(labels[classes], logits.shape[1], dtype=logits.dtype)
    one = jnp.full((features.shape[0], 1), float(decoder.config.head_bias), logits.dtype)
    return HeadParts(errors, jnp.concatenate([features, one], axis=1))


def word_table(params: PyTree) -> Float[Array, "v e"]:
    """The word embeddings of a decoder."""
    return params["embeddings"]["word"]["table"]
