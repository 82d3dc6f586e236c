"""The `Learner` made of a transformer with a classification head, whatever its family."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.types import AttentionRows, Batch, Key, Learner, Outputs, PyTree, Variables
from jaxdistill.models.encoder import stack_layers, unstack_layers
from jaxdistill.models.layers import wide

DTYPES = ("float32", "bfloat16", "float64")


class Network(NamedTuple):
    """A classifier as pure functions of one nested dict of parameters: `embeddings` (the word table at `word / table`),
    `layers` (one dict a layer by its number, or all stacked along axis 0), and the parts above them.

    Attributes:
      draw: random parameters from a key.
      run: `run(params, batch, key, attention)`; without a key nothing is dropped.
      embed: sentence vectors of parameters and a batch.
      depth: layers.
      above: names of the parts above the layers, bottom first.
      head: those of them that every partition trains.
      fresh: shapes of what two fresh learners do not share: kernels are drawn, biases are 0.
      initializer_range: standard deviation of drawn kernels.
      drops: whether a dropout rate is above 0.
      max_length, shape: see `Learner`.
    """

    draw: Callable[[Key], PyTree]
    run: Callable[[PyTree, Batch, Key | None, AttentionRows], Outputs]
    embed: Callable[[PyTree, Batch], Array]
    depth: int
    above: tuple[str, ...]
    head: tuple[str, ...]
    fresh: dict[str, dict[str, tuple[int, ...]]]
    initializer_range: float
    drops: bool
    max_length: int
    shape: dict[str, int]


def body_learner(
    network: Network,
    params: dict | None,
    *,
    dtype: jnp.dtype,
    trainable: str = "all",
    scan_layers: bool = False,
    train_words: bool = False,
) -> Learner:
    """A learner that fine-tunes a network.

    `init` gives the pretrained body under a fresh head; the trainable leaves are new buffers each time (so they may be
    donated), the frozen ones are shared. `refresh` redraws `Network.fresh`. Learning-rate groups are, bottom first:
    embeddings, each layer, each part above (those of them that are trained).

    Args:
      network: see `Network`.
      params: pretrained parameters, of which those in `Network.fresh` are not used; `None` for random ones.
      dtype: what matrix products run in.
      trainable: "all", "head", or "last_k:2" (the last two layers and all parts above).
      scan_layers: whether layers are stacked.
      train_words: whether "all" means the word table too, as ordinary fine-tuning on texts does. Inner loops over
        synthetic embeddings give it no gradient, so for them it stays frozen.

    Raises:
      UserError: a bad `trainable`.
    """
    first_trained = _first_trained_layer(trainable, network.depth, scan_layers)
    body = None
    if params is not None:
        kept = {name: part for name, part in params.items() if name not in network.fresh}
        kept = jax.tree.map(lambda a: jnp.asarray(a, wide(dtype)), kept)
        body = stack_layers(kept) if scan_layers else unstack_layers(kept)

    def is_trainable(path: tuple[str, ...]) -> bool:
        if path[0] == "embeddings":
            return trainable == "all" and (train_words or path[1] != "word")
        if path[0] == "layers":
            return first_trained == 0 if scan_layers else int(path[1]) >= first_trained
        return path[0] in network.head or first_trained < network.depth

    def init(key: Key) -> Variables:
        body_key, head_key = jax.random.split(key)
        whole = network.draw(body_key) if body is None else body
        trained, frozen = tree.partition(whole, is_trainable)
        return refresh(Variables(jax.tree.map(jnp.copy, trained), frozen), head_key)

    def refresh(variables: Variables, key: Key) -> Variables:
        head = {}
        for (name, leaves), k in zip(network.fresh.items(), jax.random.split(key, len(network.fresh)), strict=True):
            kernel = jax.random.normal(k, leaves["kernel"], wide(dtype)) * network.initializer_range
            zeros = {leaf: jnp.zeros(shape, wide(dtype)) for leaf, shape in leaves.items() if leaf != "kernel"}
            head[name] = {"kernel": kernel} | zeros
        return Variables(variables.trainable | head, variables.frozen)

    def randomize(variables: Variables, key: Key) -> Variables:
        return Variables(tree.partition(network.draw(key), is_trainable)[0], variables.frozen)

    def apply(
        variables: Variables,
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = False,
        attention: AttentionRows = "none",
    ) -> Outputs:
        drops = train and network.drops
        if drops and key is None:
            raise ValueError("training with dropout needs a key")
        whole = tree.merge(variables.trainable, variables.frozen)
        return network.run(whole, batch, key if drops else None, attention)

    def embed(variables: Variables, batch: Batch) -> Float[Array, "n d"]:
        return network.embed(tree.merge(variables.trainable, variables.frozen), batch)

    shapes = jax.eval_shape(init, jax.random.key(0))
    groups, group_names = _groups(shapes.trainable, network)
    return Learner(
        init=init,
        refresh=refresh,
        randomize=randomize,
        apply=apply,
        groups=groups,
        group_names=group_names,
        word_table=_word_table,
        embed=embed,
        max_length=network.max_length,
        shape=network.shape,
    )


def checked_dtype(num_classes: int, dtype: str | jnp.dtype) -> jnp.dtype:
    """The type that products run in.

    Raises:
      UserError: another type than learners have, or fewer than 2 classes.
    """
    if num_classes < 2:
        raise UserError(f"learner: num_classes is {num_classes}; it must be at least 2")
    if str(dtype) not in DTYPES:
        raise UserError(f"learner: dtype {str(dtype)!r} is unknown; expected float32, bfloat16 or float64")
    return jnp.dtype(dtype)


def without_attention(attention: AttentionRows, family: str) -> None:
    """Refuse to return attention rows.

    Raises:
      UserError: some are asked for.
    """
    if attention != "none":
        raise UserError(f"{family} has no attention rows to give labels to: accepted is attention none")


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


def _groups(trainable: PyTree, network: Network) -> tuple[PyTree, tuple[str, ...]]:
    """Number of the learning-rate group of each trainable leaf, and the names of the groups."""
    names = []
    if "embeddings" in trainable:
        names.append("embeddings")
    layers = trainable.get("layers", {})
    stacked = bool(layers) and not any(name.isdigit() for name in layers)
    names += [f"layer_{i}" for i in range(network.depth) if stacked or str(i) in layers]
    names += [name for name in network.above if name in trainable]

    def number(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        top, second = path[0].key, path[1].key
        if top != "layers":
            return np.asarray(names.index(top), np.int32)
        if stacked:
            return names.index("layer_0") + np.arange(leaf.shape[0], dtype=np.int32)
        return np.asarray(names.index(f"layer_{second}"), np.int32)

    return jax.tree_util.tree_map_with_path(number, trainable), tuple(names)
