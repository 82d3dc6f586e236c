"""UniDetox: an attribute is taken from language models by tuning them on texts that contrast a model with an expert.

Source: H. Lu, M. Isonuma, J. Mori, I. Sakata, "UniDetox: Universal Detoxification of Large Language Models via Dataset
Distillation", ICLR 2025. An expert is a base model tuned on texts with the attribute (`fine_tune`); texts are drawn
from the contrast of both (`contrastive.contrastive_distil`); any other model is tuned on these (`fine_tune` again).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key
from jaxdistill.data.documents import encode_documents
from jaxdistill.data.encoding import Encoded
from jaxdistill.evaluation.likelihoods import LanguageModel
from jaxdistill.io.metrics import ConsoleWriter
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Run
from jaxdistill.methods.contrastive import boundary_tokens
from jaxdistill.methods.language_modelling import make_training, run_training
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.models.decoder_config import DecoderConfig


class Tuned(NamedTuple):
    """A language model after training on texts.

    Attributes:
      model: with its new parameters, on the device.
      record: see `language_modelling.Trained`, and "truncated", texts that were cut.
    """

    model: LanguageModel
    record: dict[str, Any]


def published_expert() -> LanguageModelling:
    """How the published expert is trained: 3 epochs of single texts at 1e-5, on the padding too."""
    return dataclasses.replace(published_student(), updates=0, epochs=3.0, rows=4, row_length=512, lr=1e-5)


def published_student() -> LanguageModelling:
    """How published students are tuned: 3,000 batches of 8 texts at 5e-5, on the padding too; the last is kept."""
    return LanguageModelling(
        updates=3000,
        epochs=0.0,
        rows=8,
        row_length=256,
        truncate=True,
        start_token=False,
        packed=False,
        pad_to="longest",
        loss_on_pad=True,
        lr=5e-5,
        schedule="linear",
        warmup=0.0,
        weight_decay=0.0,
        dropout=True,
        selections=1,
        keep="last",
    )


def fine_tune(
    settings: LanguageModelling,
    model: LanguageModel,
    texts: Sequence[str],
    dev: Sequence[str] = (),
    *,
    key: Key,
    run: Run,
    label: str,
) -> Tuned:
    """Train a language model on texts; the same call after an interruption gives the same parameters.

    Args:
      settings: see there.
      model: not changed.
      texts: to train on.
      dev: texts that checkpoints are compared on; empty where the last is kept.
      key: order of the texts, dropout.
      run: checkpoints, stop signal.
      label: of progress lines.

    Raises:
      UserError: settings, texts and model do not fit one another; the loss was not finite for long.
      Stopped: `run.stop()` said so; a checkpoint is kept.
    """
    train = documents(settings, model, texts)
    training = make_training(settings, model.decoder, model.params, train, key=key)

    def console(start: int) -> ConsoleWriter:
        return ConsoleWriter(Progress(f"{label}: step", training.updates, start=start), names=("loss",))

    own = dataclasses.replace(run, make_writer=console)
    trained = run_training(settings, training, documents(settings, model, dev) if dev else None, run=own)
    params = jax.tree.map(jnp.asarray, trained.params)
    return Tuned(dataclasses.replace(model, params=params), trained.record | {"truncated": train.truncated})


def check_rows(settings: LanguageModelling, config: DecoderConfig, name: str) -> tuple[int, tuple[int, ...]]:
    """The boundary tokens of a model called `name`, see `contrastive.boundary_tokens`.

    Raises:
      UserError: it has none, or reads fewer positions than a training row has.
    """
    if settings.row_length > config.positions:
        raise UserError(
            f"training.row_length is {settings.row_length}, and {name!r} reads {config.positions} positions: accepted "
            "are as many or fewer"
        )
    return boundary_tokens(config, name)


def documents(settings: LanguageModelling, model: LanguageModel, texts: Sequence[str]) -> Encoded:
    """Texts as a model reads them in training.

    Raises:
      UserError: the model has no end token, or no text has a token to predict.
    """
    start, ends = check_rows(settings, model.decoder.config, model.name)
    return encode_documents(
        texts,
        model.tokenizer,
        row_length=settings.row_length,
        end=ends[0],
        start=start if settings.start_token else None,
        truncate=settings.truncate,
    )
