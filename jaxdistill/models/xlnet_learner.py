"""The `Learner` made of an XLNet and, where there are any, pretrained parameters."""

from __future__ import annotations

import dataclasses
from typing import cast

import jax.numpy as jnp
from jaxtyping import Array

from jaxdistill.core.types import AttentionRows, Batch, Key, Learner, Outputs, PyTree
from jaxdistill.models.body_learner import Network, body_learner, checked_dtype, without_attention
from jaxdistill.models.learner import HEAD
from jaxdistill.models.xlnet import XLNet, init_xlnet
from jaxdistill.models.xlnet_config import XLNetConfig


def xlnet_learner(
    config: XLNetConfig,
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
    """A learner that fine-tunes an XLNet, see `body_learner`.

    `refresh` redraws pooler (the layer of the sequence summary, which pretraining does not have) and classifier.
    Learning-rate groups are, bottom first: embeddings (where the word table is trained), each layer, pooler,
    classifier. There are no attention rows to give labels to.

    Args:
      config: see there.
      params: pretrained parameters in the layout of `models.xlnet`, `None` for random ones. Pooler and classifier are
        not used, since learners start from fresh ones.
      num_classes: c.
      trainable: "all", "head" (pooler and classifier) or "last_k:2" (these and the last two layers).
      dtype: what matrix products run in: float32, bfloat16, or float64 (then parameters are float64 too).
      scan_layers, remat_layers: see `XLNet`.
      dropout: replaces both dropout rates of the config; `None` keeps them.
      train_words: see `body_learner`.

    Raises:
      UserError: a bad `trainable`, `num_classes`, `dtype` or `dropout`.
    """
    dtype = checked_dtype(num_classes, dtype)
    if dropout is not None:
        config = dataclasses.replace(config, dropout=dropout, head_dropout=dropout)
    xlnet = XLNet(config, num_classes, dtype, scan_layers, remat_layers)
    sizes = {"pooler": config.width, "classifier": num_classes}

    def run(params: PyTree, batch: Batch, key: Key | None, attention: AttentionRows) -> Outputs:
        without_attention(attention, "xlnet")
        return cast(Outputs, xlnet.apply({"params": params}, batch, key=key))

    network = Network(
        draw=lambda key: init_xlnet(xlnet, key),
        run=run,
        embed=lambda params, batch: cast(Array, xlnet.apply({"params": params}, batch, method="embed")),
        depth=config.layers,
        above=HEAD,
        head=HEAD,
        fresh={name: {"kernel": (config.width, size), "bias": (size,)} for name, size in sizes.items()},
        initializer_range=config.initializer_range,
        drops=max(config.dropout, config.head_dropout) > 0.0,
        max_length=config.positions,
        shape={
            "width": config.width,
            "layers": config.layers,
            "heads": 0,
            "classes": num_classes,
            "logits": num_classes,
            "vocabulary": config.vocabulary,
        },
    )
    options = {"trainable": trainable, "scan_layers": scan_layers, "train_words": train_words}
    return body_learner(network, params, dtype=dtype, **options)
