"""The `Learner` made of an encoder and, where there are any, pretrained parameters."""

from __future__ import annotations

import dataclasses
from typing import cast

import jax.numpy as jnp
from jaxtyping import Array

from jaxdistill.core.types import AttentionRows, Batch, Key, Learner, Outputs, PyTree
from jaxdistill.models.body_learner import Network, body_learner, checked_dtype
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, init_params

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
    """A learner that fine-tunes an encoder, see `body_learner`.

    `refresh` redraws the classifier (and, for RoBERTa, DistilBERT or a checkpoint without one, the pooler) from
    N(0, initializer_range) with bias 0. Learning-rate groups are, bottom first: embeddings, each layer, pooler,
    classifier (those of them that are trained).

    Args:
      config: of the encoder.
      params: pretrained parameters in the layout of `models.encoder`, `None` for random ones. A missing `pooler` or
        `classifier` is drawn; a `classifier` that is there is not used, since learners start from a fresh one.
      num_classes: c.
      trainable: "all", "head" (pooler and classifier) or "last_k:2" (these and the last two layers).
      dtype: what matrix products run in: float32, bfloat16, or float64 (then parameters are float64 too).
      scan_layers, remat_layers: see `Encoder`.
      dropout: replaces all dropout rates of the config; `None` keeps them.
      train_words: see `body_learner`.

    Raises:
      UserError: a bad `trainable`, `num_classes`, `dtype` or `dropout`.
    """
    dtype = checked_dtype(num_classes, dtype)
    if dropout is not None:
        config = dataclasses.replace(config, hidden_dropout=dropout, attention_dropout=dropout, head_dropout=dropout)
    encoder = Encoder(config, num_classes, dtype, scan_layers, remat_layers)
    fresh = config.fresh_head if params is None or "pooler" in params else HEAD
    sizes = {"pooler": config.width, "classifier": num_classes}

    def run(params: PyTree, batch: Batch, key: Key | None, attention: AttentionRows) -> Outputs:
        return cast(Outputs, encoder.apply({"params": params}, batch, attention=attention, key=key))

    network = Network(
        draw=lambda key: init_params(encoder, key),
        run=run,
        embed=lambda params, batch: cast(Array, encoder.apply({"params": params}, batch, method="embed")),
        depth=config.layers,
        above=HEAD,
        head=HEAD,
        fresh={name: {"kernel": (config.width, sizes[name]), "bias": (sizes[name],)} for name in fresh},
        initializer_range=config.initializer_range,
        drops=max(config.hidden_dropout, config.attention_dropout, config.head_dropout) > 0.0,
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
    options = {"trainable": trainable, "scan_layers": scan_layers, "train_words": train_words}
    return body_learner(network, params, dtype=dtype, **options)
