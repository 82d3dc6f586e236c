"""Frozen encoders that make one vector of a row of tokens: classifiers' bodies, T5 encoders, word vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.tree import merge
from jaxdistill.core.types import Batch, PyTree, Variables
from jaxdistill.models.first_tokens import mean_over_tokens
from jaxdistill.models.hub import find_folder
from jaxdistill.models.model_folder import Tensors, read_config_values
from jaxdistill.models.pretrained import load_model
from jaxdistill.models.t5 import T5
from jaxdistill.models.t5_folder import load_t5
from jaxdistill.models.tokenizer import load_tokenizer
from jaxdistill.models.words import find_vectors, load_glove

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WORDS = "words:"
# Where sentence-transformers keeps the layer behind the pooling.
_DENSE = "2_Dense"
# What no sentence vector reads.
_HEADS = ("pooler", "classifier")

Mean = Callable[[PyTree, Int[Array, "r l"], Bool[Array, "r l"]], Float[Array, "r d"]]


class Encoder(NamedTuple):
    """A frozen encoder.

    Attributes:
      mean: the mean of the last hidden states over the positions that hold a token, of parameters, token ids and their
        mask.
      params: what it reads.
      tokenizer: without truncation or padding.
      prefix, suffix: ids of the tokens that stand in front of a text and behind it.
      limit: most positions of a row; `None` where there is no limit.
    """

    mean: Mean
    params: PyTree
    tokenizer: Tokenizer
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    limit: int | None


def load_encoder(name: str, *, dense: bool = False) -> Encoder:
    """The encoder that a name stands for.

    Args:
      name: see `models.pretrained.load_model`; or the folder of a T5, of which the encoder is read; or "words:" and a
        file of word vectors, see `models.words.find_vectors`.
      dense: put the linear layer that sentence-transformers keeps beside the model behind the mean.

    Raises:
      UserError: the name leads nowhere, the checkpoint cannot be used, or there is no linear layer.
    """
    if name.startswith(WORDS):
        mean, params, tokenizer, limit, folder = _words(name)
    elif name.partition(":")[0] != "tiny" and read_config_values(find_folder(name)).get("model_type") == "t5":
        mean, params, tokenizer, limit, folder = _t5(find_folder(name))
    else:
        mean, params, tokenizer, limit, folder = _body(name)
    if dense:
        if folder is None or not (folder / _DENSE).is_dir():
            raise UserError(f"model {name!r} has no dense layer behind its mean: there is no folder {_DENSE} with it")
        mean, params = _with_dense(mean, params, folder / _DENSE)
    return Encoder(mean, params, tokenizer, *_around(tokenizer, name), limit)


_Parts = tuple[Mean, PyTree, "Tokenizer", int | None, Path | None]


def _words(name: str) -> _Parts:
    path = find_vectors(name.removeprefix(WORDS))
    if path is None:
        raise UserError(f"word vectors {name!r}: no such file, and none under $JAXDISTILL_WEIGHTS")
    vectors = load_glove(path)

    def mean(params: PyTree, ids: Int[Array, "r l"], mask: Bool[Array, "r l"]) -> Float[Array, "r d"]:
        found = params["table"].at[ids].get(mode="clip")
        return mean_over_tokens(found.reshape(-1, found.shape[-1]), Batch(token_ids=ids, mask=mask))

    return mean, {"table": jnp.asarray(vectors.table)}, vectors.tokenizer, None, None


def _t5(folder: Path) -> _Parts:
    loaded, tokenizer = load_t5(folder, encoder_only=True), load_tokenizer(folder)
    if tokenizer.get_vocab_size() > loaded.config.vocabulary:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, the model only "
            f"{loaded.config.vocabulary}; expected the tokenizer of this model"
        )
    model = T5(loaded.config)

    def mean(params: PyTree, ids: Int[Array, "r l"], mask: Bool[Array, "r l"]) -> Float[Array, "r d"]:
        batch = Batch(token_ids=ids, mask=mask)
        states = cast(Array, model.apply({"params": params}, batch, method="encode"))
        return mean_over_tokens(states.reshape(-1, states.shape[-1]), batch)

    return mean, jax.tree.map(jnp.asarray, loaded.params), tokenizer, None, folder


def _body(name: str) -> _Parts:
    loaded = load_model(name, num_classes=2)
    embed = loaded.learner.embed
    assert embed is not None, "learners of a body have one"

    def mean(params: PyTree, ids: Int[Array, "r l"], mask: Bool[Array, "r l"]) -> Float[Array, "r d"]:
        return embed(Variables(params, {}), Batch(token_ids=ids, mask=mask))

    variables = loaded.learner.init(jax.random.key(0))
    whole = merge(variables.trainable, variables.frozen)
    params = {part: leaves for part, leaves in whole.items() if part not in _HEADS}
    return mean, params, loaded.tokenizer, loaded.learner.max_length, loaded.folder


def _with_dense(mean: Mean, params: PyTree, folder: Path) -> tuple[Mean, PyTree]:
    activation = str(read_config_values(folder).get("activation_function", "Identity"))
    if not activation.endswith("Identity"):
        raise UserError(f"{folder}: activation {activation!r} is not supported; supported is the identity")
    file = Tensors(folder)
    if "linear.weight" not in file.shapes or not set(file.shapes) <= {"linear.weight", "linear.bias"}:
        raise UserError(f"{folder}: tensors {', '.join(file.shapes)}; expected linear.weight, and maybe linear.bias")
    dense = {"kernel": jnp.asarray(np.asarray(file.read("linear.weight"), np.float32).T)}
    if "linear.bias" in file.shapes:
        dense["bias"] = jnp.asarray(np.asarray(file.read("linear.bias"), np.float32))

    def through(params: PyTree, ids: Int[Array, "r l"], mask: Bool[Array, "r l"]) -> Float[Array, "r d"]:
        x = mean(params["body"], ids, mask) @ params["dense"]["kernel"]
        return x + params["dense"]["bias"][None] if "bias" in params["dense"] else x

    return through, {"body": params, "dense": dense}


def _around(tokenizer: Tokenizer, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts in front of a text and behind it."""
    found = tokenizer.encode("a")
    if any(found.type_ids):
        raise UserError(f"model {name!r} tells its special tokens from others by their type; no embed space does")
    text = [i for i, special in enumerate(found.special_tokens_mask) if not special]
    return tuple(found.ids[: text[0]]), tuple(found.ids[text[-1] + 1 :])
