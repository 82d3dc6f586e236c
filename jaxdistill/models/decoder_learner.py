"""The `Learner` made of a decoder: a classifier on the last token of each text."""

from __future__ import annotations

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.types import AttentionRows, Batch, Key, Learner, Outputs, PyTree
from jaxdistill.models.body_learner import Network, body_learner, checked_dtype, without_attention
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_classifier import from_decoder, to_decoder
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.first_tokens import mean_over_tokens
from jaxdistill.models.last_tokens import last_states
from jaxdistill.models.layers import wide


def decoder_learner(
    config: DecoderConfig,
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
    """A learner that fine-tunes a decoder, see `body_learner`.

    A matrix without bias reads the features of the last token, which alone has seen the whole text: the last hidden
    states, normalised, and in OPT-350m projected. So do the five families in transformers, where the last token is the
    last one that is not padding. Learning-rate groups are, bottom first: embeddings, each layer, "final" (what follows
    the layers, where there is any of it), classifier. There are no attention rows, since the first token sees itself
    alone.

    Args:
      config: of the decoder.
      params: pretrained parameters in the layout of `models.decoder_classifier`, `None` for random ones. A `classifier`
        that is there is not used, since learners start from a fresh one.
      num_classes: c.
      trainable: "all", "head" (the classifier) or "last_k:2" (the last two layers and what is above them).
      dtype: what matrix products run in: float32, bfloat16, or float64 (then parameters are float64 too).
      scan_layers, remat_layers: see `Decoder`.
      dropout: replaces all dropout rates of the config; `None` keeps them. The head has none in any family.
      train_words: see `body_learner`.

    Raises:
      UserError: a bad `trainable`, `num_classes`, `dtype` or `dropout`.
    """
    dtype = checked_dtype(num_classes, dtype)
    rates = ("embedding_dropout", "residual_dropout", "attention_dropout")
    if dropout is not None:
        config = dataclasses.replace(config, **dict.fromkeys(rates, dropout))
    decoder = Decoder(config, dtype, scan_layers, remat_layers)

    def states(params: PyTree, batch: Batch, key: Key | None) -> Float[Array, "m d"]:
        hidden, _ = decoder.apply({"params": to_decoder(params)}, batch, key=key, method="states")
        return hidden.reshape(-1, config.width)

    def features(params: PyTree, hidden: Float[Array, "m d"]) -> Float[Array, "m e"]:
        read = decoder.apply({"params": to_decoder(params)}, hidden, method="features")
        return cast(Array, read).astype(wide(dtype))

    def run(params: PyTree, batch: Batch, key: Key | None, attention: AttentionRows) -> Outputs:
        without_attention(attention, config.family)
        read = features(params, last_states(states(params, batch, key), batch))
        return Outputs(logits=read @ params["classifier"]["kernel"], features=read)

    def embed(params: PyTree, batch: Batch) -> Float[Array, "n e"]:
        return mean_over_tokens(features(params, states(params, batch, None)), batch)

    kernel = (config.embedding_width, num_classes)

    def draw(key: Key) -> PyTree:
        body_key, head_key = jax.random.split(key)
        matrix = jax.random.normal(head_key, kernel, wide(dtype)) * config.initializer_range
        return from_decoder(init_decoder(decoder, body_key)) | {"classifier": {"kernel": matrix}}

    network = Network(
        draw=draw,
        run=run,
        embed=embed,
        depth=config.layers,
        above=("final", "classifier"),
        head=("classifier",),
        fresh={"classifier": {"kernel": kernel}},
        initializer_range=config.initializer_range,
        drops=max(getattr(config, rate) for rate in rates) > 0.0,
        max_length=config.positions,
        shape={
            "width": config.embedding_width,
            "layers": config.layers,
            "heads": 0,
            "classes": num_classes,
            "logits": num_classes,
            "vocabulary": config.vocabulary,
        },
    )
    options = {"trainable": trainable, "scan_layers": scan_layers, "train_words": train_words}
    return body_learner(network, params, dtype=dtype, **options)
