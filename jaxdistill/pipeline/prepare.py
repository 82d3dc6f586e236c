"""Data and learner of a configuration."""

from __future__ import annotations

import functools

import jax
from jax.sharding import Mesh

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Learner
from jaxdistill.data.encoding import encode
from jaxdistill.data.sources import TaskData, load_task
from jaxdistill.methods.base import Problem
from jaxdistill.models.classic_learner import NETWORKS
from jaxdistill.models.pretrained import Pretrained, load_classic, load_encoder
from jaxdistill.parallel.mesh import make_mesh
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig


def load_data(config: TaskConfig) -> TaskData:
    """The splits of a task."""
    return load_task(
        config.name,
        data_dir=config.data_dir or None,
        text_columns=config.text_columns or None,
        label_column=config.label_column or None,
        label_names=config.label_names or None,
    )


def load_learner(
    config: LearnerConfig, classes: int, length: int, *, dropout: float | None = 0.0, train_words: bool = False
) -> Pretrained:
    """The learner.

    Args:
      config: see `LearnerConfig`.
      classes: number of classes.
      length: tokens of a text at most; an encoder has its own bound.
      dropout: `None` keeps the model's own rates.
      train_words: whether "all" parameters of an encoder means the word table too.
    """
    common = {"num_classes": classes, "dropout": dropout, "trainable": config.trainable, "dtype": config.dtype}
    if config.name in NETWORKS:
        words = config.words
        return load_classic(
            config.name,
            words.vectors,
            length=length,
            rows=words.rows,
            split=words.split,
            vector_std=words.std,
            options=config.network,
            **common,
        )
    layers = {"scan_layers": config.scan_layers, "remat_layers": config.remat_layers}
    return load_encoder(config.name, train_words=train_words, **common, **layers)


def mesh_for(devices: int) -> Mesh | None:
    """The mesh that `ExperimentConfig.devices` asks for; several processes always take all devices they have.

    Raises:
      UserError: more devices than there are.
    """
    if devices == 0 and jax.process_count() == 1:
        return None
    return make_mesh(devices if devices > 0 else None)


def prepare(task: TaskConfig, learner: LearnerConfig) -> Problem:
    """Load and tokenise.

    Raises:
      UserError: see `data.sources.load_task`, `models.pretrained.load_encoder`, `data.encoding.encode`.
    """
    data = load_data(task)
    asked = task.max_length or data.task.max_length
    dropout = None if learner.dropout else 0.0
    pretrained = load_learner(learner, len(data.task.label_names), asked, dropout=dropout)
    longest = pretrained.learner.max_length
    max_length = min(asked, longest)
    row_length = task.row_length or max_length
    if not max_length <= row_length:
        raise UserError(f"row_length {row_length} is less than max_length {max_length}: a text would not fit in a row")
    splits = {name: encode(getattr(data, name), pretrained.tokenizer, max_length) for name in ("train", "dev", "test")}
    notes = [*data.notes, *pretrained.notes]
    if asked > longest:
        notes.append(f"max_length {asked} is lowered to the learner's {longest} positions")
    notes += [f"{name}: {note}" for name, encoded in splits.items() for note in encoded.notes]

    @functools.cache
    def fine_tuning(dropout: bool) -> Learner:
        rate = None if dropout else 0.0
        return load_learner(learner, len(data.task.label_names), longest, dropout=rate, train_words=True).learner

    return Problem(
        data=data,
        pretrained=pretrained,
        fine_tuning=fine_tuning,
        row_length=row_length,
        notes=tuple(notes),
        **splits,
    )
