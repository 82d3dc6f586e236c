"""What the configurations of `experiments/configs/dilm` share."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxdistill.evaluation.recipes import DILM
from jaxdistill.methods.dilm_learners import Learners
from jaxdistill.methods.dilm_pool import Pooling
from jaxdistill.methods.dilm_settings import DiLM, Matching, reference
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig


def published(task: str, *, max_length: int, **settings: Any) -> ExperimentConfig:
    """A cell of the paper: GPT-2 writes, bert-base-uncased learns, 20 texts a class.

    Other sizes need no new generator: `--config.settings.per_class=5 --config.settings.trained=<run>/generator`.

    Args:
      task: of the task table.
      max_length: most tokens of a generated example.
      **settings: of `methods.dilm_settings.DiLM`.
    """
    language_model = dataclasses.replace(DiLM().language_model, row_length=max_length)
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=512),
        learner=LearnerConfig(name="google-bert/bert-base-uncased"),
        method="dilm",
        settings=reference(per_class=20, max_length=max_length, language_model=language_model, **settings),
        evaluation=EvaluationConfig(
            protocol="paper", baselines=("random", "k_means", "herding"), baseline_students=100, full_epochs=3.0
        ),
    )


def with_minilm(task: str, *, generator: str, **settings: Any) -> ExperimentConfig:
    """Preset `clean` with MiniLM and a small generator: a twentieth of the published updates, at a higher rate.

    Args:
      task: of the task table.
      generator: folder of a language model, see `experiments.pretrain_lm`.
      **settings: of `methods.dilm_settings.DiLM`.
    """
    length = 64
    language_model = LanguageModelling(
        updates=6000,
        epochs=0.0,
        rows=16,
        row_length=length,
        reduction="token_mean",  # packed: a row of 64 tokens holds four phrases
        truncate=True,
        lr=1e-3,
        warmup=0.05,
        selections=6,
        keep="best",
    )
    # Scored on dev, for the eye alone: four learners cannot tell two generators apart, and the last is kept.
    matching = Matching(
        updates=1000, lr=3e-5, dropout=False, selections=1, sets=2, students=2, per_class=5, keep="last"
    )
    learners = Learners(trainings=2, teacher_pool=5000)
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=length),
        learner=LearnerConfig(name="minilm"),
        method="dilm",
        settings=DiLM(
            per_class=20,
            generator=generator,
            max_length=length,
            language_model=language_model,
            matching=matching,
            learners=learners,
            pooling=Pooling(batch=32, refresh=5),
            **settings,
        ),
        evaluation=EvaluationConfig(
            students=5, baselines=("random", "k_means"), baseline_students=5, full_epochs=0.0, recipe=DILM
        ),
    )
