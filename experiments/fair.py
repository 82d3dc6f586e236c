"""What the configurations of `experiments/configs/fair` share."""

from __future__ import annotations

from typing import Any

from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.methods.fair import Fair
from jaxdistill.pipeline.config import (
    BalanceConfig,
    EvaluationConfig,
    ExperimentConfig,
    LearnerConfig,
    TaskConfig,
    WordsConfig,
)


def experiment(
    task: str,
    settings: Fair,
    *,
    words: WordsConfig | None = None,
    balance: BalanceConfig | None = None,
    **evaluation: Any,
) -> ExperimentConfig:
    """Fair distillation with a perceptron.

    Args:
      task: with protected groups.
      settings: see `methods.fair`.
      words: sentence vectors of texts; left alone for tasks of vectors.
      balance: balanced training, and bias on purpose.
      **evaluation: of `EvaluationConfig`.
    """
    defaults: dict[str, Any] = {
        "students": 50,
        "baselines": ("random",),
        "baseline_students": 10,
        "full_epochs": 5.0,
        "full_lr": 1e-3,
        "recipe": Recipe(steps=100, lr=1e-3),
    }
    return ExperimentConfig(
        task=TaskConfig(name=task, balance=balance or BalanceConfig()),
        learner=LearnerConfig(name="mlp", words=words or WordsConfig()),
        method="fair",
        settings=settings,
        evaluation=EvaluationConfig(**(defaults | evaluation)),
    )
