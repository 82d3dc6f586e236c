"""The `Learner` made of a T5's encoder and, where there are any, pretrained parameters (Raffel et al., "T5", 2020)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import AttentionRows, Batch, Key, Learner, Outputs, PyTree
from jaxdistill.models.body_learner import Network, body_learner, checked_dtype, without_attention
from jaxdistill.models.first_tokens import mean_over_tokens
from jaxdistill.models.layers import wide
from jaxdistill.models.model_folder import Checkpoint
from jaxdistill.models.t5 import T5, init_t5
from jaxdistill.models.t5_config import T5Config
from jaxdistill.models.t5_folder import load_t5


def load_t5_body(folder: Path) -> Checkpoint:
    """Read the encoder of a T5, in the layout of `t5_learner`. Errors are those of `load_t5`."""
    config, params, notes = load_t5(folder, encoder_only=True)
    return Checkpoint(config, _as_body(params), notes)


def t5_learner(
    config: T5Config,
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
    """A learner that fine-tunes the encoder of a T5, see `body_learner`.

    A linear classifier reads the mean of the last states of a text's tokens; the decoder is left out. Learning-rate
    groups are, bottom first: embeddings (the table of relative positions, and the word table where it is trained), each
    layer, norm, classifier. There are no attention rows to give labels to.

    Args:
      config: see there.
      params: of `load_t5_body`, `None` for random ones.
      num_classes: c.
      trainable: "all", "head" or "last_k:2" (head, norm and the last two layers).
      dtype: what matrix products run in: float32, bfloat16, or float64 (then parameters are float64 too).
      scan_layers, remat_layers: refused.
      dropout: replaces the dropout rate of the config; `None` keeps it.
      train_words: see `body_learner`.

    Raises:
      UserError: a bad `trainable`, `num_classes`, `dtype` or `dropout`; scanned or rematerialised layers.
    """
    dtype = checked_dtype(num_classes, dtype)
    if scan_layers or remat_layers:
        raise UserError("learner: scan_layers and remat_layers are not to be had of a t5: accepted is False")
    config = dataclasses.replace(config, decoder_layers=0)
    if dropout is not None:
        config = dataclasses.replace(config, dropout=dropout)
    t5 = T5(config, dtype)
    std = config.initializer_factor * config.width**-0.5

    def draw(key: Key) -> PyTree:
        body_key, head_key = jax.random.split(key)
        kernel = std * jax.random.normal(head_key, (config.width, num_classes), wide(dtype))
        head = {"kernel": kernel, "bias": jnp.zeros(num_classes, wide(dtype))}
        return _as_body(init_t5(t5, body_key)) | {"classifier": head}

    def features(params: PyTree, batch: Batch, key: Key | None) -> Float[Array, "n d"]:
        states = cast(Array, t5.apply({"params": _as_t5(params)}, batch, key=key, method="encode"))
        return mean_over_tokens(states.reshape(-1, config.width).astype(wide(dtype)), batch)

    def run(params: PyTree, batch: Batch, key: Key | None, attention: AttentionRows) -> Outputs:
        without_attention(attention, "t5")
        found = features(params, batch, key)
        head = params["classifier"]
        logits = found.astype(dtype) @ head["kernel"].astype(dtype)
        return Outputs(logits.astype(wide(dtype)) + head["bias"][None], found)

    network = Network(
        draw=draw,
        run=run,
        embed=lambda params, batch: features(params, batch, None),
        depth=config.encoder_layers,
        above=("norm", "classifier"),
        head=("classifier",),
        fresh={"classifier": {"kernel": (config.width, num_classes), "bias": (num_classes,)}},
        initializer_range=std,
        drops=config.dropout > 0.0,
        max_length=config.positions,
        shape={
            "width": config.width,
            "layers": config.encoder_layers,
            "heads": 0,
            "classes": num_classes,
            "logits": num_classes,
            "vocabulary": config.vocabulary,
        },
    )
    return body_learner(network, params, dtype=dtype, trainable=trainable, train_words=train_words)


def _as_body(params: PyTree) -> PyTree:
    """Parameters of an encoder as `Network` wants them."""
    encoder = dict(params["encoder"])
    embeddings = {"word": params["shared"], "positions": encoder.pop("positions")}
    return {"embeddings": embeddings, "norm": encoder.pop("norm"), "layers": encoder}


def _as_t5(body: PyTree) -> PyTree:
    """The way back."""
    embeddings = body["embeddings"]
    encoder = {"positions": embeddings["positions"], "norm": body["norm"], **body["layers"]}
    return {"shared": embeddings["word"], "encoder": encoder}
