"""AG News with MiniLM: gradients of fresh heads on all classes together are matched, 1 sample a class.

Not measured yet.
"""

from experiments.matching import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("ag_news", "gradient_matching")
