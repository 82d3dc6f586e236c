"""What the configurations of `experiments/configs/dallme` share."""

from __future__ import annotations

from typing import Any

from jaxdistill.evaluation.recipes import DILM
from jaxdistill.methods.dallme import DaLLME
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig


def small(task: str, *, inverter: str, **settings: Any) -> ExperimentConfig:
    """Texts inverted from MiniLM's sentence vectors, MiniLM as the learner, on a laptop.

    Args:
      task: of the task table.
      inverter: folder of one, see `experiments.train_inverter`.
      **settings: of `methods.dallme.DaLLME`.
    """
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=64),
        learner=LearnerConfig(name="minilm"),
        method="dallme",
        settings=DaLLME(inverter=inverter, **settings),
        evaluation=EvaluationConfig(
            students=5,
            baselines=("random", "k_means", "herding"),
            baseline_students=5,
            full_epochs=0.0,
            recipe=DILM,
        ),
    )
