"""AG News with a TextConvNet: the ends of expert trainings are matched, 10 samples a class.

Expect: test 57.1 +- 3.2 (10 learners).
Cost: 4 minutes of distillation on 2 CPU cores with other work on them, 1.1 GB.
"""

from experiments.matching import with_text_cnn
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_text_cnn("ag_news", "trajectory_matching")
