"""SST-5 with a Bi-RNN, fresh learners: soft-label distillation (Sucholutsky & Schonlau, IJCNN 2021).

20 samples a class, 3 passes, length 10, labels through a softmax.

Published, for fresh learners: 27.8 +- 2.2 (200 nets). Not measured by us.
Cost: about 15 minutes on 2 CPU cores (estimated).
"""

from experiments.soft_label import experiment
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "sst5",
        "bi_rnn",
        length=10,
        samples=20,
        passes=3,
        label_kind="soft",
        initial_lr=0.5,
        lr=0.1,
        updates=1800,
        decay_every=270,
        batch_size=256,
    )
