"""AG News with MiniLM: 1 sample a class, 1 step, length 64, unrestricted labels, [CLS] attention labels, preset clean."""

from jaxdistill.methods.attention_label import clean
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        task=TaskConfig(name="ag_news", max_length=64),
        learner=LearnerConfig(name="minilm"),
        settings=clean(length=64, outer=Outer(updates=900)),
        evaluation=EvaluationConfig(students=10, baseline_students=3),
    )
