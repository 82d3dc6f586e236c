"""The `Learner` made of an encoder and, where there are any, pretrained parameters."""

from __future__ import annotations

import dataclasses
import re
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.types import AttentionRows, Batch, Key, Learner, Outputs, PyTree, Variables
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, init_params, stack_layers, unstack_layers
from jaxdistill.models.layers import wide

HEAD = ("pooler", "classifier")


def encoder_learner(
    config: EncoderConfig,
    params: dict | None,
    *,
    num_classes: int,
    trainable: str = "all",
    dtype: str | jnp.dtype = "float32",
    scan_layers: bool = False,
    remat_layers: bool = False,
    dropout: float | None = 0.0,
    train_words: bool = False,
) -> Learner:
    """A learner that fine-tunes an encoder.

    `init` gives the pretrained body under a fresh head; the trainable leaves are new buffers each time (so they may be
    donated), the frozen ones are shared. `refresh` redraws the head: the classifier (and, for RoBERTa, DistilBERT or a
    checkpoint without one, the pooler) from N(0, initializer_range) with bias 0. Learning-rate groups are, bottom
    first: embeddings, each layer, pooler, classifier (those of them that are trained).

    Args:
      config: of the encoder.
      params: pretrained parameters in the layout of `models.encoder`, `None` for random ones. A missing `pooler` or
        `classifier` is drawn; a `classifier` that is there is not used, since learners start from a fresh one.
      num_classes: c.
      trainable: "all", "head" (pooler and classifier) or "last_k:2" (these and the last two layers).
      dtype: what matrix products run in: float32, bfloat16, or float64 (then parameters are float64 too).
      scan_layers, remat_layers: see `Encoder`.
      dropout: replaces both dropout rates of the config; `None` keeps them.
      train_words: whether "all" means the word table too, as ordinary fine-tuning on texts does. Inner loops over
        synthetic embeddings give it no gradient, so for them it stays frozen.

    Raises:
      UserError: a bad `trainable`, `num_classes`, `dtype` or `dropout`.
    """
    if num_classes < 2:
        raise UserError(f"learner: num_classes is {num_classes}; it must be at least 2")
    if str(dtype) not in ("float32", "bfloat16", "float64"):
        raise UserError(f"learner: dtype {str(dtype)!r} is unknown; expected float32, bfloat16 or float64")
    dtype = jnp.dtype(dtype)
    if dropout is not None:
        config = dataclasses.replace(config, hidden_dropout=dropout, attention_dropout=dropout)
    encoder = Encoder(config, num_classes, dtype, scan_layers, remat_layers)
    first_trained = _first_trained_layer(trainable, config.layers, scan_layers)
    fresh = config.fresh_head
    body = None
    if params is not None:
        fresh = fresh if "pooler" in params else HEAD
        kept = {name: part for name, part in params.items() if name not in fresh}
        kept = jax.tree.map(lambda a: jnp.asarray(a, wide(dtype)), kept)
        body = stack_layers(kept) if scan_layers else unstack_layers(kept)

    def is_trainable(path: tuple[str, ...]) -> bool:
        if path[0] == "embeddings":
            return trainable == "all" and (train_words or path[1] != "word")
        if path[0] == "layers":
            return first_trained == 0 if scan_layers else int(path[1]) >= first_trained
        return True

    def init(key: Key) -> Variables:
        body_key, head_key = jax.random.split(key)
        whole = init_params(encoder, body_key) if body is None else body
        trained, frozen = tree.partition(whole, is_trainable)
        return refresh(Variables(jax.tree.map(jnp.copy, trained), frozen), head_key)

    def refresh(variables: Variables, key: Key) -> Variables:
        sizes = {"pooler": config.width, "classifier": num_classes}
        head = {}
        for name, k in zip(fresh, jax.random.split(key, len(fresh)), strict=True):
            kernel = jax.random.normal(k, (config.width, sizes[name]), wide(dtype)) * config.initializer_range
            head[name] = {"kernel": kernel, "bias": jnp.zeros(sizes[name], wide(dtype))}
        return Variables(variables.trainable | head, variables.frozen)

    def randomize(variables: Variables, key: Key) -> Variables:
        whole = init_params(encoder, key)
        return Variables(tree.partition(whole, is_trainable)[0], variables.frozen)

    def apply(
        variables: Variables,
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = False,
        attention: AttentionRows = "none",
    ) -> Outputs:
        drops = train and max(config.hidden_dropout, config.attention_dropout) > 0.0
        if drops and key is None:
            raise ValueError("training with dropout needs a key")
        whole = tree.merge(variables.trainable, variables.frozen)
        outputs = encoder.apply({"params": whole}, batch, attention=attention, key=key if drops else None)
        return cast(Outputs, outputs)

    def embed(variables: Variables, batch: Batch) -> Float[Array, "n d"]:
        whole = tree.merge(variables.trainable, variables.frozen)
        return cast(Array, encoder.apply({"params": whole}, batch, method="embed"))

    shapes = jax.eval_shape(init, jax.random.key(0))
    groups, group_names = _groups(shapes.trainable, config.layers)
    return Learner(
        init=init,
        refresh=refresh,
        randomize=randomize,
        apply=apply,
        groups=groups,
        group_names=group_names,
        word_table=_word_table,
        embed=embed,
        max_length=config.max_length,
        shape={
            "width": config.width,
            "layers": config.layers,
            "heads": config.heads,
            "classes": num_classes,
            "logits": num_classes,
            "vocabulary": config.vocabulary,
        },
    )


def _word_table(variables: Variables) -> Float[Array, "v d"]:
    embeddings = variables.trainable.get("embeddings", {}) | variables.frozen.get("embeddings", {})
    return embeddings["word"]["table"]


def _first_trained_layer(trainable: str, depth: int, scan_layers: bool) -> int:
    """Index of the lowest layer that is trained; `depth` when none is."""
    if trainable == "all":
        return 0
    match = re.fullmatch(r"head|last_k:([1-9]\d*)", trainable)
    count = int(match[1] or 0) if match else depth + 1
    if count > depth:
        raise UserError(f"learner: trainable {trainable!r}; expected all, head, or last_k:K with K in 1..{depth}")
    if scan_layers and 0 < count < depth:
        raise UserError(f"learner: trainable {trainable!r} cuts the stack of layers; set scan_layers=False with it")
    return depth - count


def _groups(trainable: PyTree, depth: int) -> tuple[PyTree, tuple[str, ...]]:
    """Number of the learning-rate group of each trainable leaf, and the names of the groups."""
    names = []
    if "embeddings" in trainable:
        names.append("embeddings")
    layers = trainable.get("layers", {})
    stacked = bool(layers) and not any(name.isdigit() for name in layers)
    names += [f"layer_{i}" for i in range(depth) if stacked or str(i) in layers]
    names += HEAD

    def number(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        top, second = path[0].key, path[1].key
        if top != "layers":
            return np.asarray(names.index(top), np.int32)
        if stacked:
            return names.index("layer_0") + np.arange(leaf.shape[0], dtype=np.int32)
        return np.asarray(names.index(f"layer_{second}"), np.int32)

    return jax.tree_util.tree_map_with_path(number, trainable), tuple(names)
