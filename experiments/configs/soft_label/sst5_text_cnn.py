"""SST-5 with a TextConvNet, fresh learners: soft-label distillation (Sucholutsky & Schonlau, IJCNN 2021).

4 samples a class, 1 block, 5 passes, length 30. The paper gives SST-5 to recurrent networks only: there is no
published figure for this one.

Expect: test 34.8 +- 0.8 (50 learners), random texts 21.4 +- 1.0, teacher-labelled ones 26.9 +- 0.6 (5 learners each),
all data 37.1 after ten epochs.
Cost: 5 minutes of distillation on 2 CPU cores with other work on them, 0.9 GB.
"""

from experiments.soft_label import experiment
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "sst5",
        "text_cnn",
        length=30,
        samples=4,
        passes=5,
        initial_lr=0.1,
        lr=0.02,
        updates=600,
        decay_every=200,
        batch_size=256,
    )
