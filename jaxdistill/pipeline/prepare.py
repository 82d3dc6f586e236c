"""Data and learner of a configuration."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Learner
from jaxdistill.data.balance import cell_counts, check_groups, resample, reweight, skew
from jaxdistill.data.encoding import Encoded, encode
from jaxdistill.data.sources import TaskData, load_task
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.sentences import with_sentence_vectors
from jaxdistill.methods.base import Problem
from jaxdistill.models.classic_learner import NETWORKS
from jaxdistill.models.pretrained import Pretrained, load_classic, load_model
from jaxdistill.models.words import WordVectors, row_vectors
from jaxdistill.parallel.mesh import make_mesh
from jaxdistill.pipeline.config import BalanceConfig, LearnerConfig, TaskConfig


def load_data(config: TaskConfig) -> TaskData:
    """The splits of a task."""
    return load_task(
        config.name,
        data_dir=config.data_dir or None,
        text_columns=config.text_columns or None,
        label_column=config.label_column or None,
        label_names=config.label_names or None,
        group_column=config.group_column or None,
    )


def load_learner(
    config: LearnerConfig,
    classes: int,
    length: int,
    *,
    dropout: float | None = 0.0,
    train_words: bool = False,
    words: WordVectors | None = None,
) -> Pretrained:
    """The learner.

    Args:
      config: see `LearnerConfig`.
      classes: number of classes.
      length: tokens of a text at most; an encoder has its own bound.
      dropout: `None` keeps the model's own rates.
      train_words: whether "all" parameters of an encoder means the word table too.
      words: vectors of whole texts, which take the place of those that the configuration names.
    """
    common = {"num_classes": classes, "dropout": dropout, "trainable": config.trainable, "dtype": config.dtype}
    if config.name in NETWORKS:
        options: dict = {"length": length, "options": config.network, **common}
        if words is not None:
            return load_classic(config.name, words, **options)
        given = config.words
        return load_classic(
            config.name, given.vectors, rows=given.rows, split=given.split, vector_std=given.std, **options
        )
    layers = {"scan_layers": config.scan_layers, "remat_layers": config.remat_layers}
    return load_model(config.name, train_words=train_words, **common, **layers)


def mesh_for(devices: int, model: int = 1) -> Mesh | None:
    """The mesh that `ExperimentConfig.devices` asks for; several processes always take all devices they have.

    Args:
      devices: 0 for no mesh, -1 for all.
      model: how many of them share the parameters, see `make_mesh`.

    Raises:
      UserError: more devices than there are, or a number that `model` does not divide.
    """
    if devices == 0 and jax.process_count() == 1:
        return None
    return make_mesh(devices if devices > 0 else None, model)


def with_vectors(data: TaskData, task: TaskConfig, learner: LearnerConfig) -> TaskData:
    """The data with a vector for each text, where the learner reads such; as they are otherwise.

    Raises:
      UserError: task and learner do not fit one another.
    """
    encoder = learner.words.sentence_encoder
    if encoder is not None:
        return with_sentence_vectors(data, encoder, max_length=task.max_length or data.task.max_length)
    if data.vectors is None:
        return data
    if learner.name != "mlp":
        raise UserError(f"task {task.name!r} is of vectors: learner.name is {learner.name!r}, accepted is mlp")
    if task.max_length > 1 or task.row_length > 1:
        raise UserError(
            f"task {task.name!r} is of vectors: max_length and row_length must stay 0, a text is one vector"
        )
    return data


def shared_words(data: TaskData, std: float) -> WordVectors:
    """The vectors of a task as a table that all its learners share, on the device, as float32.

    Args:
      data: with vectors.
      std: scale them so that the numbers of the training split have this root mean square; 0 leaves them.
    """
    assert data.vectors is not None
    table = np.asarray(data.vectors, np.float32)
    if std:
        train = table[: len(data.train)]
        table = table * np.float32(std / np.sqrt(np.einsum("nd,nd->", train, train, dtype=np.float64) / train.size))
    texts = [text for split in (data.train, data.dev, data.test) for (text,) in split.texts]
    return row_vectors(texts, jnp.asarray(table))


def balanced(data: TaskData, balance: BalanceConfig) -> tuple[TaskData, Float32[np.ndarray, " n"] | None]:
    """(the data with a balanced training split, weights of its examples or `None`).

    Raises:
      UserError: the data have no groups, or see `data.balance`.
    """
    if balance.objective == "none" and not balance.skew:
        return data, None
    names = data.task.group_names
    if not names:
        lacking = f"task.balance needs the group of each example, and {data.task.name} has none"
        raise UserError(f"{lacking}: give task.group_column")
    if balance.skew:
        train = data.train
        rows = skew(train.labels, train.attributes["group"], balance.skew, num_groups=len(names), seed=balance.seed)
        note = f"biased on purpose (skew {balance.skew}): {len(rows):,} of {len(train):,} training examples"
        data = dataclasses.replace(data, train=train.take(rows), notes=(*data.notes, note))
    if balance.objective == "none":
        return data, None
    train = data.train
    cells = (train.labels, train.attributes["group"], balance.objective)
    named: dict[str, Any] = {"label_names": data.task.label_names, "group_names": names}
    if balance.by == "resampling":
        chosen = resample(*cells, **named, seed=balance.seed)
        note = f"balanced training ({balance.objective}): {len(chosen.indices):,} of {len(train):,} training examples"
        taken = train.take(chosen.indices)
        counts = taken.class_counts(len(data.task.label_names))
        if not counts.all():
            left_out = data.task.label_names[int(np.argmin(counts))]
            raise UserError(
                f"balanced training by resampling leaves no example of class {left_out!r}: give "
                "task.balance.by=reweighting"
            )
        return dataclasses.replace(data, train=taken, notes=(*data.notes, note, *chosen.notes)), None
    weighed = reweight(*cells, **named)
    return dataclasses.replace(data, notes=(*data.notes, *weighed.notes)), weighed.weights


def check_split_groups(data: TaskData) -> None:
    """Whether the groups of every split can be trained with and compared; nothing to do where there are none.

    Raises:
      UserError: see `data.balance.check_groups`; or no class of a split has two groups.
    """
    names = data.task.group_names
    for where in ("train", "dev", "test") if names else ():
        split: Split = getattr(data, where)
        groups = split.attributes["group"]
        check_groups(split.labels, groups, label_names=data.task.label_names, group_names=names, where=where)
        sizes = {"num_classes": len(data.task.label_names), "num_groups": len(names)}
        if not ((cell_counts(split.labels, groups, **sizes) > 0).sum(axis=1) >= 2).any():
            raise UserError(f"{where}: no class has examples of two groups, so that nothing can be compared")


def _encoded(where: str, data: TaskData, pretrained: Pretrained, max_length: int) -> Encoded:
    """A split, tokenised, with its groups where they are known."""
    split: Split = getattr(data, where)
    encoded = encode(split, pretrained.tokenizer, max_length)
    names = data.task.group_names
    if not names:
        return encoded
    return dataclasses.replace(encoded, groups=np.eye(len(names), dtype=np.float32)[split.attributes["group"]])


def prepare(task: TaskConfig, learner: LearnerConfig) -> Problem:
    """Load and tokenise; make sentence vectors where the learner reads these.

    Raises:
      UserError: see `data.sources.load_task`, `models.pretrained.load_model`, `data.encoding.encode`.
    """
    data = with_vectors(load_data(task), task, learner)
    # Before balancing: the table holds the vectors of all splits as they were read.
    words = None if data.vectors is None else shared_words(data, learner.words.std)
    check_split_groups(data)
    return problem_of(*balanced(data, task.balance), words, task, learner)


def problem_of(
    data: TaskData,
    weights: Float32[np.ndarray, " n"] | None,
    words: WordVectors | None,
    task: TaskConfig,
    learner: LearnerConfig,
) -> Problem:
    """A learner, and the data tokenised for it.

    Args:
      data: balanced as `task` asks.
      weights: of the training examples, or `None`.
      words: vectors of whole texts, where the learner reads these.
      task, learner: see there.

    Raises:
      UserError: see `models.pretrained.load_model`, `data.encoding.encode`.
    """
    asked = 1 if words else task.max_length or data.task.max_length
    dropout = None if learner.dropout else 0.0
    pretrained = load_learner(learner, len(data.task.label_names), asked, dropout=dropout, words=words)
    longest = pretrained.learner.max_length
    max_length = min(asked, longest)
    row_length = 1 if words else task.row_length or max_length
    if not max_length <= row_length:
        raise UserError(f"row_length {row_length} is less than max_length {max_length}: a text would not fit in a row")
    splits = {name: _encoded(name, data, pretrained, max_length) for name in ("train", "dev", "test")}
    splits["train"] = dataclasses.replace(splits["train"], weights=weights)
    notes = [*data.notes, *pretrained.notes]
    if asked > longest:
        notes.append(f"max_length {asked} is lowered to the learner's {longest} positions")
    notes += [f"{name}: {note}" for name, encoded in splits.items() for note in encoded.notes]

    @functools.cache
    def fine_tuning(dropout: bool) -> Learner:
        rate = None if dropout else 0.0
        options = {"dropout": rate, "train_words": True, "words": words}
        return load_learner(learner, len(data.task.label_names), longest, **options).learner

    if words is not None:
        # The table holds them; a second copy on the host would double the memory of a large task.
        data = dataclasses.replace(data, vectors=np.asarray(words.table))
    return Problem(
        data=data,
        pretrained=pretrained,
        fine_tuning=fine_tuning,
        row_length=row_length,
        notes=tuple(notes),
        words=words,
        **splits,
    )
