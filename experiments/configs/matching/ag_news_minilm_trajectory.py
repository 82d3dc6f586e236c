"""AG News with MiniLM: the ends of expert trainings are matched, 1 sample a class, 4 inner steps.

Expect: after 60 outer steps test 26.1 +- 2.0 (5 learners), random texts 59.1 +- 8.4, k-center 63.5 +- 3.5, herding 58.5
+- 3.4.
Cost: 10 minutes of distillation on 2 CPU cores with other work on them, 2.2 GB.
"""

from experiments.matching import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("ag_news", "trajectory_matching", updates=200)
