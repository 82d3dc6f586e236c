"""What the configurations of `experiments/configs/fair` share."""

from __future__ import annotations

from typing import Any

from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.methods.fair import Fair, clean
from jaxdistill.pipeline.config import (
    BalanceConfig,
    EvaluationConfig,
    ExperimentConfig,
    LearnerConfig,
    TaskConfig,
    WordsConfig,
)

_RATES: dict[str, Any] = {"batch_size": 512, "lr": 0.03, "initial_lr": 0.1}


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


def on_sentences(task: str, balance: BalanceConfig | None = None) -> ExperimentConfig:
    """Texts as MiniLM sentence vectors: five blocks of one vector a class, 2 passes, 600 outer steps.

    Args:
      task: texts with protected groups.
      balance: see `experiment`.
    """
    outer = {"inits": 2, "selections": 4}
    settings = clean(blocks=5, passes=2, updates=600, decay_every=150, outer=outer, **_RATES)
    return experiment(task, settings, words=WordsConfig(vectors="sentences:minilm", std=1.0), balance=balance)


def on_bias(balance: BalanceConfig | None = None) -> ExperimentConfig:
    """The controlled bias of `toy/bias`: one vector a class, 5 passes, 400 outer steps.

    Args:
      balance: see `experiment`.
    """
    outer = {"inits": 4, "selections": 4}
    settings = clean(passes=5, updates=400, decay_every=100, outer=outer, **_RATES)
    return experiment("toy/bias", settings, balance=balance)
