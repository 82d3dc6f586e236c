"""The `Learner` made of a small network over frozen word vectors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.types import AttentionRows, Batch, Key, Learner, Outputs, PyTree, Variables
from jaxdistill.models.classic import MLP, Classifier, ConvLSTM, Recurrent, TextCNN


@dataclasses.dataclass(frozen=True)
class ClassicOptions:
    """What a small network does that published code did otherwise.

    Attributes:
      mask_padding: padding is not seen; otherwise networks run over it.
      double_bias: two bias vectors a recurrent cell, both trained.
      fixed_init: every learner starts from the same weights; otherwise each from its own.
      gain: of Xavier's initialisation.
      hidden: width of the hidden layers of `mlp`, of the states of `bi_rnn` and `bi_lstm`, number of filters of each
        width of `text_cnn`; 0 takes 300, 100 and 100.
      one_logit: two classes are told apart by one logit, with targets of any value (`label_kind` "binary").
      threshold: what that logit must exceed for class 1 to be called; published code has 0.5, which is a probability
        of 0.62.
    """

    mask_padding: bool = True
    double_bias: bool = False
    fixed_init: bool = False
    gain: float = 1.0
    hidden: int = 0
    one_logit: bool = False
    threshold: float = 0.0

    def __post_init__(self):
        if not 0.0 < self.gain < float("inf"):
            raise UserError(f"gain is {self.gain}: accepted is a number above 0")
        if self.hidden < 0:
            raise UserError(f"hidden is {self.hidden}: accepted is a whole number from 0")
        if not -float("inf") < self.threshold < float("inf"):
            raise UserError(f"threshold is {self.threshold}: accepted is a finite number")


def _recurrent(cell: str) -> Callable[[ClassicOptions, int], nn.Module]:
    def build(options: ClassicOptions, length: int) -> nn.Module:
        return Recurrent(
            cell,
            options.hidden or 100,
            mask_padding=options.mask_padding,
            double_bias=options.double_bias,
            gain=options.gain,
        )

    return build


# Networks by name, given options and the number of positions.
NETWORKS: dict[str, Callable[[ClassicOptions, int], nn.Module]] = {
    "text_cnn": lambda options, length: TextCNN(
        filters=options.hidden or 100, mask_padding=options.mask_padding, gain=options.gain
    ),
    "bi_rnn": _recurrent("rnn"),
    "bi_lstm": _recurrent("lstm"),
    "conv_lstm": lambda options, length: ConvLSTM(length, double_bias=options.double_bias, gain=options.gain),
    "mlp": lambda options, length: MLP(options.hidden or 300, gain=options.gain),
}
DROPOUT = {"text_cnn": 0.5}


def classic_learner(
    network: str,
    vectors: Float[np.ndarray, "v d"] | Float[Array, "v d"],
    *,
    num_classes: int,
    length: int,
    options: ClassicOptions = ClassicOptions(),
    trainable: str = "all",
    dtype: str = "float32",
    dropout: float | None = 0.0,
) -> Learner:
    """A learner that trains a small network from scratch.

    Texts come one a row (it does not pack). Word vectors are frozen. Learning-rate groups are the body and the
    classifier.

    Args:
      network: a name in `NETWORKS`.
      vectors: of the words, by token id.
      num_classes: c.
      length: positions of every batch for `conv_lstm`; most positions for the others.
      options: see `ClassicOptions`.
      trainable: "all" or "head".
      dtype: float32 or float64.
      dropout: rate on the features in training; `None` takes the network's own.

    Raises:
      UserError: an unknown network, `trainable` or `dtype`; fewer than 2 classes; a length that the filters exceed.
    """
    if network not in NETWORKS:
        raise UserError(f"unknown network {network!r}: accepted are {', '.join(NETWORKS)}")
    if num_classes < 2:
        raise UserError(f"learner: num_classes is {num_classes}; it must be at least 2")
    if trainable not in ("all", "head"):
        raise UserError(f"learner: trainable {trainable!r}; expected all or head for {network}")
    if dtype not in ("float32", "float64"):
        raise UserError(f"learner: dtype {dtype!r}; expected float32 for {network}")
    body = NETWORKS[network](options, length)
    if isinstance(body, TextCNN) and length < max(body.widths):
        raise UserError(f"max_length {length} is less than the widest filter, {max(body.widths)} words")
    if isinstance(body, ConvLSTM) and vectors.shape[1] < body.kernel + body.pool - 1:
        raise UserError(f"word vectors of {vectors.shape[1]} numbers are too short for {network}")
    if num_classes != 2 and (options.one_logit or options.threshold):
        raise UserError(f"one_logit and threshold are for two classes, not for {num_classes}")
    rate = DROPOUT.get(network, 0.0) if dropout is None else dropout
    activation = jnp.tanh if isinstance(body, MLP) else None
    model = Classifier(body, num_classes, rate, options.gain, options.one_logit, activation)
    table = jnp.asarray(vectors, dtype)

    @jax.jit
    def draw(key: Key) -> PyTree:
        blank = jnp.zeros((1, length, table.shape[1]), dtype)
        return model.init(key, blank, jnp.ones((1, length), bool))["params"]

    def init(key: Key) -> Variables:
        trained, frozen = tree.partition(draw(key), lambda path: trainable == "all" or path[0] == "classifier")
        return Variables(trained, frozen | {"embeddings": {"word": {"table": table}}})

    def randomize(variables: Variables, key: Key) -> Variables:
        return Variables(init(key).trainable, variables.frozen)

    def refresh(variables: Variables, key: Key) -> Variables:
        return variables if options.fixed_init else randomize(variables, key)

    def word_table(variables: Variables) -> Float[Array, "v d"]:
        return variables.frozen["embeddings"]["word"]["table"]

    def read(variables: Variables, batch: Batch) -> tuple[Float[Array, "n l d"], Bool[Array, "n l"]]:
        if batch.segments is not None:
            raise ValueError(f"{network} takes one text a row, not packed rows")
        x = batch.embeddings
        if x is None:
            x = jnp.take(word_table(variables), batch.token_ids, axis=0)
        mask = jnp.ones(x.shape[:2], bool) if batch.mask is None else batch.mask
        return jnp.where(mask[..., None], x, jnp.zeros_like(x)), mask

    def apply(
        variables: Variables,
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = False,
        attention: AttentionRows = "none",
    ) -> Outputs:
        if attention != "none":
            raise UserError(f"{network} has no attention to give labels to")
        drops = train and rate > 0.0
        if drops and key is None:
            raise ValueError("training with dropout needs a key")
        params = {name: part for name, part in (variables.frozen | variables.trainable).items() if name != "embeddings"}
        outputs = model.apply({"params": params}, *read(variables, batch), key if drops else None)
        hidden, features, logits = cast(tuple[Array, Array, Array], outputs)
        return Outputs(logits=logits, features=features, hidden=hidden if activation else None)

    def embed(variables: Variables, batch: Batch) -> Float[Array, "n d"]:
        x, mask = read(variables, batch)
        count = jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
        return jnp.sum(x, axis=1) / count.astype(x.dtype)

    shapes = jax.eval_shape(init, jax.random.key(0)).trainable
    names = [name for name in ("body", "classifier") if name in shapes]
    groups = {
        name: jax.tree.map(functools.partial(lambda number, _: np.asarray(number, np.int32), names.index(name)), part)
        for name, part in shapes.items()
    }
    return Learner(
        init=init,
        refresh=refresh,
        randomize=randomize,
        apply=apply,
        groups=groups,
        group_names=tuple(names),
        word_table=word_table,
        embed=embed,
        max_length=length,
        packs=False,
        threshold=options.threshold,
        min_length=max(body.widths) if isinstance(body, TextCNN) else length if isinstance(body, ConvLSTM) else 1,
        shape={
            "width": table.shape[1],
            "layers": 0,
            "heads": 0,
            "classes": num_classes,
            "logits": 1 if options.one_logit else num_classes,
            "vocabulary": table.shape[0],
        },
    )
