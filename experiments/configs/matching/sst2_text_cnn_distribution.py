"""SST-2 with a TextConvNet: mean features of random networks are matched, 10 samples a class, hard labels.

Expect: FIGURE_sst2_text_cnn_distribution
"""

from experiments.matching import with_text_cnn
from jaxdistill.objectives.distribution import DistributionMatching
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_text_cnn(
        "sst2", "distribution_matching", label_kind="hard", distributions=DistributionMatching(encoder="random")
    )
