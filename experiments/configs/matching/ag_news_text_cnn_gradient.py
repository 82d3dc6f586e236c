"""AG News with a TextConvNet: gradients of fresh networks on all classes together are matched, 10 samples a class.

Not measured yet.
"""

from experiments.matching import with_text_cnn
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_text_cnn("ag_news", "gradient_matching")
