"""SST-2 with MiniLM, preset clean of distillation with attention labels (Maekawa et al., ACL 2023).

1 sample a class, 1 step, length 64, unrestricted labels, [CLS] attention labels, one step size a layer.

Expect: test 80.3 +- 0.4 (one distillation, 100 learners), dev 84.3; random texts of equal size about 52.
Cost: 18 minutes of distillation on 2 CPU cores, 2.4 GB.
"""

from jaxdistill.methods.attention_label import clean
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        task=TaskConfig(name="sst2", max_length=64),
        learner=LearnerConfig(name="minilm"),
        settings=clean(length=64, outer=Outer(updates=2000)),
        evaluation=EvaluationConfig(students=100, baseline_students=5),
    )
