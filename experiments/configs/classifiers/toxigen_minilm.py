"""Toxicity of a text: MiniLM fine-tuned on the human-annotated sentences of ToxiGen. Labels: benign, toxic."""

from jaxdistill.pipeline.classifier_config import ClassifierConfig
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig


def get_config() -> ClassifierConfig:
    return ClassifierConfig(
        task=TaskConfig(name="toxigen"), learner=LearnerConfig(name="minilm"), lrs=(5e-5,), epochs=3
    )
