"""AG News with a TextConvNet: gradients of fresh networks are matched class by class, 10 samples a class, hard labels.

Not measured yet.
"""

from experiments.matching import with_text_cnn
from jaxdistill.objectives.gradient import GradientMatching
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_text_cnn(
        "ag_news",
        "gradient_matching",
        updates=400,
        label_kind="hard",
        gradients=GradientMatching(advance="none"),
    )
