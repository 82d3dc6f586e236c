"""AG News with MiniLM, preset clean of distillation with attention labels (Maekawa et al., ACL 2023).

1 sample a class, 1 step, length 64, unrestricted labels, [CLS] attention labels, one step size a layer.

Expect: not measured yet.
Cost: about 20 minutes of distillation on 2 CPU cores, 3 GB.
"""

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
