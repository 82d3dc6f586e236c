"""SST-2 with MiniLM: the ends of expert trainings are matched, 1 sample a class, 4 inner steps.

Not measured yet.
"""

from experiments.matching import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("sst2", "trajectory_matching", updates=200)
