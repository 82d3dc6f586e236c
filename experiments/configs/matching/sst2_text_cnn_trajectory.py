"""SST-2 with a TextConvNet: the ends of expert trainings are matched, 10 samples a class.

Expect: FIGURE_sst2_text_cnn_trajectory
"""

from experiments.matching import with_text_cnn
from jaxdistill.methods.experts import Experts
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_text_cnn(
        "sst2", "trajectory_matching", experts=Experts(count=4, epoch_steps=40, lr=1e-3, batch_size=64)
    )
