"""AG News with MiniLM: mean features of the pretrained encoder are matched, 1 sample a class, hard labels.

Not measured yet.
"""

from experiments.matching import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("ag_news", "distribution_matching")
