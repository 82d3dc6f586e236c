"""Labelled texts as token sequences of a language model, and back: `<bos_1> first text <sep> second text <end>`.

Source: DiLM (Maekawa et al. 2024). Training, scoring and sampling all go through this one form, spaces included: a
byte-level tokenizer makes a token of its own of the lone space before a separator.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, PyTree
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.vocabulary import grow_vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, SEPARATOR = "<pad>", "<sep>"


@dataclasses.dataclass(frozen=True, eq=False)
class TextForm:
    """How the texts of a task are written.

    Attributes:
      tokenizer: of the language model, with the new tokens.
      starts: token that a text of each class starts with.
      separator, end, padding: tokens.
      fields: texts an example has, one or two.
      max_length: most tokens of an example, start and end included.
    """

    tokenizer: Tokenizer
    starts: tuple[int, ...]
    separator: int
    end: int
    padding: int
    fields: int
    max_length: int

    @property
    def tokens(self) -> dict[int, str]:
        """The tokens that the form is made of, and how they are spelled."""
        ids = (*self.starts, self.separator, self.end, self.padding)
        return {token: self.tokenizer.id_to_token(token) or "" for token in ids}

    def encode(self, texts: Sequence[tuple[str, ...]], labels: Int[np.ndarray, " n"]) -> list[list[int]]:
        """Token ids of examples; those that are too long lose what stands before the end token.

        Raises:
          UserError: a text holds one of the tokens that the form is made of.
        """
        fields = [f" {field.strip()} " for text in texts for field in text]
        ids = [found.ids for found in self.tokenizer.encode_batch_fast(fields, add_special_tokens=False)]
        special = self.tokens
        for field, tokens in zip(fields, ids, strict=True):
            if inside := special.keys() & tokens:
                token = special[min(inside)]
                shown = field.strip()[:40]
                raise UserError(f"text {shown!r} holds {token}, which separates texts here: remove it from the data")
        encoded = []
        for row, label in enumerate(labels):
            parts = ids[row * self.fields : (row + 1) * self.fields]
            tokens = [self.starts[label], *parts[0]]
            for part in parts[1:]:
                tokens += [self.separator, *part]
            encoded.append([*tokens[: self.max_length - 1], self.end])
        return encoded

    def decode(self, tokens: Sequence[int]) -> tuple[str, ...] | None:
        """The texts of what followed a start token, end token left out; `None` where there are too few.

        What stands behind a further separator is dropped.
        """
        parts: list[list[int]] = [[]]
        for token in tokens:
            if token == self.separator:
                parts.append([])
            elif token not in (self.end, self.padding):
                parts[-1].append(token)
        if len(parts) < self.fields:
            return None
        return tuple(self.tokenizer.decode(part).strip() for part in parts[: self.fields])

    def batch(self, encoded: Sequence[Sequence[int]], length: int) -> Batch:
        """One example a row, padded on the right to `length`."""
        ids = np.full((len(encoded), length), self.padding, np.int32)
        mask = np.zeros((len(encoded), length), bool)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
        return Batch(token_ids=ids, mask=mask)


class Generator(NamedTuple):
    """A language model of labelled texts.

    Attributes:
      decoder: static.
      params: its parameters.
      form: of the texts.
    """

    decoder: Decoder
    params: PyTree
    form: TextForm


def start_token(label: int) -> str:
    """The token that texts of a class start with."""
    return f"<bos_{label}>"


def text_form(tokenizer: Tokenizer, config: DecoderConfig, *, classes: int, fields: int, max_length: int) -> TextForm:
    """The form of a tokenizer that has all tokens already.

    Raises:
      UserError: one is missing; texts longer than the model can read.
    """
    names = [PADDING, SEPARATOR, *map(start_token, range(classes))]
    known = {name: found for name in names if (found := tokenizer.token_to_id(name)) is not None}
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(
            f"the generator's tokenizer has no {', '.join(missing)}; expected one trained for {classes} classes"
        )
    if not 4 <= max_length <= config.positions:
        raise UserError(
            f"generated texts of {max_length} tokens: accepted are 4 to the {config.positions} of the model"
        )
    padding, separator, *starts = (known[name] for name in names)
    return TextForm(tokenizer, tuple(starts), separator, _end_token(config), padding, fields, max_length)


def new_generator(
    decoder: Decoder,
    params: PyTree,
    tokenizer: Tokenizer,
    *,
    classes: int,
    fields: int,
    max_length: int,
    key: Key,
) -> Generator:
    """A language model that knows the tokens of the form; what it has already is left as it is.

    Tokens that start a text begin as copies of the model's own start token; padding and separator are drawn at random.

    Args:
      decoder, params, tokenizer: of the language model; nothing of them is changed.
      classes: of the task.
      fields: texts an example has.
      max_length: most tokens of an example.
      key: of the random rows.

    Raises:
      UserError: a model without a start or an end token, or whose vocabulary is not that of the tokenizer; see also
        `text_form`.
    """
    config, known = decoder.config, tokenizer.get_vocab_size()
    if known != config.vocabulary:
        raise UserError(
            f"the generator has a vocabulary of {config.vocabulary} tokens and its tokenizer {known}: expected the same"
        )
    if config.start_token is None:
        raise UserError("the generator's config.json names no start token (bos_token_id); expected one")
    tokenizer = copy.deepcopy(tokenizer)
    names = [PADDING, SEPARATOR, *map(start_token, range(classes))]
    new = [name for name in names if tokenizer.token_to_id(name) is None]
    tokenizer.add_special_tokens(new)
    if new:
        table = params["embeddings"]["word"]["table"]
        shape = (len(new), table.shape[1])
        copied = jnp.asarray([name.startswith("<bos_") for name in new])[:, None]
        random_rows, random_head = (
            config.initializer_range * jax.random.normal(k, shape, table.dtype) for k in jax.random.split(key)
        )
        options = {}
        if not config.tied_head:
            head = params["head"]["kernel"].T[config.start_token]
            options["head_rows"] = jnp.where(copied, head[None], random_head.astype(head.dtype))
        if config.head_bias:
            options["head_bias"] = jnp.full(len(new), params["head"]["bias"][config.start_token])
        rows = jnp.where(copied, table[config.start_token][None], random_rows)
        config, params = grow_vocabulary(config, params, rows, **options)
    config = dataclasses.replace(config, padding_token=tokenizer.token_to_id(PADDING))
    form = text_form(tokenizer, config, classes=classes, fields=fields, max_length=max_length)
    return Generator(decoder.clone(config=config), params, form)


def _end_token(config: DecoderConfig) -> int:
    if not config.end_tokens:
        raise UserError("the generator's config.json names no end token (eos_token_id); expected one")
    return config.end_tokens[0]
