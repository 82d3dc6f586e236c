"""What the configurations of `experiments/configs/attention_label` share."""

from __future__ import annotations

from typing import Any

from jaxdistill.methods.attention_label import clean, reference
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig


def published(task: str, updates: int) -> ExperimentConfig:
    """A cell of the paper: bert-base-uncased, 512 positions, 1 sample a class, 1 step, unrestricted labels, [CLS]
    attention labels, selection on the reported split after each of 30 epochs.

    Args:
      task: of the task table.
      updates: outer steps of 30 epochs of the official train split.
    """
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=512),
        learner=LearnerConfig(name="google-bert/bert-base-uncased"),
        settings=reference(
            label_kind="unrestricted",
            attention="cls",
            initial_lr=0.1,
            outer={"updates": updates, "selections": 30},
        ),
        evaluation=EvaluationConfig(protocol="paper", full_epochs=3.0),
    )


def with_minilm(task: str, updates: int, *, row_length: int = 0, **evaluation: Any) -> ExperimentConfig:
    """Preset `clean` with MiniLM, 64 positions: runs on a laptop.

    Args:
      task: of the task table.
      updates: outer steps.
      row_length: of `TaskConfig`.
      **evaluation: of `EvaluationConfig`.
    """
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=64, row_length=row_length),
        learner=LearnerConfig(name="minilm"),
        settings=clean(length=64, outer=Outer(updates=updates)),
        evaluation=EvaluationConfig(**evaluation),
    )
