"""SST-2 with a TextConvNet: the ends of expert trainings are matched, 10 samples a class.

Expect: test 52.3 +- 1.5 (10 learners).
Cost: 1 minutes of distillation on 2 CPU cores with other work on them, 1.0 GB.
"""

from experiments.matching import with_text_cnn
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_text_cnn("sst2", "trajectory_matching")
