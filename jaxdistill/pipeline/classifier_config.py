"""The configuration of a classifier's training: typed, frozen, checked at construction."""

from __future__ import annotations

import dataclasses

from jaxdistill.core.errors import UserError
from jaxdistill.models.classic_learner import NETWORKS
from jaxdistill.pipeline.checks import at_least, check_types
from jaxdistill.pipeline.config import LARGEST_SEED, LearnerConfig, TaskConfig


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """One classifier, for judging texts.

    Attributes:
      task: what it classifies.
      learner: an encoder: "minilm", a folder or hub id of a BERT, RoBERTa or DistilBERT, or "tiny".
      lrs: peak learning rates, each tried; dev chooses.
      epochs: of each training; dev chooses after how many of them to stop.
      batch_size: texts a step.
      train_texts: how many of the training split it sees, drawn at random; 0 for all.
      seed: all randomness.
    """

    task: TaskConfig = TaskConfig()
    learner: LearnerConfig = LearnerConfig()
    lrs: tuple[float, ...] = (5e-5,)
    epochs: int = 1
    batch_size: int = 32
    train_texts: int = 0
    seed: int = 0

    def __post_init__(self):
        check_types(self, "config")
        at_least(self, "config", {"epochs": 1, "batch_size": 1, "train_texts": 0})
        if not self.lrs or not all(0.0 < lr < float("inf") for lr in self.lrs):
            raise UserError(f"config.lrs is {self.lrs}: accepted are one or more numbers above 0")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed is {self.seed}: accepted are seeds from 0 to {LARGEST_SEED}")
        if self.learner.name in NETWORKS:
            raise UserError(
                f"learner.name is {self.learner.name!r}, which has no Hugging Face form: accepted are encoders (BERT, "
                "RoBERTa, DistilBERT)"
            )


def smoke_classifier(config: ClassifierConfig) -> ClassifierConfig:
    """The same training on the built-in reviews with a tiny encoder: two updates, in seconds."""
    return dataclasses.replace(
        config,
        task=TaskConfig(name="toy/reviews", max_length=32),
        learner=dataclasses.replace(config.learner, name="tiny"),
        lrs=config.lrs[:2],
        epochs=2,
        batch_size=16,
        train_texts=16,
    )
