"""New tokens for a causal language model."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.models.decoder_config import DecoderConfig


def grow_vocabulary(
    config: DecoderConfig,
    params: PyTree,
    rows: Float[Array, "n e"],
    *,
    head_rows: Float[Array, "n e"] | None = None,
    head_bias: Float[Array, " n"] | None = None,
) -> tuple[DecoderConfig, dict]:
    """The model with n more tokens, numbered on from the last; layers stacked or not.

    What the model says of texts of old tokens changes only by the probability that the new ones take.

    Args:
      config, params: of the model.
      rows: word vectors of the new tokens; those of known ones are `params["embeddings"]["word"]["table"][ids]`.
      head_rows: output vectors of the new tokens, for a model whose head is not tied to the word table; those of known
        ones are `params["head"]["kernel"].T[ids]`.
      head_bias: output biases, for a model that has them.

    Returns:
      Config and parameters of the larger model, the other parameters shared with the smaller one.

    Raises:
      UserError: vectors of another width; output vectors or biases missing, too many or of another number.
    """
    count = rows.shape[0]
    if rows.shape[1] != config.embedding_width:
        raise _error(f"rows of {rows.shape[1]} features; the word table has {config.embedding_width}")
    expected = {
        "head_rows": None if config.tied_head else (count, config.embedding_width),
        "head_bias": (count,) if config.head_bias else None,
    }
    for (name, shape), given in zip(expected.items(), (head_rows, head_bias), strict=True):
        found = None if given is None else given.shape
        if found != shape:
            raise _error(f"{name} of shape {found}; this model needs {shape}")
    embeddings, head = params["embeddings"], dict(params.get("head", {}))
    table = _join(embeddings["word"]["table"], rows, 0)
    if head_rows is not None:
        head["kernel"] = _join(head["kernel"], head_rows.T, 1)
    if head_bias is not None:
        head["bias"] = _join(head["bias"], head_bias, 0)
    grown = {**params, "embeddings": {**embeddings, "word": {"table": table}}} | ({"head": head} if head else {})
    return dataclasses.replace(config, vocabulary=config.vocabulary + count), grown


def _join(kept: Array, added: Array, axis: int) -> Array:
    return jnp.concatenate([kept, added.astype(kept.dtype)], axis=axis)


def _error(text: str) -> UserError:
    return UserError(f"grow vocabulary: {text}")
