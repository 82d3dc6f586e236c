"""What the configurations of `experiments/configs/soft_label` share."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.methods.soft_label import clean
from jaxdistill.models.classic_learner import ClassicOptions
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig

VECTORS = "glove-100d-subset"


def experiment(
    task: str,
    network: str,
    *,
    length: int,
    students: int = 50,
    full_epochs: float = 10.0,
    **settings: Any,
) -> ExperimentConfig:
    """A cell of the paper under the preset `clean`.

    Args:
      task: of the task table.
      network: see `models.classic_learner.NETWORKS`.
      length: words of a text, and positions of a sample.
      students: learners of the reported number.
      full_epochs: of the reference on all data.
      **settings: of `methods.soft_label.clean`.
    """
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=length),
        learner=LearnerConfig(name=network, words=WordsConfig(vectors=VECTORS)),
        method="soft_label",
        settings=clean(length=length, **settings),
        evaluation=EvaluationConfig(
            students=students,
            baselines=("random", "k_center", "herding", "teacher_labels"),
            baseline_students=5,
            recipe=Recipe(steps=200, lr=1e-3),
            full_epochs=full_epochs,
            full_lr=1e-3,
        ),
    )


def fixed(config: ExperimentConfig) -> ExperimentConfig:
    """The cell with all learners starting from the same weights: two of them, which get the same."""
    network = dataclasses.replace(config.learner.network, fixed_init=True)
    return dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, network=network),
        evaluation=dataclasses.replace(config.evaluation, students=2),
    )


def reference(
    task: str,
    network: str,
    *,
    length: int,
    words: int,
    epoch: int,
    students: int = 200,
    **settings: Any,
) -> ExperimentConfig:
    """A cell of the paper as the published code runs it: padding is seen, recurrent cells have two biases, TextConvNet
    drops features in the inner loop, two classes have one logit, called from 0.5 on, and labels that start inverted,
    learning rates fall an epoch early, vectors of the first words only, the last iterate.

    Args:
      task, network, length, students: see `experiment`.
      words: rows of the word table with a vector.
      epoch: outer steps of one pass over the real data.
      **settings: of `methods.soft_label.clean`.
    """
    config = experiment(task, network, length=length, students=students, **settings)
    binary = {"label_kind": "binary", "label_start": "inverted"} if task == "imdb" else {}
    outer = {"selections": 1, "decay_ahead": epoch}
    return dataclasses.replace(
        config,
        learner=LearnerConfig(
            name=network,
            dropout=network == "text_cnn",
            words=WordsConfig(vectors=VECTORS, rows=words, split="whitespace"),
            network=ClassicOptions(
                mask_padding=False,
                double_bias=True,
                one_logit=bool(binary),
                threshold=0.5 if binary else 0.0,
            ),
        ),
        settings=clean(length=length, outer=outer, **binary, **settings),
    )
