"""What the configurations of `experiments/configs/gradmm` share."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxdistill.evaluation.recipes import DILM
from jaxdistill.methods.gradmm_settings import GRADMM, Filtering, reference
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig


def published(task: str, **settings: Any) -> ExperimentConfig:
    """A cell of the paper: Phi-1.5 makes 50 texts a class and is fine-tuned on them.

    Args:
      task: of the task table.
      **settings: of `methods.gradmm_settings.GRADMM`.
    """
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=128),
        learner=LearnerConfig(name="microsoft/phi-1_5"),
        method="gradmm",
        settings=reference(**settings),
        evaluation=EvaluationConfig(
            protocol="paper",
            students=5,
            baselines=("random", "k_center", "herding"),
            baseline_students=5,
            full_epochs=0.0,
            recipe=dataclasses.replace(DILM, batch_size=16, lr=1e-5),
        ),
    )


def small(task: str, **settings: Any) -> ExperimentConfig:
    """Texts by the language model of `language_models/reviews_judged.py`, MiniLM as the learner, on a laptop.

    Texts that the language model judges otherwise are dropped: a head's gradient is largest for texts that are judged
    wrongly, so that matching alone makes such texts.

    Args:
      task: of the task table, with classes that are bad and great.
      **settings: of `methods.gradmm_settings.GRADMM`.
    """
    form = {"model": "runs/reviews_judged/model", "prompt": " it was", "label_words": (" bad", " great")}
    form |= {
        "prefix": "the",
        "per_class": 10,
        "rounds": 5,
        "length": 12,
        "real_length": 64,
        "filtering": Filtering(zero_shot=True),
    }
    private = "privacy" in settings and settings["privacy"].private
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=64),
        learner=LearnerConfig(name="minilm"),
        method="gradmm",
        settings=GRADMM(**(form | settings)),
        evaluation=EvaluationConfig(
            students=5,
            baselines=() if private else ("random", "k_means"),
            baseline_students=5,
            full_epochs=0.0,
            recipe=DILM,
        ),
    )
