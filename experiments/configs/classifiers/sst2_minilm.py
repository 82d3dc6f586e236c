"""Sentiment of a text: MiniLM fine-tuned on 12,000 phrases of SST-2, one epoch. Labels: negative, positive."""

from jaxdistill.pipeline.classifier_config import ClassifierConfig
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig


def get_config() -> ClassifierConfig:
    return ClassifierConfig(
        task=TaskConfig(name="sst2"), learner=LearnerConfig(name="minilm"), lrs=(5e-5,), epochs=1, train_texts=12_000
    )
